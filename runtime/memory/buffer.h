// Buffers with tags. Every byte that a rank allocates for training carries one tag
// (runtime/base/memory_tag.h), by which the ledger counts it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <span>

#include "runtime/base/clock.h"
#include "runtime/base/memory_tag.h"
#include "runtime/memory/memory_course.h"
#include "runtime/memory/shared_region.h"

namespace troupe {

// Bytes in a shared buffer, as another process of this host finds them.
struct SharedPlace {
  uint64_t buffer = 0;       // its number in this ledger, which no other buffer ever has
  int64_t buffer_bytes = 0;  // of all of it
  int64_t offset = 0;        // of the bytes, in it
  int descriptor = -1;       // of its memory, in this process
};

// Counts allocated bytes by tag, and knows which buffers are shared. Thread-safe.
//   M1. current(tag) is the sum of num_bytes() over the live Buffers of that tag.
//   M2. peak(tag) >= current(tag), since the start.
//   M3. idle(tag) <= current(tag): allocated, and kept for later by who uses none of it now.
class MemoryLedger {
 public:
  struct Usage {
    std::array<int64_t, kNumMemoryTags> current_bytes{};
    std::array<int64_t, kNumMemoryTags> peak_bytes{};
    std::array<int64_t, kNumMemoryTags> idle_bytes{};
  };
  void Add(MemoryTag tag, int64_t num_bytes);
  void Remove(MemoryTag tag, int64_t num_bytes, bool idle = false);
  // Bytes that stay allocated become idle, or with a negative number are used again.
  void AddIdle(MemoryTag tag, int64_t num_bytes);
  Usage Snapshot() const;
  // Where they lie, if all of them are in one live Buffer::Shared of this ledger.
  std::optional<SharedPlace> SharedAt(std::span<const std::byte> bytes) const;

  // From now on every change is a sample; an earlier course is dropped. The clock outlives it.
  void BeginCourse(const Clock& clock);
  // Ends with what there is now; empty where none was begun.
  MemoryCourse EndCourse();

 private:
  struct OpenCourse {
    const Clock& clock;
    MemoryCourse course{};
  };
  // Under the mutex.
  void Sample();
  friend class Buffer;
  struct Shared {
    uint64_t number = 0;
    SharedRegion region{};
  };
  void AddShared(SharedRegion region);
  void RemoveShared(const std::byte* start);

  mutable std::mutex mutex_;
  std::map<const std::byte*, Shared> shared_{};  // by their first byte
  uint64_t num_shared_ = 0;                      // ever
  std::array<int64_t, kNumMemoryTags> current_{};
  std::array<int64_t, kNumMemoryTags> peak_{};
  std::array<int64_t, kNumMemoryTags> idle_{};
  std::optional<OpenCourse> course_{};
};

// The system has no room for a buffer of so many bytes. Thrown, for it may come up anywhere;
// whoever builds a rank turns it into a sentence (actors/rank_load.h).
class BufferTooLarge : public std::bad_alloc {
 public:
  explicit BufferTooLarge(int64_t num_bytes) : num_bytes_(num_bytes) {}
  const char* what() const noexcept override { return "out of memory for a buffer"; }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  int64_t num_bytes_;
};

// Host memory aligned to 64 bytes. Move-only; the ledger must outlive it. Throws BufferTooLarge.
class Buffer {
 public:
  Buffer() = default;
  // Zeroed.
  Buffer(MemoryLedger& ledger, MemoryTag tag, int64_t num_bytes);
  // For what is written whole before it is read: zeros would cost a pass over memory of their own.
  static Buffer Unfilled(MemoryLedger& ledger, MemoryTag tag, int64_t num_bytes);
  // Zeroed, and other processes of this host may map it: members of a group read it in place. Where
  // the system shares no memory it is like any other buffer. Costs system calls and a descriptor:
  // for large buffers that stay.
  static Buffer Shared(MemoryLedger& ledger, MemoryTag tag, int64_t num_bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  int64_t num_bytes() const { return num_bytes_; }
  bool empty() const { return num_bytes_ == 0; }
  std::span<std::byte> bytes() { return {data_, static_cast<size_t>(num_bytes_)}; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(num_bytes_)}; }
  MemoryTag tag() const { return tag_; }

  // A pool says which of its buffers nobody uses; a new one is in use.
  void SetIdle(bool idle);

 private:
  void Free();

  std::byte* data_ = nullptr;
  int64_t num_bytes_ = 0;
  MemoryTag tag_ = MemoryTag::kWorkspace;
  bool idle_ = false;
  bool shared_ = false;
  MemoryLedger* ledger_ = nullptr;
};

}  // namespace troupe

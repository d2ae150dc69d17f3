// Memory that another process of this host may map: an anonymous file (memfd), so nothing is left
// behind by any kind of death. The slots of a channel lie in one, and buffers that members of a
// group read in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/base/result.h"

namespace troupe {

class MemoryLedger;

// A mapping of another process's memory: read where it is touched, or written and resident at once.
enum class SharedAccess : uint8_t { kRead, kWrite };

// Move-only; unmaps at its end. The ledger, where one was given, outlives it.
class SharedRegion {
 public:
  SharedRegion() = default;
  SharedRegion(SharedRegion&& other) noexcept;
  SharedRegion& operator=(SharedRegion&& other) noexcept;
  ~SharedRegion() { Reset(); }

  // Zeroed, resident, sealed against shrinking; counted as comm. kOutOfSpace where memory is short.
  static Result<SharedRegion> Create(int64_t num_bytes, MemoryLedger* ledger);
  // Maps what process `process_id` has open as `descriptor`. Refuses what is shorter than
  // `num_bytes` or could shrink under us, since touching it would kill this process.
  static Result<SharedRegion> Map(int process_id, int descriptor, int64_t num_bytes,
                                  SharedAccess access = SharedAccess::kWrite);

  // Of a created one: gives the memory back to the system at once, although others have it mapped.
  // They find zeros.
  void Discard();

  bool empty() const { return bytes_.empty(); }
  std::span<std::byte> bytes() const { return bytes_; }
  int descriptor() const { return descriptor_; }  // of a created one; else -1

 private:
  void Reset();

  std::span<std::byte> bytes_{};
  int descriptor_ = -1;
  MemoryLedger* ledger_ = nullptr;
};

}  // namespace troupe

#include "runtime/memory/buffer.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"

namespace troupe {
namespace {
constexpr size_t kAlignmentBytes = 64;  // one cache line, one AVX-512 register
size_t Index(MemoryTag tag) { return static_cast<size_t>(tag); }
size_t RoundedBytes(int64_t num_bytes) {
  return (static_cast<size_t>(num_bytes) + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
}
}  // namespace

void MemoryLedger::Add(MemoryTag tag, int64_t num_bytes) {
  const std::lock_guard lock(mutex_);
  const size_t i = Index(tag);
  current_[i] += num_bytes;
  peak_[i] = std::max(peak_[i], current_[i]);
  if (course_) Sample();
}

void MemoryLedger::Remove(MemoryTag tag, int64_t num_bytes, bool idle) {
  const std::lock_guard lock(mutex_);
  const size_t i = Index(tag);
  current_[i] -= num_bytes;
  if (idle) idle_[i] -= num_bytes;
  CHECK(current_[i] >= 0 && idle_[i] >= 0, "{} bytes below zero", MemoryTagName(tag));
  if (course_) Sample();
}

void MemoryLedger::AddIdle(MemoryTag tag, int64_t num_bytes) {
  const std::lock_guard lock(mutex_);
  const size_t i = Index(tag);
  idle_[i] += num_bytes;
  CHECK(idle_[i] >= 0 && idle_[i] <= current_[i], "{} bytes of {} idle", idle_[i],
        MemoryTagName(tag));
  if (course_) Sample();
}

MemoryLedger::Usage MemoryLedger::Snapshot() const {
  const std::lock_guard lock(mutex_);
  return {current_, peak_, idle_};
}

void MemoryLedger::BeginCourse(const Clock& clock) {
  const std::lock_guard lock(mutex_);
  course_.emplace(clock);
  Sample();
}

MemoryCourse MemoryLedger::EndCourse() {
  const std::lock_guard lock(mutex_);
  if (!course_) return {};
  Sample();
  MemoryCourse ended = std::move(course_->course);
  course_.reset();
  return ended;
}

void MemoryLedger::Sample() {
  MemorySample sample{.time_ns = course_->clock.NowNs()};
  for (size_t i = 0; i < kNumMemoryTags; ++i) {
    sample.allocated_bytes += current_[i];
    sample.used_bytes[i] = current_[i] - idle_[i];
  }
  course_->course.Add(sample);
}

std::optional<SharedPlace> MemoryLedger::SharedAt(std::span<const std::byte> bytes) const {
  const std::lock_guard lock(mutex_);
  auto after = shared_.upper_bound(bytes.data());
  if (after == shared_.begin()) return std::nullopt;
  const Shared& shared = (--after)->second;
  const auto whole = shared.region.bytes();
  const auto offset = static_cast<size_t>(bytes.data() - whole.data());
  if (offset > whole.size() || bytes.size() > whole.size() - offset) return std::nullopt;
  return SharedPlace{.buffer = shared.number,
                     .buffer_bytes = std::ssize(whole),
                     .offset = static_cast<int64_t>(offset),
                     .descriptor = shared.region.descriptor()};
}

void MemoryLedger::AddShared(SharedRegion region) {
  const std::lock_guard lock(mutex_);
  const std::byte* start = region.bytes().data();
  shared_.emplace(start, Shared{++num_shared_, std::move(region)});
}

void MemoryLedger::RemoveShared(const std::byte* start) {
  decltype(shared_)::node_type removed;
  {
    const std::lock_guard lock(mutex_);
    removed = shared_.extract(start);
  }
  removed.mapped().region.Discard();
}

Buffer::Buffer(MemoryLedger& ledger, MemoryTag tag, int64_t num_bytes)
    : Buffer(Unfilled(ledger, tag, num_bytes)) {
  if (data_ != nullptr) std::memset(data_, 0, RoundedBytes(num_bytes));
}

Buffer Buffer::Unfilled(MemoryLedger& ledger, MemoryTag tag, int64_t num_bytes) {
  CHECK(num_bytes >= 0);
  Buffer buffer;
  buffer.tag_ = tag;
  buffer.ledger_ = &ledger;
  if (num_bytes == 0) return buffer;
  buffer.data_ =
      static_cast<std::byte*>(std::aligned_alloc(kAlignmentBytes, RoundedBytes(num_bytes)));
  if (buffer.data_ == nullptr) throw BufferTooLarge(num_bytes);
  buffer.num_bytes_ = num_bytes;
  ledger.Add(tag, num_bytes);
  return buffer;
}

Buffer Buffer::Shared(MemoryLedger& ledger, MemoryTag tag, int64_t num_bytes) {
  if (num_bytes == 0) return Unfilled(ledger, tag, 0);
  auto region = SharedRegion::Create(num_bytes, nullptr);
  if (!region.ok()) return {ledger, tag, num_bytes};
  Buffer buffer;
  buffer.data_ = region->bytes().data();
  buffer.num_bytes_ = num_bytes;
  buffer.tag_ = tag;
  buffer.shared_ = true;
  buffer.ledger_ = &ledger;
  ledger.AddShared(*std::move(region));
  ledger.Add(tag, num_bytes);
  return buffer;
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)),
      tag_(other.tag_),
      idle_(std::exchange(other.idle_, false)),
      shared_(other.shared_),
      ledger_(other.ledger_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Free();
    data_ = std::exchange(other.data_, nullptr);
    num_bytes_ = std::exchange(other.num_bytes_, 0);
    tag_ = other.tag_;
    idle_ = std::exchange(other.idle_, false);
    shared_ = other.shared_;
    ledger_ = other.ledger_;
  }
  return *this;
}

Buffer::~Buffer() { Free(); }

void Buffer::SetIdle(bool idle) {
  if (data_ == nullptr || idle == idle_) return;
  idle_ = idle;
  ledger_->AddIdle(tag_, idle ? num_bytes_ : -num_bytes_);
}

void Buffer::Free() {
  if (data_ == nullptr) return;
  if (shared_) {
    ledger_->RemoveShared(data_);
  } else {
    std::free(data_);
  }
  ledger_->Remove(tag_, num_bytes_, idle_);
  data_ = nullptr;
  num_bytes_ = 0;
  idle_ = false;
}

}  // namespace troupe

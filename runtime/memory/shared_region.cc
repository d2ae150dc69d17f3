#include "runtime/memory/shared_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/memory/buffer.h"

namespace troupe {
namespace {

Result<std::span<std::byte>> MapWhole(int descriptor, int64_t num_bytes, SharedAccess access) {
  const bool writes = access == SharedAccess::kWrite;
  void* start =
      mmap(nullptr, static_cast<size_t>(num_bytes), writes ? PROT_READ | PROT_WRITE : PROT_READ,
           writes ? MAP_SHARED | MAP_POPULATE : MAP_SHARED, descriptor, 0);
  if (start == MAP_FAILED) {
    return MakeError(ErrorCode::kOutOfSpace, "shared memory: mapping {} bytes failed: {}",
                     num_bytes, std::strerror(errno));
  }
  return std::span(static_cast<std::byte*>(start), static_cast<size_t>(num_bytes));
}

}  // namespace

SharedRegion::SharedRegion(SharedRegion&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)),
      ledger_(std::exchange(other.ledger_, nullptr)) {}

SharedRegion& SharedRegion::operator=(SharedRegion&& other) noexcept {
  if (this != &other) {
    Reset();
    bytes_ = std::exchange(other.bytes_, {});
    descriptor_ = std::exchange(other.descriptor_, -1);
    ledger_ = std::exchange(other.ledger_, nullptr);
  }
  return *this;
}

void SharedRegion::Reset() {
  if (ledger_ != nullptr) ledger_->Remove(MemoryTag::kComm, static_cast<int64_t>(bytes_.size()));
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
  if (descriptor_ >= 0) close(descriptor_);
  bytes_ = {};
  descriptor_ = -1;
  ledger_ = nullptr;
}

void SharedRegion::Discard() {
  // A system that cannot do it keeps the memory until the last of them has gone.
  (void)fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, std::ssize(bytes_));
}

Result<SharedRegion> SharedRegion::Create(int64_t num_bytes, MemoryLedger* ledger) {
  rlimit files{};
  if (getrlimit(RLIMIT_FSIZE, &files) == 0 && files.rlim_cur < static_cast<rlim_t>(num_bytes)) {
    return MakeError(ErrorCode::kOutOfSpace,  // the system would send a signal
                     "shared memory of {} bytes: a file may have {} (ulimit -f)", num_bytes,
                     files.rlim_cur);
  }
  SharedRegion region;
  region.descriptor_ = memfd_create("troupe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  // fallocate, not ftruncate: short memory is an error here instead of a SIGBUS later.
  if (region.descriptor_ < 0 || fallocate(region.descriptor_, 0, 0, num_bytes) != 0 ||
      fcntl(region.descriptor_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return MakeError(ErrorCode::kOutOfSpace,
                     "shared memory of {} bytes: {}; use fewer or smaller slots", num_bytes,
                     std::strerror(errno));
  }
  ASSIGN_OR_RETURN(region.bytes_, MapWhole(region.descriptor_, num_bytes, SharedAccess::kWrite));
  if (ledger != nullptr) ledger->Add(MemoryTag::kComm, num_bytes);
  region.ledger_ = ledger;
  return region;
}

Result<SharedRegion> SharedRegion::Map(int process_id, int descriptor, int64_t num_bytes,
                                       SharedAccess access) {
  SharedRegion region;
  const std::string path = fmt::format("/proc/{}/fd/{}", process_id, descriptor);
  // Whatever it turns out to be, opening it must not block: the name came from outside.
  const int way = access == SharedAccess::kWrite ? O_RDWR : O_RDONLY;
  region.descriptor_ = open(path.c_str(), way | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (region.descriptor_ < 0) {
    return MakeError(ErrorCode::kUnavailable, "{}: {}", path, std::strerror(errno));
  }
  struct stat status {};
  const int seals = fcntl(region.descriptor_, F_GET_SEALS);
  if (fstat(region.descriptor_, &status) != 0 || status.st_size < num_bytes || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return MakeError(ErrorCode::kCorrupt, "{}: not {} bytes of sealed memory", path, num_bytes);
  }
  ASSIGN_OR_RETURN(region.bytes_, MapWhole(region.descriptor_, num_bytes, access));
  close(std::exchange(region.descriptor_, -1));  // what is mapped needs none
  return region;
}

}  // namespace troupe

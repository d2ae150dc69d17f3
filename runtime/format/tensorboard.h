// TensorBoard event files: a sequence of records {u64 length, u32 masked CRC-32C of the length,
// bytes, u32 masked CRC-32C of the bytes}, each an `Event` message; the first says "brain.Event:2".
// Used by the coordinator on its loop's thread.
//
// 1. A file that was open when its writer died is cut back to its last whole record on reopening;
//    TensorBoard would ignore everything after a torn one.
// 2. A resumed run keeps no record beyond the step that it resumes from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// CRC-32C (Castagnoli), reflected.
uint32_t Crc32c(std::span<const std::byte> bytes);
// TensorBoard's mask: a rotation and a constant, so that a CRC of bytes with CRCs stays useful.
uint32_t MaskedCrc32c(std::span<const std::byte> bytes);

// One framed record. `wall_seconds` is Unix time.
std::string TensorboardVersionRecord(double wall_seconds);
std::string TensorboardScalarRecord(double wall_seconds, int64_t step, std::string_view tag,
                                    float value);

class TensorboardWriter {
 public:
  // Makes the file, or continues it, without its records of steps beyond `keep_through_step`.
  static Result<TensorboardWriter> Open(
      FileSystem& files, const std::string& path, double wall_seconds,
      int64_t keep_through_step = std::numeric_limits<int64_t>::max());

  Status AddScalar(double wall_seconds, int64_t step, std::string_view tag, double value);
  Status Close();

 private:
  std::unique_ptr<WritableFile> file_;
};

// "events.out.tfevents.<unix seconds>.<host>", the name by which TensorBoard finds the file.
std::string TensorboardFileName(int64_t unix_seconds, std::string_view host);

}  // namespace troupe

// A file whose bytes the test holds.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "runtime/base/file_system.h"

namespace troupe::testing {

class MemoryFile : public ReadableFile {
 public:
  // The bytes outlive it.
  explicit MemoryFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  Status ReadAt(int64_t begin, std::span<std::byte> out) const override {
    const auto from = static_cast<size_t>(begin);
    if (from > bytes_.size() || out.size() > bytes_.size() - from) {
      return MakeError(ErrorCode::kIo, "the file ends at byte {}", bytes_.size());
    }
    std::ranges::copy(bytes_.subspan(from, out.size()), out.begin());
    return {};
  }
  Result<FileVersion> Version() const override {
    return FileVersion{.num_bytes = static_cast<int64_t>(bytes_.size())};
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace troupe::testing

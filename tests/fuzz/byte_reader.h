// ByteReader: what a fuzzer feeds, as the pieces that an entry point makes of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

namespace troupe::testing {

// The bytes one after another; past their end there are none.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::span<const std::byte> Next(size_t count) {
    const auto next = bytes_.first(std::min(count, bytes_.size()));
    bytes_ = bytes_.subspan(next.size());
    return next;
  }
  size_t Number(size_t num_bytes) {
    size_t number = 0;
    const auto next = Next(num_bytes);
    if (!next.empty()) std::memcpy(&number, next.data(), next.size());
    return number;
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace troupe::testing

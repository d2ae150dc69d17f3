// Digests of bytes: 64 bits of xxh3, against what disks, networks and people do to files by
// accident, not against forgers. The same on every machine. `xxhsum -H3` prints the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace troupe {

uint64_t DigestOf(std::span<const std::byte> bytes);

// Of bytes that come in pieces. One thread at a time.
class DigestStream {
 public:
  DigestStream();
  void Update(std::span<const std::byte> bytes);
  uint64_t value() const;  // of all so far

 private:
  struct Free {
    void operator()(void* state) const;
  };
  std::unique_ptr<void, Free> state_;
};

// 16 hexadecimal digits.
std::string DigestText(uint64_t digest);
std::optional<uint64_t> ParseDigest(std::string_view text);

}  // namespace troupe

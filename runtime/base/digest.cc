#include "runtime/base/digest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <charconv>
#include <new>

namespace troupe {

uint64_t DigestOf(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

DigestStream::DigestStream() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_.get()));
}

void DigestStream::Update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_.get()), bytes.data(), bytes.size());
}

uint64_t DigestStream::value() const {
  return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_.get()));
}

void DigestStream::Free::operator()(void* state) const {
  XXH3_freeState(static_cast<XXH3_state_t*>(state));
}

std::string DigestText(uint64_t digest) { return fmt::format("{:016x}", digest); }

std::optional<uint64_t> ParseDigest(std::string_view text) {
  uint64_t digest = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, digest, 16);
  if (error != std::errc() || at != end || DigestText(digest) != text) return std::nullopt;
  return digest;
}

}  // namespace troupe

#include "coordinator/cli/address.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace troupe {
namespace {

constexpr size_t kHostBytesMax = 253;  // DNS

Error Refused(std::string_view text, std::string_view why) {
  constexpr size_t kShownMax = 100;
  return MakeError(ErrorCode::kInvalidSpec, "{}: {}: write HOST:PORT, as {}",
                   text.substr(0, kShownMax), why, kDefaultAddress);
}

bool IsHost(std::string_view host) {
  const bool bracketed = host.starts_with('[');
  if (bracketed) {
    if (host.size() < 4 || !host.ends_with(']')) return false;
    host = host.substr(1, host.size() - 2);
  }
  return !host.empty() && host.size() <= kHostBytesMax &&
         std::ranges::all_of(host, [bracketed](unsigned char c) {
           if (bracketed) return std::isxdigit(c) != 0 || c == ':' || c == '.' || c == '%';
           return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_';
         });
}

}  // namespace

Result<std::string> ParseAddress(std::string_view text, AddressUse use) {
  const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0; };
  const bool port_alone = !text.empty() && std::ranges::all_of(text, is_digit);
  const size_t colon = text.rfind(':');
  if (!port_alone && (colon == std::string_view::npos || text.ends_with(']'))) {
    return Refused(text, "there is no port");
  }
  const std::string_view digits = port_alone ? text : text.substr(colon + 1);
  std::string_view host = port_alone ? "" : text.substr(0, colon);
  if (host.empty()) host = kDefaultAddress.substr(0, kDefaultAddress.find(':'));
  if (!IsHost(host)) return Refused(text, "that is no host name");
  int port = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, code] = std::from_chars(digits.data(), end, port);
  const int least = use == AddressUse::kListen ? 0 : 1;
  if (digits.empty() || code != std::errc() || stop != end || port < least || port > 65535) {
    return Refused(text,
                   least == 0 ? "a port is 0 (any free one) to 65535" : "a port is 1 to 65535");
  }
  return fmt::format("{}:{}", host, port);
}

}  // namespace troupe

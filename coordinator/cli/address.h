// Addresses of coordinators as people type them. Pure.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

// Where `troupe coordinator` listens and clients look, where nobody says otherwise.
inline constexpr std::string_view kDefaultAddress = "127.0.0.1:7077";

enum class AddressUse : uint8_t { kListen, kConnect };

// HOST:PORT of HOST:PORT, [IPv6]:PORT, or of PORT and :PORT alone, which are this machine's
// loopback. Port 0, any free one, is for listening only. An error says what to write.
Result<std::string> ParseAddress(std::string_view text, AddressUse use);

}  // namespace troupe

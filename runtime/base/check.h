// CHECK(condition, format, args...) states an invariant. It stays on in release builds: where the
// law it names is broken the process says which and aborts, because nothing after it can be true.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace troupe {

[[noreturn]] void CheckFailed(std::string_view condition, std::string_view file, int line,
                              const std::string& message);

}  // namespace troupe

#define CHECK(condition, ...)                                                               \
  do {                                                                                      \
    if (!(condition)) [[unlikely]] {                                                        \
      ::troupe::CheckFailed(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
    }                                                                                       \
  } while (false)

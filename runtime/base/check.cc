#include "runtime/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace troupe {

void CheckFailed(std::string_view condition, std::string_view file, int line,
                 const std::string& message) {
  const std::string text = fmt::format("{}:{}: CHECK({}) failed{}{}\n", file, line, condition,
                                       message.empty() ? "" : ": ", message);
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
  std::abort();
}

}  // namespace troupe

#include "runtime/base/signal_name.h"

#include <fmt/format.h>

#include <cstring>

namespace troupe {

std::string SignalName(int signal) {
  const char* abbreviation = ::sigabbrev_np(signal);
  return abbreviation == nullptr ? fmt::format("SIG{}", signal)
                                 : fmt::format("SIG{}", abbreviation);
}

}  // namespace troupe

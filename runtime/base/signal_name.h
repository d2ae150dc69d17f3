// Signals by the names that people know them by. Pure.
#pragma once

#include <string>

namespace troupe {

// "SIGTERM"; "SIG40" where a number has no name.
std::string SignalName(int signal);

}  // namespace troupe

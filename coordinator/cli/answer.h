// How a verb ends: its answer on stdout or its error on stderr, and the process' exit code.
#pragma once

#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

// Says it on stderr. Returns its exit code.
int Fail(const Error& error);

// Prints what was asked for on stdout. 0; where it cannot be printed, that is said: 1.
int PrintAnswer(std::string_view text);

}  // namespace troupe

// `--set a.b=1 c=2`: one flag takes as many overrides as follow it. Pure.
#pragma once

#include <string>
#include <vector>

namespace troupe {

// The words behind the program's name, last first, as CLI11 takes them, with a --set in front of
// every override ("key.key=value") that follows one.
std::vector<std::string> ReversedWords(int argc, const char* const* argv);

}  // namespace troupe

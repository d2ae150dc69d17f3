// `--set a.b=1 c=2`: one flag takes as many overrides as follow it. Pure.
#pragma once

#include <string>
#include <vector>

namespace troupe {

// `words`, without the program's name, with a --set in front of every override ("key.key=value")
// that follows one.
std::vector<std::string> WithEachSet(const std::vector<std::string>& words);

}  // namespace troupe

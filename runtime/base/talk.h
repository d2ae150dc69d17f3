// Talk: a line on stderr for people, that can never fail: where stderr itself is full or closed the
// words are lost and the program goes on.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace troupe {

template <typename... Args>
void Talk(fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  [[maybe_unused]] const size_t written = std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace troupe

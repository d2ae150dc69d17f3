// Talk: lines on stderr for people. It can never fail: where stderr is full, closed or not read,
// the words are lost and counted, and the program goes on. Any thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace troupe {

// `fd`: stderr, or what a test reads. `patience_ms` as in WriteWhole.
void Say(int fd, std::string_view text, int patience_ms);

// How long Talk waits for a stderr that nobody reads; for ever unless set. A program whose loop may
// not stand still sets it before its first thread.
void SetTalkPatience(int patience_ms);
int TalkPatience();

// How many times something was left unsaid.
int64_t TalkLost();

template <typename... Args>
void Talk(fmt::format_string<Args...> format, Args&&... args) {
  Say(2, fmt::format(format, std::forward<Args>(args)...), TalkPatience());
}

}  // namespace troupe

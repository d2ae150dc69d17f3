#include "coordinator/cli/set_words.h"

#include <algorithm>
#include <string_view>

namespace troupe {
namespace {

// A key, as none of the files is called that a verb takes, and an equals sign.
bool IsOverride(std::string_view word) {
  constexpr std::string_view kKeyBytes = "abcdefghijklmnopqrstuvwxyz0123456789_.";
  const size_t end = word.find_first_not_of(kKeyBytes);
  return end != std::string_view::npos && end > 0 && word[end] == '=';
}

}  // namespace

std::vector<std::string> ReversedWords(int argc, const char* const* argv) {
  enum { kOther, kValue, kMore } next = kOther;  // what a word may be
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (next == kMore && IsOverride(word)) {
      words.emplace_back("--set");
    } else if (next == kValue || word.starts_with("--set=")) {
      next = kMore;
    } else {
      next = word == "--set" ? kValue : kOther;
    }
    words.emplace_back(word);
  }
  std::ranges::reverse(words);
  return words;
}

}  // namespace troupe

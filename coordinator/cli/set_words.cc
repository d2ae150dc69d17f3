#include "coordinator/cli/set_words.h"

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

std::vector<std::string> WithEachSet(const std::vector<std::string>& words) {
  enum { kOther, kValue, kMore } next = kOther;  // what a word may be
  std::vector<std::string> expanded;
  for (const std::string& word : words) {
    if (next == kMore && IsOverride(word)) {
      expanded.emplace_back("--set");
    } else if (next == kValue || word.starts_with("--set=")) {
      next = kMore;
    } else {
      next = word == "--set" ? kValue : kOther;
    }
    expanded.push_back(word);
  }
  return expanded;
}

}  // namespace troupe

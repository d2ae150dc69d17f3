// Where each key of a job came from: who gave it, and the place where it is written. Errors are
// placed by it, and job.effective.yaml shows it. Pure; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "runtime/base/error.h"

namespace troupe {

struct Place {
  std::string where{};  // "job.yaml", "--set train.steps=0"; empty: nobody wrote it
  int line = 0;         // from 1; 0: not in a file, or of the whole file
  int column = 0;

  std::string Text() const;  // "job.yaml:7:16"
};

struct Origin {
  std::string source{};  // "file", a parent file's path, "flag", "model.config", "default", …
  Place place{};
};

// By dotted path: "train.steps".
using Provenance = std::map<std::string, Origin, std::less<>>;

// One thing that is wrong with a job, or odd.
struct Finding {
  Place place{};          // empty: the sentence says it
  std::string key{};      // "train.steps"; empty: of no key
  std::string message{};  // one sentence, without the place
  ErrorCode code = ErrorCode::kInvalidSpec;

  std::string Line() const;  // "job.yaml:7:16: train.steps = 0: use 1 or more"
};

// The key that a sentence begins with; empty: it begins with another word.
std::string_view LeadingKey(std::string_view sentence);

// Where the first key that a sentence names, and that somebody wrote, is written. A sentence begins
// with the key that it is about ("train.steps = 0: use 1 or more"); where that one was derived, the
// keys after it ("… of batch.seq_len = 8") are those that it was derived from. Null: there is none.
const Place* PlaceOf(const Provenance& provenance, std::string_view sentence);

// Calls `visit` with each word of `sentence` that could be a key, until one returns true; returns
// whether one did.
template <typename Visit>
bool AnyKeyIn(std::string_view sentence, const Visit& visit) {
  constexpr std::string_view kKeyBytes = "abcdefghijklmnopqrstuvwxyz0123456789_.";
  for (size_t start = 0; start < sentence.size();) {
    size_t end = sentence.find_first_not_of(kKeyBytes, start);
    if (end == std::string_view::npos) end = sentence.size();
    const std::string_view word = sentence.substr(start, end - start);
    // "name" and "kind" are keys where they begin the sentence, and words after that.
    const bool key = start == 0 || word.find('.') != std::string_view::npos;
    if (key && visit(word)) return true;
    start = sentence.find_first_of(kKeyBytes, end);
  }
  return false;
}

}  // namespace troupe

// Where each key of a job came from: who gave it, and the place where it is written. Errors are
// placed by it, and job.effective.yaml shows it. Pure; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace troupe {

struct Origin {
  std::string source{};  // "file", a parent file's path, "flag", "model.config", "default", …
  std::string place{};   // "job.yaml:7:16", "--set train.steps=0"; empty: nobody wrote it
};

// By dotted path: "train.steps".
using Provenance = std::map<std::string, Origin, std::less<>>;

// Where the first key that a sentence names, and that somebody wrote, is written. A sentence begins
// with the key that it is about ("train.steps = 0: use 1 or more"); where that one was derived, the
// keys after it ("… of batch.seq_len = 8") are those that it was derived from. Empty: there is
// none.
std::string_view PlaceOf(const Provenance& provenance, std::string_view sentence);

}  // namespace troupe

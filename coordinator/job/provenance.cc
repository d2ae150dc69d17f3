#include "coordinator/job/provenance.h"

#include <algorithm>

namespace troupe {

std::string_view PlaceOf(const Provenance& provenance, std::string_view sentence) {
  constexpr std::string_view kKeyBytes = "abcdefghijklmnopqrstuvwxyz0123456789_.";
  for (size_t start = 0; start < sentence.size();) {
    const size_t end = std::min(sentence.find_first_not_of(kKeyBytes, start), sentence.size());
    const std::string_view word = sentence.substr(start, end - start);
    // "name" and "kind" are keys where they begin the sentence, and words after that.
    const bool key = start == 0 || word.find('.') != std::string_view::npos;
    const auto origin = key ? provenance.find(word) : provenance.end();
    if (origin != provenance.end() && !origin->second.place.empty()) return origin->second.place;
    start = sentence.find_first_of(kKeyBytes, end);
  }
  return {};
}

}  // namespace troupe

#include "coordinator/job/provenance.h"

#include <fmt/format.h>

namespace troupe {

std::string Place::Text() const {
  return line == 0 ? where : fmt::format("{}:{}:{}", where, line, column);
}

std::string Finding::Line() const {
  return place.where.empty() ? message : fmt::format("{}: {}", place.Text(), message);
}

std::string_view LeadingKey(std::string_view sentence) {
  std::string_view leading;
  (void)AnyKeyIn(sentence, [&](std::string_view word) {
    if (word.data() == sentence.data()) leading = word;
    return true;
  });
  return leading;
}

const Place* PlaceOf(const Provenance& provenance, std::string_view sentence) {
  const Place* place = nullptr;
  (void)AnyKeyIn(sentence, [&](std::string_view word) {
    const auto origin = provenance.find(word);
    if (origin == provenance.end() || origin->second.place.where.empty()) return false;
    place = &origin->second.place;
    return true;
  });
  return place;
}

}  // namespace troupe

// Whether a YAML text goes on after its first document, which is all that YAML::Load reads. Pure.
#pragma once

#include <yaml-cpp/yaml.h>

#include <optional>
#include <string_view>

namespace troupe {

// Where the second document that is not empty begins, or what no document can hold; nothing where
// the text ends with its first. Throws YAML::Exception as YAML::Load does.
std::optional<YAML::Mark> SecondDocument(std::string_view text);

}  // namespace troupe

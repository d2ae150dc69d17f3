// Keys of a config.json that change what a model computes, as Llama's relatives have them, in ways
// that are not built. Used by the reader of config.json. Pure.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "runtime/base/result.h"

namespace troupe {

// kInvalidSpec, naming all that are set with what each would take; none is where they are absent,
// or say that it is off. `path` is for the message.
Status RefuseForeignKeys(const nlohmann::json& document, const std::string& path);

}  // namespace troupe

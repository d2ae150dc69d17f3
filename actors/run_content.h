// What a run is made of besides its job: what its checkpoints remember, so that a resumed one can
// tell whether it goes on with the same. Plain data.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/format/content_identity.h"

namespace troupe {

struct RunContent {
  std::optional<ContentIdentity> data{};       // where this rank reads tokens
  std::optional<ContentIdentity> init_from{};  // weights that the run began with
  bool groups_changed = false;                 // its sums have not one shape from the first step on
  bool data_changed = false;                   // the data are not those it began with
};

}  // namespace troupe

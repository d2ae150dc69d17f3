// Cancel: ends a job between two steps with a checkpoint, or at once.
#pragma once

#include "coordinator/state.h"

namespace troupe {

Result<proto::CancelReply> Cancel(State& state, const proto::CancelRequest& request);

}  // namespace troupe

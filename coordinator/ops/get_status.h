// GetStatus: one job, and with `why` who waits for whom as its ranks last said. Asking makes the
// ranks say it again, so a second request shows the present.
#pragma once

#include "coordinator/state.h"

namespace troupe {

Result<proto::GetStatusReply> GetStatus(State& state, const proto::GetStatusRequest& request);

}  // namespace troupe

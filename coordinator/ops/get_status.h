// GetStatus: one job, and with `why` who waits for whom. The ranks are asked then, so the answer is
// of now; it comes when all have said it, or within JobLife::kWaitsMs.
#pragma once

#include "coordinator/state.h"

namespace troupe {

void GetStatus(State& state, const proto::GetStatusRequest& request,
               Answer<proto::GetStatusReply> answer);

}  // namespace troupe

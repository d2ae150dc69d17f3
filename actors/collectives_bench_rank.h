// troupe-rank --collectives-bench RANK: one worker of `troupe bench collectives`, a rank without a
// job. It joins a group of all workers, over the transport of real ranks, and measures one
// operation after another as the command asks (proto/collectives_bench.proto).
//
//   address --JoinGroup--> joined --MeasureCollective--> measured --MeasureCollective--> …
//
//   B1. The end of the control socket ends it.
//   B2. What goes wrong is said once, and ends it.
#pragma once

#include "runtime/base/ids.h"

namespace troupe {

// Until the command ends it. Returns the process' exit code.
int RunCollectivesBenchRank(Rank self, int control_fd);

}  // namespace troupe

// One rank of a ForkedJob: what a fork of the caller does. Speaks the control protocol of
// troupe-rank (proto/worker.proto) without its first message: it has its orders by inheritance.
//
//   Hello --Peers--> Ready --Begin (rank 0)--> training --ended (rank 0), ShutDown (others)-->
//   spans, Finished --Leave--> exit
#pragma once

#include "runtime/base/ids.h"
#include "tests/support/forked_job.h"

namespace troupe::testing {

// Never returns to the caller's code: ends the process.
[[noreturn]] void RunForkedRank(const ForkedJobOptions& options, Rank self, int control_fd);

}  // namespace troupe::testing

// The door of ReadLogs: a stream of LogLines to one client. Reads on a thread that all such streams
// share, decides on the event loop, and holds one chunk of lines however slowly the client reads.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>

#include "coordinator/state.h"
#include "runtime/actor/stream.h"

namespace troupe {

// How many streams there are, and may be.
struct LogStreamCount {
  std::atomic<int>& now;
  int max = 0;
};

// One more than may be is refused. State, disk and count outlive the stream, which ends itself. Any
// thread.
grpc::ServerWriteReactor<proto::LogLines>* NewLogStream(State& state, Seams seams, Stream& disk,
                                                        LogStreamCount count,
                                                        const proto::ReadLogsRequest& request);

}  // namespace troupe

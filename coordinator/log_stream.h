// The door of ReadLogs: a stream of LogLines to one client. Reads on a thread that all such streams
// share, decides on the event loop, and holds one chunk of lines however slowly the client reads.
#pragma once

#include <grpcpp/grpcpp.h>

#include "coordinator/state.h"
#include "runtime/actor/stream.h"

namespace troupe {

// State and disk outlive the stream, which ends itself. Any thread.
grpc::ServerWriteReactor<proto::LogLines>* NewLogStream(State& state, Seams seams, Stream& disk,
                                                        const proto::ReadLogsRequest& request);

}  // namespace troupe

// Errors across gRPC: the code travels as a number in the status' details, the sentence as its
// message.
#pragma once

#include <grpcpp/support/status.h>

#include "runtime/base/result.h"

namespace troupe {

grpc::Status ToRpc(const Error& error);
// An error that no server of ours made (connection refused, deadline) is kUnavailable, and says
// what to do. `deadline_ms` is what the call had, where it had one.
Error FromRpc(const grpc::Status& status, const std::string& peer, int deadline_ms = 0);

}  // namespace troupe

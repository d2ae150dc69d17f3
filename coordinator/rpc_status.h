// Errors across gRPC: the code travels as a number in the status' details, the sentence as its
// message.
#pragma once

#include <grpcpp/support/status.h>

#include "runtime/base/result.h"

namespace troupe {

grpc::Status ToRpc(const Error& error);
// An error that no server of ours made (connection refused, deadline) is kUnavailable.
Error FromRpc(const grpc::Status& status, const std::string& peer);

}  // namespace troupe

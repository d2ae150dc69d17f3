#include "coordinator/rpc_status.h"

#include <charconv>

namespace troupe {

grpc::Status ToRpc(const Error& error) {
  grpc::StatusCode code = grpc::StatusCode::INTERNAL;
  if (error.code == ErrorCode::kInvalidSpec) code = grpc::StatusCode::INVALID_ARGUMENT;
  if (error.code == ErrorCode::kInfeasible) code = grpc::StatusCode::FAILED_PRECONDITION;
  if (error.code == ErrorCode::kNotFound) code = grpc::StatusCode::NOT_FOUND;
  return {code, error.message, std::to_string(static_cast<int>(error.code))};
}

Error FromRpc(const grpc::Status& status, const std::string& peer) {
  const std::string& details = status.error_details();
  int code = 0;
  const char* end = details.data() + details.size();
  const auto [stop, error] = std::from_chars(details.data(), end, code);
  const bool ours = !details.empty() && error == std::errc() && stop == end && code >= 0 &&
                    code <= static_cast<int>(ErrorCode::kFailed);
  if (ours) return {static_cast<ErrorCode>(code), status.error_message()};
  return MakeError(ErrorCode::kUnavailable,
                   "the coordinator at {} cannot be reached ({}): start one with `troupe "
                   "coordinator --listen {}`, or give another address",
                   peer, status.error_message(), peer);
}

}  // namespace troupe

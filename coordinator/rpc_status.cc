#include "coordinator/rpc_status.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

namespace troupe {
namespace {

// In words of ours: gRPC's speak of its own parts. What it does not tell apart is the network's.
std::string WhyUnreached(const grpc::Status& status, const std::string& peer, int deadline_ms) {
  const std::string& said = status.error_message();
  const auto says = [&said](std::string_view words) {
    return said.find(words) != std::string::npos;
  };
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return fmt::format("no answer within {:g} s: it stands still, or is none", deadline_ms * 1e-3);
  }
  if (says("Connection refused")) {
    return fmt::format(
        "nobody listens there: start one with `troupe coordinator --listen {} --state DIR`, or "
        "give another address",
        peer);
  }
  if (says("DNS resolution failed")) {
    return fmt::format("there is no host {}: give another address",
                       peer.substr(0, peer.rfind(':')));
  }
  if (says("http1.x") || says("http2 header") ||
      status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return "what listens there is none: give another address";
  }
  return "the connection failed or was lost: it has ended, or the network between";
}

}  // namespace

grpc::Status ToRpc(const Error& error) {
  grpc::StatusCode code = grpc::StatusCode::INTERNAL;
  if (error.code == ErrorCode::kInvalidSpec) code = grpc::StatusCode::INVALID_ARGUMENT;
  if (error.code == ErrorCode::kInfeasible) code = grpc::StatusCode::FAILED_PRECONDITION;
  if (error.code == ErrorCode::kNotFound) code = grpc::StatusCode::NOT_FOUND;
  return {code, error.message, std::to_string(static_cast<int>(error.code))};
}

Error FromRpc(const grpc::Status& status, const std::string& peer, int deadline_ms) {
  const std::string& details = status.error_details();
  int code = 0;
  const char* end = details.data() + details.size();
  const auto [stop, error] = std::from_chars(details.data(), end, code);
  const bool ours = !details.empty() && error == std::errc() && stop == end && code >= 0 &&
                    code <= static_cast<int>(ErrorCode::kFailed);
  if (ours) return {static_cast<ErrorCode>(code), status.error_message()};
  return MakeError(ErrorCode::kUnavailable, "the coordinator at {} cannot be reached: {}", peer,
                   WhyUnreached(status, peer, deadline_ms));
}

}  // namespace troupe

#include "runtime/base/error.h"

#include <fmt/format.h>

namespace troupe {

std::string_view ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidSpec:
      return "invalid-spec";
    case ErrorCode::kInfeasible:
      return "infeasible";
    case ErrorCode::kNotFound:
      return "not-found";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kOutOfSpace:
      return "out-of-space";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kPeerDown:
      return "peer-down";
    case ErrorCode::kDeadlineExceeded:
      return "deadline-exceeded";
    case ErrorCode::kResourceExhausted:
      return "resource-exhausted";
    case ErrorCode::kStale:
      return "stale";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kGateFailed:
      return "gate-failed";
    case ErrorCode::kFailed:
      return "failed";
  }
  return "unknown";
}

Error Context(std::string_view noun, Error error) {
  error.message = fmt::format("{}: {}", noun, error.message);
  return error;
}

int ExitCode(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidSpec:
    case ErrorCode::kNotFound:
      return 2;
    case ErrorCode::kInfeasible:
      return 3;
    case ErrorCode::kUnavailable:
      return 4;
    case ErrorCode::kPeerDown:
    case ErrorCode::kDeadlineExceeded:
      return 5;
    case ErrorCode::kGateFailed:
      return 6;
    case ErrorCode::kCancelled:
      return 130;
    default:
      return 1;
  }
}

}  // namespace troupe

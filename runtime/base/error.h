// What an operating error is. Three kinds of wrong exist in Troupe:
//   1. an operating error (peer lost, file truncated, no space) is an Error inside a Result;
//   2. a broken invariant is a CHECK, which aborts, in release builds too;
//   3. a bad job spec is refused at the door with the field's name (kInvalidSpec).
// An Error's message is one sentence, outermost noun first, with units and the next thing to do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace troupe {

enum class ErrorCode : uint8_t {
  kInvalidSpec,        // the job file or a flag is wrong
  kInfeasible,         // the plan cannot be laid out or does not fit
  kNotFound,           // a file, job or actor does not exist
  kIo,                 // reading or writing failed
  kOutOfSpace,         // the disk is full
  kCorrupt,            // bytes from outside break their format
  kUnavailable,        // the coordinator or a peer cannot be reached
  kPeerDown,           // a worker or host agent was lost
  kDeadlineExceeded,   // a wait passed its deadline
  kResourceExhausted,  // a bounded mailbox or slot pool is full
  kStale,              // an old epoch or incarnation
  kCancelled,          // the job was cancelled
  kGateFailed,         // parity or evaluation gate failed
  kFailed,             // the job's own failure (loss not finite, handler error)
};

std::string_view ErrorCodeName(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kFailed;
  std::string message;
};

// Adds an outer noun: Context("stage 2", {"deadline passed"}) reads "stage 2: deadline passed".
Error Context(std::string_view noun, Error error);

// The process exit code of a job or command that ended with `code`:
// 1 job failed, 2 usage or spec, 3 infeasible plan, 4 coordinator unreachable, 5 worker lost or
// hang, 6 gate failed, 130 cancelled.
int ExitCode(ErrorCode code);

}  // namespace troupe

// The command line's calls to a coordinator. Blocking; any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "proto/control.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// Whether this process may have what gRPC takes without asking: threads, and beside `descriptors`
// of the program's own the descriptors and the address space that were measured of it, rounded up.
// Without them it aborts, or waits for ever. `who` begins the sentence.
Status CheckRpcLimits(std::string_view who, int64_t descriptors = 0);

class ControlClient {
 public:
  virtual ~ControlClient() = default;
  virtual Result<proto::SubmitReply> Submit(const proto::SubmitRequest& request) = 0;
  virtual Result<proto::CancelReply> Cancel(const proto::CancelRequest& request) = 0;
  virtual Result<proto::ListJobsReply> ListJobs() = 0;
  virtual Result<proto::GetStatusReply> GetStatus(const proto::GetStatusRequest& request) = 0;
  // Calls `on_event` until the job has ended or StopFollowing, which any thread may call.
  virtual Status Follow(uint64_t job,
                        const std::function<void(const proto::JobEvent&)>& on_event) = 0;
  virtual void StopFollowing() = 0;
  // Calls `on_lines` with what the ranks print, until it returns false.
  virtual Status ReadLogs(const proto::ReadLogsRequest& request,
                          const std::function<bool(const proto::LogLines&)>& on_lines) = 0;
};
// No call but Follow takes longer than `deadline_ms`.
std::unique_ptr<ControlClient> ConnectControl(const std::string& address, int deadline_ms = 10'000);

}  // namespace troupe

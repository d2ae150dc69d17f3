// The command line's calls to a coordinator. Blocking; any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "proto/control.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// What gRPC may make of its own; a program that cannot have them is told by CheckThreads.
constexpr int kRpcThreads = 12;

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

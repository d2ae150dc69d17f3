#include "coordinator/cli/client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "coordinator/rpc_status.h"
#include "proto/control.grpc.pb.h"
#include "runtime/base/process_limits.h"
#include "runtime/base/thread.h"

namespace troupe {
namespace {

constexpr int kMessageBytesMax = 64 << 20;
constexpr int kRpcThreads = 12;
constexpr int64_t kRpcDescriptors = 24;
constexpr int64_t kRpcAddressBytes = int64_t{768} << 20;

class GrpcControlClient final : public ControlClient {
 public:
  GrpcControlClient(std::string address, int deadline_ms)
      : address_(std::move(address)), deadline_(deadline_ms), limits_(CheckRpcLimits("troupe")) {
    if (!limits_.ok()) return;  // every call says it
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = proto::Control::NewStub(
        grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments));
  }
  Result<proto::SubmitReply> Submit(const proto::SubmitRequest& request) override {
    return Call<proto::SubmitReply>(
        [&](auto* context, auto* reply) { return stub_->Submit(context, request, reply); });
  }
  Result<proto::CancelReply> Cancel(const proto::CancelRequest& request) override {
    return Call<proto::CancelReply>(
        [&](auto* context, auto* reply) { return stub_->Cancel(context, request, reply); });
  }
  Result<proto::ListJobsReply> ListJobs() override {
    return Call<proto::ListJobsReply>([&](auto* context, auto* reply) {
      return stub_->ListJobs(context, proto::ListJobsRequest(), reply);
    });
  }
  Result<proto::GetStatusReply> GetStatus(const proto::GetStatusRequest& request) override {
    return Call<proto::GetStatusReply>(
        [&](auto* context, auto* reply) { return stub_->GetStatus(context, request, reply); });
  }
  Status Follow(uint64_t job,
                const std::function<void(const proto::JobEvent&)>& on_event) override {
    RETURN_IF_ERROR(limits_);
    proto::FollowRequest request;
    request.set_job(job);
    const auto reader = stub_->Follow(&following_, request);
    proto::JobEvent event;
    while (reader->Read(&event)) on_event(event);
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return Explain(status);
    return {};
  }
  void StopFollowing() override { following_.TryCancel(); }

  Status ReadLogs(const proto::ReadLogsRequest& request,
                  const std::function<bool(const proto::LogLines&)>& on_lines) override {
    RETURN_IF_ERROR(limits_);
    grpc::ClientContext context;
    const auto reader = stub_->ReadLogs(&context, request);
    proto::LogLines lines;
    while (reader->Read(&lines)) {
      if (on_lines(lines)) continue;
      context.TryCancel();
      (void)reader->Finish();
      return {};
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return Explain(status);
    return {};
  }

 private:
  Error Explain(const grpc::Status& status) const {
    if (!address_.empty()) return FromRpc(status, address_, static_cast<int>(deadline_.count()));
    return {ErrorCode::kUnavailable,
            "no coordinator is named: give --coordinator HOST:PORT, or set TROUPE_COORDINATOR"};
  }

  template <typename Reply, typename Stubbed>
  Result<Reply> Call(Stubbed stubbed) {
    RETURN_IF_ERROR(limits_);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline_);
    Reply reply;
    const grpc::Status status = stubbed(&context, &reply);
    if (!status.ok()) return Explain(status);
    return reply;
  }

  const std::string address_;
  const std::chrono::milliseconds deadline_;
  const Status limits_;
  grpc::ClientContext following_;  // of the one Follow
  std::unique_ptr<proto::Control::Stub> stub_;
};

}  // namespace

Status CheckRpcLimits(std::string_view who, int64_t descriptors) {
  RETURN_IF_ERROR(CheckProcessLimits(
      who, {.descriptors = kRpcDescriptors + descriptors, .address_bytes = kRpcAddressBytes}));
  return CheckThreads(kRpcThreads);
}

std::unique_ptr<ControlClient> ConnectControl(const std::string& address, int deadline_ms) {
  return std::make_unique<GrpcControlClient>(address, deadline_ms);
}

}  // namespace troupe

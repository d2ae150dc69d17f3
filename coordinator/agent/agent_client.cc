#include "coordinator/agent/agent_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <utility>

#include "coordinator/rpc_status.h"
#include "coordinator/write_queue.h"
#include "proto/control.grpc.pb.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kRetryMs = 1000;
constexpr int kMessageBytesMax = 64 << 20;

class GrpcAgentClient;

// One attempt at a connection. Deletes itself when gRPC has let it go.
class AgentStream : public grpc::ClientBidiReactor<proto::FromAgent, proto::ToAgent> {
 public:
  AgentStream(GrpcAgentClient& client, Scheduler& scheduler)
      : client_(client), scheduler_(scheduler) {}

  void Open(proto::Control::Stub& stub) {
    stub.async()->Attend(&context_, this);
    AddHold();  // writes come from the scheduler's thread until Close
    StartRead(&incoming_);
    StartCall();
  }
  void Write(const proto::FromAgent& message) {
    if (closing_ || leaving_) return;
    if (queue_.Push(message, message.ByteSizeLong())) StartWrite(queue_.Front());
  }
  size_t waiting_bytes() const { return queue_.bytes(); }
  // Nothing is written from now on; what was, is sent before the stream ends.
  void Leave() {
    leaving_ = true;
    if (queue_.empty()) HalfClose();
  }
  void Close() {
    if (std::exchange(closing_, true)) return;
    context_.TryCancel();
    RemoveHold();
  }
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override {
    if (!ok) return;
    if (const auto* next = queue_.Pop()) {
      StartWrite(next);
    } else if (leaving_) {
      HalfClose();
    }
  }
  void OnDone(const grpc::Status& status) override;

 private:
  void HalfClose() {
    if (!half_closed_.exchange(true)) StartWritesDone();
  }

  GrpcAgentClient& client_;
  Scheduler& scheduler_;
  grpc::ClientContext context_;
  proto::ToAgent incoming_;
  bool closing_ = false;  // scheduler's thread
  std::atomic<bool> leaving_{false};
  std::atomic<bool> half_closed_{false};
  WriteQueue<proto::FromAgent> queue_;
};

class GrpcAgentClient final : public AgentClient {
 public:
  GrpcAgentClient(HostAgent& agent, Scheduler& scheduler, std::string coordinator)
      : agent_(agent), scheduler_(scheduler), coordinator_(std::move(coordinator)) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
    // A coordinator that is stopped for a while is not gone; one whose process ended is known at
    // once.
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kRetryMs);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = proto::Control::NewStub(
        grpc::CreateCustomChannel(coordinator_, grpc::InsecureChannelCredentials(), arguments));
    Open();
  }
  ~GrpcAgentClient() override {
    scheduler_.Cancel(retry_);
    if (stream_ == nullptr) return;
    stream_->Close();
    std::unique_lock lock(mutex_);
    gone_.wait(lock, [this] { return open_streams_ == 0; });
  }

  void Leave(std::function<void()> gone) override {
    gone_for_good_ = std::move(gone);
    scheduler_.Cancel(retry_);
    if (stream_ == nullptr) return gone_for_good_();
    stream_->Leave();
  }

  void Opened() {
    agent_.Connected(
        [this](const proto::FromAgent& message) {
          if (stream_ != nullptr) stream_->Write(message);
        },
        [this] { return stream_ == nullptr ? 0 : stream_->waiting_bytes(); });
  }
  void Received(const proto::ToAgent& command) { agent_.OnCommand(command); }
  // Scheduler's thread.
  void Ended(AgentStream* stream, const grpc::Status& status) {
    if (stream != stream_) return;
    stream_->Close();
    stream_ = nullptr;
    agent_.Disconnected();
    if (gone_for_good_) return gone_for_good_();
    if (!std::exchange(complained_, true)) {
      Talk("{}; trying again\n", FromRpc(status, coordinator_).message);
    }
    retry_ = scheduler_.After(kRetryMs, [this] { Open(); });
  }
  // gRPC's thread, the last call of a stream.
  void StreamGone() {
    const std::lock_guard lock(mutex_);
    --open_streams_;
    gone_.notify_all();
  }

 private:
  void Open() {
    {
      const std::lock_guard lock(mutex_);
      ++open_streams_;
    }
    stream_ = new AgentStream(*this, scheduler_);
    stream_->Open(*stub_);
    Opened();
  }

  HostAgent& agent_;
  Scheduler& scheduler_;
  const std::string coordinator_;
  std::unique_ptr<proto::Control::Stub> stub_;
  AgentStream* stream_ = nullptr;
  bool complained_ = false;
  TimerId retry_{};
  std::function<void()> gone_for_good_{};
  std::mutex mutex_;
  std::condition_variable gone_;
  int open_streams_ = 0;
};

void AgentStream::OnReadDone(bool ok) {
  if (!ok) {
    // The hold keeps OnDone away: let go of it on the scheduler's thread, where writes come from.
    scheduler_.Post([this, &client = client_] {
      if (!closing_) client.Ended(this, grpc::Status(grpc::StatusCode::UNAVAILABLE, "it ended"));
    });
    return;
  }
  scheduler_.Post(
      [&client = client_, command = std::move(incoming_)] { client.Received(command); });
  incoming_.Clear();
  StartRead(&incoming_);
}

void AgentStream::OnDone(const grpc::Status&) {
  client_.StreamGone();
  delete this;
}

}  // namespace

std::unique_ptr<AgentClient> AgentClient::Connect(HostAgent& agent, Scheduler& scheduler,
                                                  const std::string& coordinator) {
  return std::make_unique<GrpcAgentClient>(agent, scheduler, coordinator);
}

}  // namespace troupe

#include "coordinator/control_service.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>

#include "coordinator/job_life.h"
#include "coordinator/log_stream.h"
#include "coordinator/ops/attend.h"
#include "coordinator/ops/cancel.h"
#include "coordinator/ops/get_status.h"
#include "coordinator/ops/list_jobs.h"
#include "coordinator/rpc_status.h"
#include "coordinator/write_queue.h"
#include "proto/control.grpc.pb.h"

namespace troupe {
namespace {

constexpr int kMessageBytesMax = 64 << 20;
constexpr size_t kGrpcBytesMax = size_t{512} << 20;  // of all calls together
// Events that wait for a client that does not read: beyond the first size reports of memory are
// left out, beyond the second the stream ends. It ends sooner where all that waits, of all jobs, is
// too much.
constexpr size_t kFollowerTelemetryBytesMax = size_t{1} << 20;
constexpr size_t kFollowerBytesMax = 8 * JobHistory::kBytesMax;
constexpr size_t kFollowerBytesAlways = size_t{64} << 10;
constexpr int64_t kEventBytesMax = int64_t{256} << 20;
constexpr int kFollowersMax = 1024;
constexpr int kLogStreamsMax = 256;
// An agent: what it said and the loop has not heard yet, beyond which nothing more is read; and
// what it is to be told and does not read, beyond which it is let go.
constexpr size_t kAgentHeardBytesMax = size_t{1} << 20;
constexpr size_t kAgentToldBytesMax = size_t{256} << 20;

// A stream to a follower. Lives until both gRPC and the event loop have let it go.
class FollowStream : public grpc::ServerWriteReactor<proto::JobEvent>, public FollowerPort {
 public:
  FollowStream(State& state, Seams seams, uint64_t job, std::atomic<int>& num_streams)
      : seams_(seams), event_bytes_(state.event_bytes), num_streams_(num_streams) {
    if (num_streams_.fetch_add(1) >= kFollowersMax) {
      FinishOnce(ToRpc(MakeError(ErrorCode::kResourceExhausted,
                                 "{} clients follow jobs already: read the run directory",
                                 kFollowersMax)));
      return;
    }
    seams_.scheduler.Post([this, &state, job] {
      const auto found = state.jobs.find(job);
      if (found == state.jobs.end()) {
        FinishOnce(ToRpc(MakeError(ErrorCode::kNotFound, "there is no job {}", job)));
        return;
      }
      state_ = &state;
      job_ = job;
      follower_ = found->second->Follow(this);
    });
  }
  void Send(const SharedEvent& event, int64_t num_bytes) override {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    const bool telemetry = event->rank().message().has_memory();
    const size_t waiting = queue_.bytes();
    if (telemetry && waiting >= kFollowerTelemetryBytesMax) return;
    const bool too_much = waiting >= kFollowerBytesAlways && *event_bytes_ > kEventBytesMax;
    if (too_much || waiting >= kFollowerBytesMax) {
      finished_ = true;
      ServerWriteReactor::Finish(
          ToRpc(MakeError(ErrorCode::kResourceExhausted,
                          "job {} tells more than this client reads: follow it again", job_)));
      return;
    }
    if (queue_.Push(event, static_cast<size_t>(num_bytes))) StartWrite(queue_.Front()->get());
  }
  void Finish() override {
    follower_ = 0;
    ending_ = true;
    if (queue_.empty()) FinishOnce(grpc::Status::OK);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return FinishOnce(grpc::Status::CANCELLED);
    const auto* next = queue_.Pop();
    if (next == nullptr && ending_) return FinishOnce(grpc::Status::OK);
    const std::lock_guard lock(mutex_);
    if (next != nullptr && !finished_) StartWrite(next->get());
  }
  void OnCancel() override { FinishOnce(grpc::Status::CANCELLED); }
  void OnDone() override {
    num_streams_.fetch_sub(1);
    seams_.scheduler.Post([this] {
      if (follower_ != 0) {
        const auto job = state_->jobs.find(job_);
        if (job != state_->jobs.end()) job->second->Unfollow(follower_);
      }
      delete this;
    });
  }

 private:
  void FinishOnce(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(finished_, true)) ServerWriteReactor::Finish(status);
  }

  Seams seams_;
  const EventBytes event_bytes_;
  std::atomic<int>& num_streams_;  // the service's
  State* state_ = nullptr;
  uint64_t job_ = 0;
  FollowerId follower_ = 0;
  std::atomic<bool> ending_{false};
  std::mutex mutex_;
  bool finished_ = false;  // then gRPC may let the call go at any time: no new write
  WriteQueue<SharedEvent> queue_;
};

// An agent's stream, both ways.
class AttendStream : public grpc::ServerBidiReactor<proto::FromAgent, proto::ToAgent>,
                     public AgentPort {
 public:
  AttendStream(State& state, Seams seams)
      : scheduler_(seams.scheduler), attendance_(state, seams, *this) {
    StartRead(&incoming_);
  }
  void Send(const proto::ToAgent& command) override {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    if (queue_.bytes() > kAgentToldBytesMax) {
      finished_ = true;
      return Finish(ToRpc(
          MakeError(ErrorCode::kResourceExhausted, "the agent does not read what it is told")));
    }
    if (queue_.Push(command, command.ByteSizeLong())) StartWrite(queue_.Front());
  }
  void Close() override {
    FinishOnce(ToRpc(MakeError(ErrorCode::kStale, "the agent was silent and has been given up")));
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return FinishOnce(grpc::Status::CANCELLED);
    const auto* next = queue_.Pop();
    const std::lock_guard lock(mutex_);
    if (next != nullptr && !finished_) StartWrite(next);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return FinishOnce(grpc::Status::OK);
    const size_t num_bytes = incoming_.ByteSizeLong();
    scheduler_.Post([this, num_bytes, message = std::move(incoming_)] {
      if (const Status taken = attendance_.Take(message); !taken.ok()) {
        FinishOnce(ToRpc(taken.error()));
      }
      Heard(num_bytes);
    });
    incoming_.Clear();
    const std::lock_guard lock(mutex_);
    heard_bytes_ += num_bytes;
    ReadOn();
  }
  void OnCancel() override { FinishOnce(grpc::Status::CANCELLED); }
  void OnDone() override {
    scheduler_.Post([this] {
      attendance_.Ended();
      delete this;
    });
  }

 private:
  void Heard(size_t num_bytes) {
    const std::lock_guard lock(mutex_);
    heard_bytes_ -= num_bytes;
    if (!reading_) ReadOn();
  }
  // Under the lock. An agent that says more than the loop hears waits, and so do its ranks.
  void ReadOn() {
    reading_ = !finished_ && heard_bytes_ < kAgentHeardBytesMax;
    if (reading_) StartRead(&incoming_);
  }
  void FinishOnce(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(finished_, true)) Finish(status);
  }

  Scheduler& scheduler_;
  Attendance attendance_;  // event loop only
  proto::FromAgent incoming_;
  std::mutex mutex_;
  bool finished_ = false;   // then gRPC may let the call go at any time: no new read or write
  bool reading_ = true;     // a read is on its way
  size_t heard_bytes_ = 0;  // posted to the loop
  WriteQueue<proto::ToAgent> queue_;
};

class Service final : public proto::Control::CallbackService {
 public:
  Service(State& state, Seams seams, NewRecorder new_recorder)
      : state_(state),
        seams_(seams),
        new_recorder_(std::move(new_recorder)),
        log_disk_(seams.scheduler, "logs", /*spin_us=*/0) {}

  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context,
                                   const proto::SubmitRequest* request,
                                   proto::SubmitReply* reply) override {
    return AnswerLater(context, reply, [this, request](troupe::Answer<proto::SubmitReply> answer) {
      troupe::Submit(state_, seams_, new_recorder_, *request, std::move(answer));
    });
  }
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context,
                                   const proto::CancelRequest* request,
                                   proto::CancelReply* reply) override {
    return Answer(context, reply, [this, request] { return troupe::Cancel(state_, *request); });
  }
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const proto::ListJobsRequest*,
                                     proto::ListJobsReply* reply) override {
    return Answer(context, reply,
                  [this] { return Result<proto::ListJobsReply>(troupe::ListJobs(state_)); });
  }
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const proto::GetStatusRequest* request,
                                      proto::GetStatusReply* reply) override {
    return AnswerLater(context, reply,
                       [this, request](troupe::Answer<proto::GetStatusReply> answer) {
                         troupe::GetStatus(state_, *request, std::move(answer));
                       });
  }
  grpc::ServerWriteReactor<proto::JobEvent>* Follow(grpc::CallbackServerContext*,
                                                    const proto::FollowRequest* request) override {
    return new FollowStream(state_, seams_, request->job(), num_follow_streams_);
  }
  grpc::ServerWriteReactor<proto::LogLines>* ReadLogs(
      grpc::CallbackServerContext*, const proto::ReadLogsRequest* request) override {
    return NewLogStream(state_, seams_, log_disk_, {num_log_streams_, kLogStreamsMax}, *request);
  }
  grpc::ServerBidiReactor<proto::FromAgent, proto::ToAgent>* Attend(
      grpc::CallbackServerContext*) override {
    return new AttendStream(state_, seams_);
  }

 private:
  // `op` gets an Answer, to be called once, on the loop.
  template <typename Reply, typename Op>
  grpc::ServerUnaryReactor* AnswerLater(grpc::CallbackServerContext* context, Reply* reply, Op op) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    seams_.scheduler.Post([reactor, reply, op = std::move(op)] {
      op([reactor, reply](Result<Reply> result) {
        if (!result.ok()) return reactor->Finish(ToRpc(result.error()));
        *reply = *std::move(result);
        reactor->Finish(grpc::Status::OK);
      });
    });
    return reactor;
  }
  template <typename Reply, typename Op>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, Reply* reply, Op op) {
    return AnswerLater(context, reply, [op = std::move(op)](auto answer) { answer(op()); });
  }

  std::atomic<int> num_follow_streams_{0};
  std::atomic<int> num_log_streams_{0};
  State& state_;
  const Seams seams_;
  const NewRecorder new_recorder_;
  ThreadStream log_disk_;
};

class Server final : public ControlServer {
 public:
  Server(State& state, Seams seams, NewRecorder new_recorder)
      : service_(state, seams, std::move(new_recorder)) {}

  Status Listen(const std::string& listen) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(kMessageBytesMax);
    builder.SetResourceQuota(grpc::ResourceQuota("control").Resize(kGrpcBytesMax));
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 200);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return MakeError(ErrorCode::kUnavailable,
                       "--listen {}: the address cannot be bound: is another program on it?",
                       listen);
    }
    return {};
  }
  int port() const override { return port_; }
  void Shutdown() override {
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Start(State& state, Seams seams,
                                                            NewRecorder new_recorder,
                                                            const std::string& listen) {
  auto server = std::make_unique<Server>(state, seams, std::move(new_recorder));
  RETURN_IF_ERROR(server->Listen(listen));
  return std::unique_ptr<ControlServer>(std::move(server));
}

}  // namespace troupe

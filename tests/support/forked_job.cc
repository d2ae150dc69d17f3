#include "tests/support/forked_job.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "proto/worker.pb.h"
#include "runtime/actor/frame_link.h"
#include "tests/support/forked_rank.h"

namespace troupe::testing {
namespace {

class ForkedJob {
 public:
  explicit ForkedJob(const ForkedJobOptions& options)
      : options_(options), steps_(options.steps.size()) {
    for (Timeline& step : steps_) step.num_ranks = options.train.num_ranks;
  }
  ~ForkedJob() {
    links_.clear();
    for (const pid_t child : children_) {
      if (!Over()) kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }

  Result<std::vector<Timeline>> Run() {
    RETURN_IF_ERROR(Fork());
    Scheduler scheduler;
    scheduler_ = &scheduler;
    for (size_t rank = 0; rank < sockets_.size(); ++rank) {
      links_.push_back(std::make_unique<FrameLink>(
          scheduler, sockets_[rank],
          FrameLink::Handlers{
              .on_frame = [this, rank](std::string_view frame) { return OnFrame(rank, frame); },
              .on_closed =
                  [this, rank](const Error&) {
                    Fail(MakeError(ErrorCode::kPeerDown, "the process of rank {} ended", rank));
                  }}));
    }
    scheduler.After(options_.deadline_ms, [this] {
      Fail(MakeError(ErrorCode::kDeadlineExceeded, "the job did not end within {} ms",
                     options_.deadline_ms));
    });
    scheduler.Run();
    links_.clear();
    if (error_) return *error_;
    return std::move(steps_);
  }

 private:
  // Every child keeps its own socket alone, so that the end of the caller is the end of them all.
  Status Fork() {
    std::vector<std::array<int, 2>> pairs(static_cast<size_t>(options_.train.num_ranks));
    for (auto& pair : pairs) {
      if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) != 0) {
        return MakeError(ErrorCode::kResourceExhausted, "socketpair: {}", std::strerror(errno));
      }
    }
    for (size_t rank = 0; rank < pairs.size(); ++rank) {
      const pid_t child = fork();
      if (child < 0) {
        return MakeError(ErrorCode::kResourceExhausted, "fork: {}", std::strerror(errno));
      }
      if (child == 0) {
        for (size_t other = 0; other < pairs.size(); ++other) {
          close(pairs[other][0]);
          if (other != rank) close(pairs[other][1]);
        }
        RunForkedRank(options_, Rank(static_cast<int32_t>(rank)), pairs[rank][1]);
      }
      children_.push_back(child);
    }
    for (const auto& pair : pairs) {
      close(pair[1]);
      sockets_.push_back(pair[0]);
    }
    return {};
  }

  Status OnFrame(size_t rank, std::string_view frame) {
    proto::FromRank news;
    if (!news.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
      return MakeError(ErrorCode::kCorrupt, "rank {} says {} bytes that do not parse", rank,
                       frame.size());
    }
    switch (news.message_case()) {
      case proto::FromRank::kHello: {
        auto* peer = peers_.mutable_peers()->add_peers();
        peer->set_rank(static_cast<int32_t>(rank));
        peer->set_address(news.hello().transport_address());
        if (EveryRank(num_hello_)) SendAll(peers_);
        break;
      }
      case proto::FromRank::kReady: {
        proto::ToRank begin;
        begin.mutable_begin();
        if (EveryRank(num_ready_)) links_.front()->Send(begin.SerializeAsString());
        break;
      }
      case proto::FromRank::kSpans:
        AddBars(rank, news.spans());
        break;
      case proto::FromRank::kFinished:
        OnFinished(rank, news.finished());
        break;
      default:
        break;  // what a job's followers want to know
    }
    return {};
  }

  void OnFinished(size_t rank, const proto::Finished& finished) {
    if (!finished.error().empty()) {
      return Fail(MakeError(ErrorCode::kFailed, "rank {}: {}", rank, finished.error()));
    }
    proto::ToRank order;
    order.mutable_shut_down();
    if (rank == 0) SendAll(order);
    if (!EveryRank(num_finished_)) return;
    order.mutable_leave();
    SendAll(order);
    scheduler_->Stop();
  }

  void AddBars(size_t rank, const proto::SpanBatch& batch) {
    for (const auto& span : batch.spans()) {
      const auto action = ParseAction(span.name());
      CHECK(action.ok(), "{}", span.name());
      steps_[static_cast<size_t>(span.step() - 1)].bars.push_back(
          {.rank = PipelineRank(static_cast<int32_t>(rank)),
           .action = *action,
           .start_ns = span.start_ns(),
           .end_ns = span.end_ns(),
           .cpu_ns = span.cpu_ns()});
    }
  }

  bool Over() const { return num_finished_ == options_.train.num_ranks && !error_; }
  bool EveryRank(int& count) { return ++count == options_.train.num_ranks; }
  void SendAll(const proto::ToRank& order) {
    for (auto& link : links_) link->Send(order.SerializeAsString());
  }
  void Fail(Error error) {
    if (Over()) return;  // they leave
    if (!error_) error_ = std::move(error);
    scheduler_->Stop();
  }

  const ForkedJobOptions& options_;
  std::vector<pid_t> children_{};
  std::vector<int> sockets_{};
  Scheduler* scheduler_ = nullptr;
  std::vector<std::unique_ptr<FrameLink>> links_{};
  proto::ToRank peers_{};
  int num_hello_ = 0;
  int num_ready_ = 0;
  int num_finished_ = 0;
  std::vector<Timeline> steps_;
  std::optional<Error> error_{};
};

}  // namespace

Result<std::vector<Timeline>> RunForkedJob(const ForkedJobOptions& options) {
  if (options.train.num_directions > 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "the two copies of a stage of {} exchange gradients, which timed stages have "
                     "none of; use a schedule of one direction",
                     options.train.name);
  }
  return ForkedJob(options).Run();
}

}  // namespace troupe::testing

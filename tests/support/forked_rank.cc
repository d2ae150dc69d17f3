#include "tests/support/forked_rank.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <utility>

#include "runtime/actor/frame_link.h"
#include "runtime/transport/ucx/ucx_transport.h"
#include "tests/support/idle_stage.h"
#include "tests/support/timed_stage.h"

namespace troupe::testing {
namespace {

// Many ranks share few cores: nobody keeps one only to look whether something has come.
constexpr int64_t kSpinUs = 0;
constexpr int kLastWordsMs = 2000;

class ForkedRank {
 public:
  ForkedRank(const ForkedJobOptions& options, Rank self, int control_fd)
      : options_(options),
        job_{.train = options.train,
             .policy = options.policy,
             .hidden_size = options.message_bytes / 4,
             .steps = {.steps = static_cast<int>(options.steps.size())}},
        plan_(PlanByHand(job_)),
        link_(scheduler_, control_fd,
              {.on_frame = [this](std::string_view frame) { return OnFrame(frame); },
               .on_closed = [this](const Error&) { scheduler_.Stop(); }}),
        root_(Seams()) {
    proto::ToRank order;
    *order.mutable_start() = StartByHand(job_, plan_);
    order.mutable_start()->set_rank(self.value);
    root_.Take(std::move(order));
  }

  void Run() { scheduler_.Run(); }

 private:
  RankSeams Seams() {
    RankSeams seams = SeamsOfTest(scheduler_, [this](const proto::FromRank& news) { Hear(news); });
    seams.new_stream = [this]() -> Result<std::unique_ptr<Stream>> {
      return std::unique_ptr<Stream>(
          std::make_unique<ThreadStream>(scheduler_, "compute", kSpinUs));
    };
    seams.new_transport = [](const TransportNeeds& needs) {
      return UcxTransport::Create({.self = needs.self}, needs.ledger);
    };
    seams.leave = [this] { scheduler_.Stop(); };
    seams.plan = [this](const proto::JobSpec&, std::span<const proto::Parallelism>) {
      return Result<JobPlan>(plan_);
    };
    seams.load = [](FileSystem&, const proto::StartRank&, const JobPlan&, MemoryLedger&) {
      return Result<LoadedRank>(LoadedRank{});
    };
    seams.keeps_checkpoints = false;
    seams.spawn_stage = [this](const RankPlace& place, StageId stage) {
      return place.scheduler.Spawn<TimedStage>(
          {.name = fmt::format("stage {}", stage)}, place, stage,
          TimedStage::Options{options_.steps, options_.message_bytes, ledger_,
                              *spans_.mutable_spans()});
    };
    seams.spawn_loader = [](const RankPlace& place) {
      return place.scheduler.Spawn<IdleLoader>({.name = "loader"});
    };
    return seams;
  }

  Status OnFrame(std::string_view frame) {
    proto::ToRank order;
    if (!order.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
      return MakeError(ErrorCode::kCorrupt, "an order of {} bytes does not parse", frame.size());
    }
    root_.Take(std::move(order));
    return {};
  }

  void Hear(const proto::FromRank& news) {
    if (news.has_finished()) link_.Send(spans_.SerializeAsString());
    link_.Send(news.SerializeAsString());
    if (news.has_finished()) link_.Drain(kLastWordsMs);
  }

  const ForkedJobOptions& options_;
  const InProcessJobOptions job_;
  const JobPlan plan_;
  MemoryLedger ledger_{};
  proto::FromRank spans_{};  // of what the stages ran
  Scheduler scheduler_{{.spin_us = kSpinUs, .trace_handlers = false}};
  FrameLink link_;
  RankRoot root_;
};

}  // namespace

void RunForkedRank(const ForkedJobOptions& options, Rank self, int control_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Of every thread to come.
  prctl(PR_SET_TIMERSLACK, 1000);  // ns
  const sched_param lowest{.sched_priority = 1};
  if (options.real_time) sched_setscheduler(0, SCHED_RR, &lowest);
  ForkedRank(options, self, control_fd).Run();
  _exit(0);
}

}  // namespace troupe::testing

#include "coordinator/cli/run_watch.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <future>
#include <utility>

#include "coordinator/cli/run_end.h"
#include "runtime/base/signal_name.h"
#include "runtime/base/talk.h"
#include "runtime/base/thread.h"

namespace troupe {
namespace {

constexpr int kTickMs = 100;
constexpr int kCallMs = 1000;
constexpr int kAgainMs = 500;
// What passes between two ticks where a call takes its deadline; what is more, this was stopped.
constexpr int64_t kTickMaxMs = 1500;
constexpr int kTalkMs = 100;

}  // namespace

RunWatch::RunWatch(bool pauses, RunWatchLimits limits, const Clock& clock)
    : limits_(limits),
      clock_(clock),
      signals_(pauses),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

RunWatch::~RunWatch() {
  ending_ = true;
  (void)::eventfd_write(wake_fd_, 1);
  if (thread_.joinable()) thread_.join();
  ::close(wake_fd_);
}

Status RunWatch::Start() {
  RETURN_IF_ERROR(CheckRpcLimits("troupe run"));
  ASSIGN_OR_RETURN(thread_, StartThread("signals", [this] { Loop(); }));
  return {};
}

void RunWatch::Mind(LocalCluster* cluster) {
  const std::lock_guard lock(mutex_);
  cluster_ = cluster;
}

void RunWatch::Mind(ControlClient* client, const std::string& address, uint64_t job) {
  const std::lock_guard lock(mutex_);
  client_ = client;
  quick_ = client == nullptr ? nullptr : ConnectControl(address, kCallMs);
  address_ = address;
  job_ = job;
  has_job_ = true;
  heard_ms_ = ordered_ms_ = lived_ms_;
  if (order_) order_->set_job(job);
}

void RunWatch::AtForcedEnd(std::function<void(bool preempted)> last_words) {
  const std::lock_guard lock(mutex_);
  last_words_ = std::move(last_words);
}

std::optional<Error> RunWatch::verdict() {
  std::unique_lock lock(mutex_);
  if (verdict_ || gone_ == Gone::kNone) return verdict_;
  LocalCluster* const cluster = cluster_;
  const bool coordinator = gone_ == Gone::kCoordinator;
  lock.unlock();
  if (coordinator) return Error{ErrorCode::kUnavailable, cluster->CoordinatorEnd()};
  return Error{ErrorCode::kPeerDown, cluster->AgentEnd()};
}

void RunWatch::Loop() {
  int64_t last_ns = clock_.NowNs();
  while (!ending_) {
    pollfd waiting[] = {{.fd = signals_.fd(), .events = POLLIN, .revents = 0},
                        {.fd = wake_fd_, .events = POLLIN, .revents = 0}};
    ::poll(waiting, std::size(waiting), kTickMs);
    const std::lock_guard lock(mutex_);
    const int64_t now_ns = clock_.NowNs();
    lived_ms_ += std::min((now_ns - std::exchange(last_ns, now_ns)) / 1'000'000, kTickMaxMs);
    for (int signal = 0; (signal = signals_.Take()) != 0;) OnSignal(signal);
    if (force_ms_ && lived_ms_ >= *force_ms_) ForceEnd();
    if (order_ && !has_job_ && lived_ms_ - ordered_ms_ > limits_.unanswered) ForceEnd();
    if (heard_.exchange(false)) heard_ms_ = lived_ms_;
    if (cluster_ != nullptr) MindDaemons();
    if (client_ != nullptr) MindCoordinator();
  }
}

// The terminal may stand still, and the other threads with it.
void RunWatch::SayNow(const std::string& line) const { Say(STDERR_FILENO, line + "\n", kTalkMs); }

// ---- signals ---------------------------------------------------------------------------------

void RunWatch::OnSignal(int signal) {
  if (signal == SIGTSTP) return Pause();
  preempted_ = signal == SIGUSR1 && (preempted_ || !stop_asked_);
  stop_asked_ = true;
  ++num_signals_;
  if (num_signals_ > 2) ForceEnd();
  const bool kill = num_signals_ == 2;
  if (kill) force_ms_ = lived_ms_ + limits_.force;
  proto::CancelRequest order;
  order.set_job(job_);
  order.set_checkpoint(true);
  order.set_kill(kill);
  // Only this one asks for nothing else than to make room.
  if (signal == SIGUSR1) order.set_cause("SIGUSR1 at the client");
  order_ = std::move(order);
  ordered_ms_ = lived_ms_;
  tried_ms_ = lived_ms_ - kAgainMs;
  const std::string why = signal == SIGINT ? "" : SignalName(signal) + ": ";
  SayNow(fmt::format("\n{}{}", why,
                     kill        ? "stopping at once"
                     : !has_job_ ? "stopping; again: at once"
                                 : "stopping after this step, with a checkpoint; again: at once"));
}

void RunWatch::Pause() {
  if (cluster_ != nullptr) cluster_->Pause();
  ::raise(SIGSTOP);  // until SIGCONT
  if (cluster_ != nullptr) cluster_->Resume();
}

void RunWatch::ForceEnd() {
  if (cluster_ != nullptr) cluster_->Kill();
  SayNow("ended without waiting for what hangs");
  if (last_words_) {
    // What hangs may be the disk that they go to.
    const auto said = std::make_shared<std::promise<void>>();
    auto speaker = StartThread("the end", [said, words = last_words_, preempted = preempted()] {
      words(preempted);
      said->set_value();
    });
    const auto patience = std::chrono::milliseconds(limits_.last_words);
    if (!speaker.ok() || said->get_future().wait_for(patience) != std::future_status::ready) {
      SayNow("its folder does not answer: no result is written");
    }
    if (speaker.ok()) speaker->detach();
  }
  ::_exit(StoppedExitCode(preempted_));
}

// ---- daemons and coordinator -------------------------------------------------------------------

void RunWatch::MindDaemons() {
  if (client_ == nullptr || verdict_ || gone_ != Gone::kNone) return;
  if (cluster_->CoordinatorHasEnded()) {
    gone_ = Gone::kCoordinator;  // its connections have ended with it
    return;
  }
  // A job that it was to run fails by itself; one that waits for it would wait for ever.
  if (!cluster_->AgentHasEnded() || stop_asked_) return;
  if (!agent_gone_ms_) agent_gone_ms_ = lived_ms_;
  if (lived_ms_ - *agent_gone_ms_ < limits_.daemon_gone) return;
  gone_ = Gone::kAgent;
  order_.emplace();
  order_->set_job(job_);
  order_->set_kill(true);
  ordered_ms_ = lived_ms_;
}

void RunWatch::MindCoordinator() {
  if (lived_ms_ - tried_ms_ < kAgainMs) return;
  if (order_) return AskStop();
  if (lived_ms_ - heard_ms_ < limits_.probe) return;
  tried_ms_ = lived_ms_;
  proto::GetStatusRequest request;
  request.set_job(job_);
  const auto answer = quick_->GetStatus(request);
  if (answer.ok() || answer.error().code != ErrorCode::kUnavailable) {
    heard_ms_ = lived_ms_;
  } else if (lived_ms_ - heard_ms_ > limits_.silence) {
    GiveUp(MakeError(ErrorCode::kUnavailable, "the coordinator at {} has not answered for {} s",
                     address_, limits_.silence / 1000));
  }
}

void RunWatch::AskStop() {
  tried_ms_ = lived_ms_;
  const auto answer = quick_->Cancel(*order_);
  if (answer.ok() || answer.error().code != ErrorCode::kUnavailable) {
    order_.reset();
    heard_ms_ = lived_ms_;
  } else if (lived_ms_ - ordered_ms_ > limits_.unanswered) {
    const auto code = cluster_ != nullptr ? ErrorCode::kCancelled : ErrorCode::kUnavailable;
    GiveUp(MakeError(code, "the coordinator at {} does not answer: {}", address_,
                     cluster_ != nullptr
                         ? "ended without it"
                         : fmt::format("job {} does not know that it is to stop", job_)));
  }
}

void RunWatch::GiveUp(Error why) {
  if (gone_ == Gone::kNone && !verdict_) verdict_ = std::move(why);
  if (cluster_ != nullptr) cluster_->Kill();
  client_->StopFollowing();
  client_ = nullptr;
}

}  // namespace troupe

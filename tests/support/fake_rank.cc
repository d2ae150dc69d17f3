// fake_rank: speaks the socket protocol of troupe-rank (proto/worker.proto) and pretends to train,
// so that the coordinator, the host agent and the command line are tested with real processes in
// milliseconds. Its losses are a function of the step, its digests of the parameter: every layout
// "computes" what one worker does.
//
// Environment:
//   FAKE_RANK_STEP_MS   time of a step, default 2
//   FAKE_RANK_FAULT     RANK:KIND[:STEP], what goes wrong on one rank of the main run:
//     kill     raises SIGKILL at the step      exit     writes a line to stderr and exits with 7
//     hang     says nothing more, from the step on; heeds no order
//     hostile  sends a frame of 4 GiB - 1      garbage  sends a frame that is no message
//     error    Finished with kOutOfSpace       peer     Finished with kPeerDown
//     mute     never says Hello                build    says Hello of another build
//     digest   ends with other parameters
//     flood    prints without end, from a child of its own
//     orphan   is killed, and leaves a child that speaks and prints on in its place
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string>
#include <utility>

#include "proto/worker.pb.h"
#include "runtime/base/error.h"

namespace troupe {
namespace {

constexpr int kControlFd = 3;
constexpr int kParameters = 12;
constexpr int kAliveMs = 1000;

struct Fault {
  int rank = -1;
  std::string kind{};
  int64_t step = 0;

  static Fault FromEnvironment() {
    Fault fault;
    const char* text = std::getenv("FAKE_RANK_FAULT");
    if (text == nullptr) return fault;
    std::istringstream stream(text);
    std::string part;
    if (std::getline(stream, part, ':')) fault.rank = std::stoi(part);
    std::getline(stream, fault.kind, ':');
    if (std::getline(stream, part, ':')) fault.step = std::stoll(part);
    return fault;
  }
};

[[noreturn]] void Hang() {
  for (;;) ::pause();
}

bool ReadAll(void* to, size_t num_bytes) {
  auto* bytes = static_cast<char*>(to);
  while (num_bytes > 0) {
    const ssize_t got = ::read(kControlFd, bytes, num_bytes);
    if (got <= 0) return false;
    bytes += got;
    num_bytes -= static_cast<size_t>(got);
  }
  return true;
}

void WriteFrame(const std::string& frame, uint32_t length) {
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));  // x86: little-endian
  bytes += frame;
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t put = ::send(kControlFd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (put <= 0) std::exit(0);  // the agent has gone
    at += static_cast<size_t>(put);
  }
}

class FakeRank {
 public:
  int Run() {
    for (;;) {
      pollfd control{.fd = kControlFd, .events = POLLIN, .revents = 0};
      const int timeout_ms = training_ ? step_ms_ : kAliveMs;
      if (::poll(&control, 1, timeout_ms) > 0) {
        uint32_t length = 0;
        if (!ReadAll(&length, sizeof(length))) return 0;  // end of file ends the rank
        std::string frame(length, '\0');
        proto::ToRank order;
        if (!ReadAll(frame.data(), length) || !order.ParseFromString(frame)) return 1;
        if (!Obey(order)) return 0;
      } else if (training_) {
        Step();
      } else if (greeted_) {
        SayAlive();
      }
    }
  }

 private:
  bool Fails(const char* kind) const {
    return !start_.reference_run() && start_.rank() == fault_.rank && fault_.kind == kind;
  }
  void Say(const proto::FromRank& message) {
    const std::string frame = message.SerializeAsString();
    WriteFrame(frame, static_cast<uint32_t>(frame.size()));
  }

  bool Obey(const proto::ToRank& order) {
    switch (order.message_case()) {
      case proto::ToRank::kStart:
        start_ = order.start();
        if (Fails("mute")) Hang();
        SayHello();
        return true;
      case proto::ToRank::kPeers: {
        proto::FromRank ready;
        ready.mutable_ready()->set_num_parameters(1);
        Say(ready);
        training_ = start_.rank() != 0;
        return true;
      }
      case proto::ToRank::kBegin:
        training_ = true;
        return true;
      case proto::ToRank::kCancel:
        Finish(/*cancelled=*/true, order.cancel().checkpoint());
        return true;
      case proto::ToRank::kStatus: {
        proto::FromRank waits;
        auto* edge = waits.mutable_waits()->add_edges();
        edge->set_waiter("executor of rank " + std::to_string(start_.rank()));
        edge->set_owed("activation of microbatch 3");
        edge->set_from("rank " + std::to_string(start_.rank() - 1));
        Say(waits);
        return true;
      }
      case proto::ToRank::kShutDown:
        if (start_.rank() != 0) Finish(/*cancelled=*/false, /*checkpoint=*/false);
        return false;
      default:
        return true;
    }
  }

  void SayHello() {
    proto::FromRank message;
    auto* hello = message.mutable_hello();
    hello->set_pid(::getpid());
    hello->set_transport_address("address of " + std::to_string(start_.rank()));
    hello->set_build(Fails("build") ? "another" : "fake");
    Say(message);
    greeted_ = true;
    SayAlive();
  }

  void SayAlive() {
    proto::FromRank message;
    message.mutable_alive();
    Say(message);
  }

  void Step() {
    ++step_;
    proto::FromRank progress;
    progress.mutable_progress()->set_step(step_);
    progress.mutable_progress()->set_action("forward of microbatch 3 on stage " +
                                            std::to_string(start_.rank()));
    Say(progress);
    if (step_ >= fault_.step) BreakDown();
    if (start_.rank() != 0) return;
    proto::FromRank metrics;
    metrics.mutable_metrics()->set_step(step_);
    metrics.mutable_metrics()->set_loss(5.0 / static_cast<double>(step_));
    metrics.mutable_metrics()->set_grad_norm(1.0 / static_cast<double>(step_ + 1));
    metrics.mutable_metrics()->set_tokens_per_second(1000);
    Say(metrics);
    if (step_ >= start_.spec().train().steps()) Finish(/*cancelled=*/false, /*checkpoint=*/false);
  }

  void BreakDown() {
    if (Fails("kill")) ::raise(SIGKILL);
    if (Fails("exit")) {
      std::fprintf(stderr, "the last words\n");
      std::exit(7);
    }
    if (Fails("hang")) Hang();
    if (Fails("hostile")) WriteFrame("", UINT32_MAX);
    if (Fails("garbage")) WriteFrame("\xff\xff\xff", 3);
    if (Fails("flood")) Flood();
    if (Fails("orphan")) LeaveOrphan();
    if (Fails("error")) FinishWith(ErrorCode::kOutOfSpace, "checkpoint: no space left on /disk");
    if (Fails("peer")) FinishWith(ErrorCode::kPeerDown, "its peer has gone");
  }

  void Flood() {
    if (std::exchange(flooding_, true) || ::fork() != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::string line(1000, 'y');
    while (std::puts(line.c_str()) >= 0) continue;
    ::_exit(0);
  }
  // Told before the end, so that a test can look for it.
  void LeaveOrphan() {
    const pid_t child = ::fork();
    proto::FromRank message;
    message.mutable_happening()->set_text(std::to_string(child));
    if (child != 0) {
      Say(message);
      ::raise(SIGKILL);
    }
    ::signal(SIGPIPE, SIG_IGN);
    for (;;) {
      Say(message);  // ends the child when nobody listens any more
      ::usleep(1000);
    }
  }

  void FinishWith(ErrorCode code, const std::string& error) {
    proto::FromRank message;
    message.mutable_finished()->set_error_code(static_cast<int32_t>(code) + 1);
    message.mutable_finished()->set_error(error);
    Say(message);
    std::exit(0);
  }

  void Finish(bool cancelled, bool checkpoint) {
    training_ = false;
    proto::FromRank message;
    auto* finished = message.mutable_finished();
    finished->set_last_step(step_);
    finished->set_cancelled(cancelled);
    if (checkpoint) {
      const std::string folder =
          start_.run_directory() + "/checkpoints/step-" + std::to_string(step_);
      std::filesystem::create_directories(folder);
      finished->set_checkpoint(folder);
    }
    const int world = start_.world_size();
    for (int p = kParameters * start_.rank() / world; p < kParameters * (start_.rank() + 1) / world;
         ++p) {
      proto::ParameterDigest& digest = *finished->add_parameter_digests();
      digest.set_parameter(p);
      digest.set_sum(static_cast<uint64_t>(p) * 2 + (Fails("digest") ? 1 : 0));
    }
    Say(message);
  }

  static int StepMs() {
    const char* text = std::getenv("FAKE_RANK_STEP_MS");
    return text == nullptr ? 2 : std::atoi(text);
  }

  const Fault fault_ = Fault::FromEnvironment();
  const int step_ms_ = StepMs();
  proto::StartRank start_{};
  bool greeted_ = false;
  bool training_ = false;
  bool flooding_ = false;
  int64_t step_ = 0;
};

}  // namespace
}  // namespace troupe

int main() { return troupe::FakeRank().Run(); }

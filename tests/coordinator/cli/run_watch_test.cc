#include "coordinator/cli/run_watch.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "tests/support/patience.h"

namespace troupe {
namespace {

using testing::Eventually;
using ::testing::HasSubstr;

// A client that follows for ever.
struct Follower : ControlClient {
  Result<proto::SubmitReply> Submit(const proto::SubmitRequest&) override { return Unused(); }
  Result<proto::CancelReply> Cancel(const proto::CancelRequest&) override { return Unused(); }
  Result<proto::ListJobsReply> ListJobs() override { return Unused(); }
  Result<proto::GetStatusReply> GetStatus(const proto::GetStatusRequest&) override {
    return Unused();
  }
  Status Follow(uint64_t, const std::function<void(const proto::JobEvent&)>&) override {
    return Unused();
  }
  void StopFollowing() override { stopped = true; }
  Status ReadLogs(const proto::ReadLogsRequest&,
                  const std::function<bool(const proto::LogLines&)>&) override {
    return Unused();
  }
  static Error Unused() { return {ErrorCode::kFailed, "unused"}; }

  std::atomic<bool> stopped{false};
};

// An address that takes connections and never says a word, as a coordinator that was stopped does.
class MuteServer {
 public:
  MuteServer() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    CHECK(::bind(fd_, generic, size) == 0 && ::listen(fd_, 8) == 0 &&
          ::getsockname(fd_, generic, &size) == 0);
    port_ = ntohs(address.sin_port);
  }
  ~MuteServer() { ::close(fd_); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  const int fd_;
  int port_ = 0;
};

// A clock that the test moves and the watch reads, once a round.
class RoundClock : public Clock {
 public:
  int64_t NowNs() const override {
    ++looks_;
    return now_ns_;
  }
  int64_t WallUs() const override { return 0; }
  int64_t ThreadCpuNs() const override { return 0; }

  // `ms` later, and a whole round of the watch at that time.
  void Pass(int ms) {
    now_ns_ += int64_t{ms} * 1'000'000;
    const int before = looks_;
    ASSERT_TRUE(Eventually([&] { return looks_ >= before + 2; }));
  }

 private:
  mutable std::atomic<int> looks_{0};
  std::atomic<int64_t> now_ns_{0};
};

class RunWatchTest : public ::testing::Test {
 protected:
  // Until the watch has given the coordinator up.
  void PassUntilStopped() {
    ASSERT_TRUE(Eventually([&] {
      clock_.Pass(500);
      return follower_.stopped.load();
    }));
  }

  const MuteServer server_;
  Follower follower_;
  RoundClock clock_;
};

TEST_F(RunWatchTest, ACoordinatorThatSaysAndAnswersNothingIsGivenUp) {
  RunWatch watch(/*pauses=*/false, {.probe = 100, .silence = 2500}, clock_);
  ASSERT_TRUE(watch.Start().ok());
  watch.Mind(&follower_, server_.address(), 1);
  // What it says itself is enough, however little it answers.
  for (int i = 0; i < 3; ++i) {
    clock_.Pass(1000);  // asked meanwhile, in vain
    watch.Heard();
    clock_.Pass(1000);
  }
  EXPECT_FALSE(follower_.stopped);
  PassUntilStopped();
  ASSERT_TRUE(watch.verdict().has_value());
  EXPECT_EQ(watch.verdict()->code, ErrorCode::kUnavailable);
  EXPECT_THAT(watch.verdict()->message, HasSubstr(server_.address() + " has not answered for"));
  EXPECT_FALSE(watch.stop_asked());
}

TEST_F(RunWatchTest, AStopThatNobodyTakesIsTold) {
  RunWatch watch(/*pauses=*/false, {.unanswered = 500}, clock_);
  ASSERT_TRUE(watch.Start().ok());
  watch.Mind(&follower_, server_.address(), 7);
  ::kill(::getpid(), SIGHUP);
  PassUntilStopped();
  EXPECT_TRUE(watch.stop_asked());
  EXPECT_THAT(watch.verdict()->message, HasSubstr("job 7 does not know that it is to stop"));
}

}  // namespace
}  // namespace troupe

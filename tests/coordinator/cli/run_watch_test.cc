#include "coordinator/cli/run_watch.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

namespace troupe {
namespace {

using namespace std::chrono_literals;
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

TEST(RunWatch, ACoordinatorThatSaysAndAnswersNothingIsGivenUp) {
  const MuteServer server;
  Follower follower;
  RunWatch watch(/*pauses=*/false, {.probe = 100, .silence = 2500});
  ASSERT_TRUE(watch.Start().ok());
  watch.Mind(&follower, server.address(), 1);
  // What it says itself is enough, however little it answers.
  for (int i = 0; i < 30; ++i) {
    watch.Heard();
    std::this_thread::sleep_for(100ms);
  }
  EXPECT_FALSE(follower.stopped);
  while (!follower.stopped) std::this_thread::sleep_for(10ms);
  ASSERT_TRUE(watch.verdict().has_value());
  EXPECT_EQ(watch.verdict()->code, ErrorCode::kUnavailable);
  EXPECT_THAT(watch.verdict()->message, HasSubstr(server.address() + " has not answered for"));
  EXPECT_FALSE(watch.stop_asked());
}

TEST(RunWatch, AStopThatNobodyTakesIsTold) {
  const MuteServer server;
  Follower follower;
  RunWatch watch(/*pauses=*/false, {.unanswered = 500});
  ASSERT_TRUE(watch.Start().ok());
  watch.Mind(&follower, server.address(), 7);
  ::kill(::getpid(), SIGHUP);
  while (!follower.stopped) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(watch.stop_asked());
  EXPECT_THAT(watch.verdict()->message, HasSubstr("job 7 does not know that it is to stop"));
}

}  // namespace
}  // namespace troupe

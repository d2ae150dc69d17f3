// A coordinator and agents that a user keeps running: joining, queueing, asking, cancelling.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/coordinator/cli/program.h"

namespace troupe {
namespace {

using ::testing::EndsWith;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::Program;
using ::testing::StartsWith;

// A port of this machine that is bound and does not listen: nobody answers there, and nobody else
// gets it. 0: any.
class SilentPort {
 public:
  explicit SilentPort(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    is_ours_ = ::bind(fd_, generic, size) == 0 && ::getsockname(fd_, generic, &size) == 0;
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;
  ~SilentPort() { ::close(fd_); }
  bool is_ours() const { return is_ours_; }  // or another's
  const std::string& address() const { return address_; }

 private:
  const int fd_;
  bool is_ours_ = false;
  std::string address_{};
};

// An address that stays free where its coordinator ends: below the ports that the machine gives to
// whoever asks for any.
std::string AddressToComeBackTo() {
  std::ifstream range("/proc/sys/net/ipv4/ip_local_port_range");
  int first_given = 0;
  if (!(range >> first_given)) first_given = 32'768;  // the kernel's default
  constexpr int kFirst = 10'000;
  const int count = first_given - kFirst;
  CHECK(count > 0, "ports from {} on are given to anyone", first_given);
  for (int i = 0; i < count; ++i) {
    const SilentPort port(static_cast<uint16_t>(kFirst + (::getpid() + i) % count));
    if (port.is_ours()) return port.address();
  }
  CHECK(false, "no port is free");
  return {};
}

class ClusterTest : public testing::TroupeTest {
 protected:
  explicit ClusterTest(const std::string& listen = "127.0.0.1:0",
                       const std::string& host_silence_seconds = "600")
      : coordinator_(Troupe({"coordinator", "--listen", listen, "--state", "state",
                             "--host-silence-seconds", host_silence_seconds})) {
    CHECK(coordinator_.Says("\n"), "{}", coordinator_.err());
    const std::string line = coordinator_.out();
    address_ = line.substr(line.rfind(' ') + 1);
    address_.pop_back();  // the end of the line
  }
  Program Worker(const std::string& name, int slots) {
    return Troupe({"worker", "--join", address_, "--slots", std::to_string(slots), "--name", name});
  }
  // A command to this coordinator, found by the environment.
  Program Ask(std::vector<std::string> words) {
    return Troupe(std::move(words), {"TROUPE_COORDINATOR=" + address_});
  }
  std::string Answer(std::vector<std::string> words) {
    Program program = Ask(std::move(words));
    EXPECT_EQ(program.Wait(), 0) << program.err();
    return program.out() + program.err();
  }
  bool Lists(const std::string& text) {
    return Eventually([&] { return Answer({"ps"}).find(text) != std::string::npos; });
  }
  Program SubmitLong() {
    return Ask({"submit", "job.yaml", "--no-wait", "--set", "train.steps=100000"});
  }

  Program coordinator_;
  std::string address_;
};

TEST_F(ClusterTest, AJobWaitsForSlotsRunsOverHostsAndIsCancelled) {
  Program first = Worker("alpha", 3);
  ASSERT_TRUE(Lists("host alpha: 0 of 3 slots in use"));
  Program submitted = SubmitLong();
  ASSERT_EQ(submitted.Wait(), 0) << submitted.err();
  EXPECT_EQ(submitted.out(), "1\n") << "the number alone";
  EXPECT_THAT(Answer({"status", "1"}), HasSubstr("4 workers need as many slots, 3 of 3 are free"));
  Program second = Worker("beta", 2);
  ASSERT_TRUE(Lists("RUNNING"));
  EXPECT_TRUE(Lists("host alpha: 3 of 3"));
  EXPECT_TRUE(Lists("host beta: 1 of 2"));
  EXPECT_THAT(
      Answer({"status", "1", "--why"}),
      HasSubstr("executor of rank 3 waits 0 ms for activation of microbatch 3 from rank 2"));
  const auto status = nlohmann::json::parse(Answer({"status", "1", "-o", "json"}));
  EXPECT_EQ(status["state"], "RUNNING");
  const auto jobs = nlohmann::json::parse(Answer({"ps", "-o", "json"}));
  EXPECT_EQ(jobs["jobs"][0]["name"], "small");
  EXPECT_EQ(jobs["hosts"][0]["name"], "alpha");
  EXPECT_EQ(nlohmann::json::parse(Answer({"ps", "-o", "jsonl"}))["job"], 1) << "one job, one line";
  const auto cancelled = nlohmann::json::parse(Answer({"cancel", "1", "-o", "json"}));
  EXPECT_EQ(cancelled["state"], "DRAINING");
  EXPECT_TRUE(Lists("CANCELLED"));
  EXPECT_TRUE(Eventually([&] { return RunningAs("--control-fd").empty(); }));
}

TEST_F(ClusterTest, OneJobAfterAnother) {
  Program worker = Worker("alpha", 4);
  Program run = Ask({"run", "job.yaml", "--run-dir", "a"});
  Program submit = Ask({"submit", "job.yaml", "--run-dir", "b"});
  EXPECT_EQ(run.Wait(), 0) << run.err();
  EXPECT_EQ(submit.Wait(), 0) << submit.err();
  EXPECT_TRUE(std::filesystem::exists(folder_ / "a/result.json"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "b/result.json")) << "relative to the client";
  EXPECT_EQ(RunningAs("coordinator").size(), 1u) << "run stops only what it started";
}

TEST_F(ClusterTest, TheCommandThatResumesNamesTheCoordinatorAndQuotesWords) {
  Program worker = Worker("alpha", 4);
  Program run = Ask({"submit", "job.yaml", "--run-dir", "it's a run", "--set", "train.steps=100000",
                     "--set", "optimizer.betas=[0.8, 0.9]"});
  ASSERT_TRUE(run.Says("step ")) << run.err();
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), 130) << run.err();
  EXPECT_THAT(run.err(),
              HasSubstr("go on with: " + (folder_ / "bin/troupe") +
                        " run job.yaml --set train.steps=100000 --set "
                        "'optimizer.betas=[0.8, 0.9]' --coordinator " +
                        address_ + " --run-dir '" + (folder_ / "it'\\''s a run") + "' --resume\n"));
}

class SilentAgentTest : public ClusterTest {
 protected:
  SilentAgentTest() : ClusterTest("127.0.0.1:0", "5") {}
};

TEST_F(SilentAgentTest, AnAgentThatWasStoppedIsGivenUpAndJoinsAgain) {
  Program worker = Worker("alpha", 4);
  ASSERT_TRUE(Lists("host alpha: 0 of 4"));
  Program run = Ask({"submit", "job.yaml", "--set", "train.steps=100000"});
  ASSERT_TRUE(run.Says("step ")) << run.err();
  worker.Signal(SIGSTOP);
  EXPECT_EQ(run.Wait(), 5) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("host agent alpha was silent for 5000 ms"));
  worker.Signal(SIGCONT);
  EXPECT_TRUE(Lists("host alpha: 0 of 4"));
  EXPECT_TRUE(Eventually([&] { return RunningAs("--control-fd").empty(); }));
  Program again = Ask({"submit", "job.yaml"});
  EXPECT_EQ(again.Wait(), 0) << again.err();
}

class ReturningCoordinatorTest : public ClusterTest {
 protected:
  ReturningCoordinatorTest() : ClusterTest(AddressToComeBackTo()) {}
};

TEST_F(ReturningCoordinatorTest, AgentsFindIt) {
  Program worker = Worker("alpha", 4);
  ASSERT_TRUE(Lists("host alpha"));
  Program job = SubmitLong();
  ASSERT_TRUE(Lists("RUNNING"));
  coordinator_.Signal(SIGKILL);
  EXPECT_EQ(coordinator_.Wait(), 128 + SIGKILL);
  EXPECT_TRUE(Eventually([&] { return RunningAs("--control-fd").empty(); }))
      << "ranks without a coordinator";
  Program next = Troupe({"coordinator", "--listen", address_, "--state", "state"});
  ASSERT_TRUE(next.Says("listening on " + address_)) << "the port is free again" << next.err();
  EXPECT_TRUE(Lists("host alpha: 0 of 4"));
}

TEST_F(ClusterTest, ATerminatedCoordinatorTakesTheRanksWithIt) {
  Program worker = Worker("alpha", 4);
  ASSERT_TRUE(Lists("host alpha"));
  Program job = SubmitLong();
  ASSERT_TRUE(Lists("RUNNING"));
  coordinator_.Signal(SIGTERM);
  EXPECT_EQ(coordinator_.Wait(), 0) << coordinator_.err();
  EXPECT_TRUE(Eventually([&] { return RunningAs("--control-fd").empty(); }));
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(), 0) << worker.err();
}

TEST_F(ClusterTest, ATakenPortAndAnAbsentCoordinatorAreSentences) {
  Program second = Troupe({"coordinator", "--listen", address_, "--state", "other"});
  EXPECT_EQ(second.Wait(), 4) << second.err();
  EXPECT_THAT(second.err(), HasSubstr("--listen " + address_ + ": the address cannot be bound"));
  const SilentPort silent(0);
  Program ps = Troupe({"ps", "--coordinator", silent.address()});
  EXPECT_EQ(ps.Wait(), 4);
  EXPECT_EQ(ps.err(), "the coordinator at " + silent.address() +
                          " cannot be reached: nobody listens there: start one with `troupe "
                          "coordinator --listen " +
                          silent.address() + " --state DIR`, or give another address\n");
  Program unknown_host = Troupe({"ps", "--coordinator", "nosuchhost.invalid:7"});
  EXPECT_EQ(unknown_host.Wait(), 4);
  EXPECT_EQ(unknown_host.err(),
            "the coordinator at nosuchhost.invalid:7 cannot be reached: there is no host "
            "nosuchhost.invalid: give another address\n");
  coordinator_.Signal(SIGSTOP);
  Program mute = Ask({"ps"});
  EXPECT_EQ(mute.Wait(), 4);
  EXPECT_EQ(mute.err(), "the coordinator at " + address_ +
                            " cannot be reached: no answer within 5 s: it stands still, or is "
                            "none\n");
  coordinator_.Signal(SIGCONT);
  // Where this machine has a coordinator at the default address, it answers.
  if (const SilentPort usual(7077); usual.is_ours()) {
    Program nobody = Troupe({"ps"});
    EXPECT_EQ(nobody.Wait(), 4);
    EXPECT_THAT(nobody.err(), HasSubstr("no coordinator answers at 127.0.0.1:7077"));
    EXPECT_EQ(std::ranges::count(nobody.err(), '\n'), 1) << "and gRPC is silent: " << nobody.err();
  }
  for (const std::string address : {":99999", "localhost", "unix:/tmp/x"}) {
    Program wrong = Troupe({"coordinator", "--listen", address, "--state", "other"});
    EXPECT_EQ(wrong.Wait(), 2) << address;
    EXPECT_THAT(wrong.err(), HasSubstr("write HOST:PORT"));
    Program asked = Troupe({"ps"}, {"TROUPE_COORDINATOR=" + address});
    EXPECT_EQ(asked.Wait(), 2) << address;
  }
  Program unknown = Ask({"cancel", "9"});
  EXPECT_EQ(unknown.Wait(), 2);
  EXPECT_THAT(unknown.err(), HasSubstr("there is no job 9"));
}

TEST_F(ClusterTest, LogsAreWhatRanksPrint) {
  Program worker = Worker("alpha", 4);
  Program submitted = Troupe({"submit", "job.yaml", "--coordinator", address_, "--run-dir", "a"});
  EXPECT_EQ(submitted.Wait(), 0) << submitted.err();
  std::filesystem::create_directories(folder_ / "a/logs");
  folder_.Write("a/logs/rank-0001.log", "first\nsecond\n");
  folder_.Write("a/logs/rank-0003.log", "third");
  Program all = Ask({"logs", "1"});
  EXPECT_EQ(all.Wait(), 0) << all.err();
  EXPECT_EQ(all.out(), "rank 1 | first\nrank 1 | second\nrank 3 | third\n");
  Program one = Ask({"logs", "1", "--rank", "1", "--follow"});
  EXPECT_EQ(one.Wait(), 0) << "an ended job prints no more";
  EXPECT_EQ(one.out(), "first\nsecond\n");
  Program silent = Ask({"logs", "1", "--rank", "0"});
  EXPECT_EQ(silent.Wait(), 0);
  EXPECT_EQ(silent.out(), "");
  EXPECT_THAT(silent.err(), HasSubstr("nothing was printed by rank 0 of job 1"));
  Program beyond = Ask({"logs", "1", "--rank", "4"});
  EXPECT_EQ(beyond.Wait(), 2);
  EXPECT_THAT(beyond.err(), HasSubstr("job 1 has ranks 0 to 3"));
}

TEST_F(ClusterTest, LogsAreFollowedWhileRanksPrint) {
  Program worker = Worker("alpha", 4);
  Program submitted =
      Ask({"submit", "job.yaml", "--no-wait", "--run-dir", "a", "--set", "train.steps=100000"});
  ASSERT_EQ(submitted.Wait(), 0) << submitted.err();
  ASSERT_TRUE(Lists("RUNNING"));
  std::filesystem::create_directories(folder_ / "a/logs");
  folder_.Write("a/logs/rank-0002.log", "early\n");
  Program logs = Ask({"logs", "--run-dir", "a", "-f"});
  ASSERT_TRUE(logs.Says("rank 2 | early\n")) << logs.err();
  std::ofstream(folder_ / "a/logs/rank-0000.log") << "late\n";
  ASSERT_TRUE(logs.Says("rank 0 | late\n")) << logs.err();
  Answer({"cancel", "1", "--kill"});
  EXPECT_EQ(logs.Wait(), 0) << logs.err();
}

TEST_F(ClusterTest, AJobIsFollowedAgainAndLeftAlone) {
  Program worker = Worker("alpha", 4);
  ASSERT_TRUE(Lists("host alpha"));
  Program job = SubmitLong();
  ASSERT_TRUE(Lists("RUNNING"));
  Program attached = Ask({"attach"});  // the only job
  ASSERT_TRUE(attached.Says("Ctrl-C detaches")) << attached.err();
  ASSERT_TRUE(attached.Says("| loss ")) << attached.err();
  attached.Signal(SIGINT);
  EXPECT_EQ(attached.Wait(), 130) << attached.err();
  EXPECT_THAT(attached.err(), HasSubstr("detached: job 1 goes on"));
  EXPECT_TRUE(Lists("RUNNING"));
  Program again = Ask({"attach", "1", "-o", "json"});
  ASSERT_TRUE(again.Says("Ctrl-C detaches")) << again.err();
  Answer({"cancel", "1"});
  EXPECT_EQ(again.Wait(), 130) << "the job's own code: " << again.err();
  const auto result = nlohmann::json::parse(again.out());
  EXPECT_EQ(result["state"], "CANCELLED");
  const std::string folder = result["run_dir"];
  const std::string go_on = "go on with: " + (folder_ / "bin/troupe") + " run " + folder +
                            "/job.effective.yaml --coordinator " + address_ + " --run-dir " +
                            folder + " --resume\n";
  EXPECT_THAT(again.err(), EndsWith(go_on)) << "with what --set changed";
  EXPECT_THAT(testing::Slurp(folder + "/job.effective.yaml"), HasSubstr("steps: 100000"));
  Program after = Ask({"attach", "1"});
  EXPECT_EQ(after.Wait(), 130) << after.err();
  EXPECT_THAT(after.err(), StartsWith("job 1 has ended\ntrained steps "));
  EXPECT_THAT(after.err(), EndsWith(go_on));
}

TEST_F(ClusterTest, WhoFollowsARunIsToldToGoOnWithoutItsCoordinator) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  Program found = Troupe({"attach", "--run-dir", "run"});
  ASSERT_TRUE(found.Says("| loss ")) << found.err();
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), 130) << run.err();
  EXPECT_EQ(found.Wait(), 130) << found.err();
  const std::string folder = folder_ / "run";
  EXPECT_THAT(found.err(), EndsWith("go on with: " + (folder_ / "bin/troupe") + " run " + folder +
                                    "/job.effective.yaml --run-dir " + folder + " --resume\n"));
}

TEST_F(ClusterTest, JobsAreWatchedWithAgeHostsAndFolder) {
  Program worker = Worker("alpha", 4);
  ASSERT_TRUE(Lists("host alpha"));
  Program job = SubmitLong();
  ASSERT_TRUE(Lists("RUNNING"));
  EXPECT_TRUE(Lists(" alpha "));
  EXPECT_TRUE(Lists(folder_ / "runs/small/"));
  const auto jobs = nlohmann::json::parse(Answer({"ps", "-o", "json"}));
  EXPECT_EQ(jobs["jobs"][0]["hosts"], nlohmann::json::array({"alpha"}));
  EXPECT_EQ(jobs["jobs"][0]["workers"], 4);
  EXPECT_TRUE(jobs["jobs"][0]["ended"].is_null());
  EXPECT_TRUE(jobs["jobs"][0]["exit_code"].is_null()) << "until it has ended";
  Program watch = Ask({"ps", "--watch", "0.1", "-o", "jsonl"});
  EXPECT_TRUE(Eventually([&] { return std::ranges::count(watch.out(), '\n') >= 3; }));
  watch.Signal(SIGINT);
  EXPECT_EQ(watch.Wait(), 128 + SIGINT);
}

TEST_F(SilentAgentTest, WhoeverKillsRanksForASilentCoordinatorSaysSo) {
  Program worker = Worker("alpha", 4);
  ASSERT_TRUE(Lists("host alpha"));
  ASSERT_EQ(SubmitLong().Wait(), 0);
  ASSERT_TRUE(Lists("RUNNING"));
  coordinator_.Signal(SIGSTOP);
  EXPECT_TRUE(
      worker.Says("host agent alpha heard nothing from the coordinator for 5 s: its ranks "
                  "are killed"));
  EXPECT_TRUE(Eventually([&] { return RunningAs("--control-fd").empty(); }));
  coordinator_.Signal(SIGCONT);
  ASSERT_TRUE(Lists("FAILED"));
  EXPECT_THAT(Answer({"status", "1"}), HasSubstr("was killed by its host agent at step"));
  EXPECT_THAT(Answer({"status", "1"}),
              HasSubstr("host agent alpha heard nothing from the coordinator for 5 s"));
}

}  // namespace
}  // namespace troupe

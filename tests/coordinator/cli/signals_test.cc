// Signals at each process of `troupe run`, and what becomes of a run whose daemons die or stand
// still: real processes with fake ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <memory>

#include <nlohmann/json.hpp>

#include "tests/coordinator/cli/program.h"

namespace troupe {
namespace {

using ::testing::AnyOf;
using ::testing::EndsWith;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::Program;
using testing::Slurp;

constexpr int kCancelled = 130;
constexpr int kPreempted = 143;
const std::string kNothingCommitted = "no step is committed: there is nothing to go on from\n";

class SignalsTest : public testing::TroupeTest {
 protected:
  // The daemon that `run` has started, or starts. (An agent that has just forked a rank has a child
  // that looks like it.)
  pid_t DaemonOf(const Program& run, const std::string& verb) {
    pid_t daemon = 0;
    (void)Eventually([&] {
      for (const auto& process : Running()) {
        if (process.parent == run.pid() && process.arguments.size() > 1 &&
            process.arguments[1] == verb) {
          daemon = process.pid;
        }
      }
      return daemon != 0 || run.ended();
    });
    CHECK(daemon != 0, "{}", run.err());
    return daemon;
  }
  nlohmann::json ResultOfRun() { return nlohmann::json::parse(Slurp(folder_ / "run/result.json")); }
  static char StateOf(pid_t pid) {
    const std::string stat = Slurp("/proc/" + std::to_string(pid) + "/stat");
    const size_t name_end = stat.rfind(") ");
    return name_end == std::string::npos ? '?' : stat[name_end + 2];
  }
  std::string ResumeLine() {
    return "go on with: " + (folder_ / "bin/troupe") +
           " run job.yaml --set train.steps=100000 --run-dir " + (folder_ / "run") + " --resume\n";
  }
};

TEST_F(SignalsTest, TermAndHangUpAtTheClientStopAsAnInterruptDoes) {
  for (const int signal : {SIGTERM, SIGHUP}) {
    Program run = LongRun();
    ASSERT_TRUE(run.Says("step ")) << run.err();
    run.Signal(signal);
    EXPECT_EQ(run.Wait(), kCancelled) << run.err();
    EXPECT_THAT(run.err(), HasSubstr("cancelled; checkpoint "));
    EXPECT_THAT(run.err(), HasSubstr(" is committed; go on with: "));
    EXPECT_THAT(run.err(), EndsWith(ResumeLine())) << "the last line";
    EXPECT_EQ(ResultOfRun()["state"], "CANCELLED");
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(SignalsTest, AWarningOfPreemptionAtTheClientPreempts) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  run.Signal(SIGUSR1);
  EXPECT_EQ(run.Wait(), kPreempted) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("preempted: SIGUSR1 at the client; checkpoint "));
}

TEST_F(SignalsTest, TheMachinesSignalAtADaemonPreempts) {
  for (const std::string verb : {"worker", "coordinator"}) {
    for (const int signal : {SIGTERM, SIGUSR1}) {
      Program run = LongRun();
      ASSERT_TRUE(run.Says("step ")) << run.err();
      ::kill(DaemonOf(run, verb), signal);
      EXPECT_EQ(run.Wait(), kPreempted) << run.err();
      EXPECT_THAT(run.err(),
                  HasSubstr(std::string("preempted: SIG") + (signal == SIGTERM ? "TERM" : "USR1") +
                            " at " + (verb == "worker" ? "host agent" : "the coordinator")));
      EXPECT_THAT(run.err(), EndsWith(ResumeLine()));
      EXPECT_EQ(ResultOfRun()["state"], "PREEMPTED");
      EXPECT_NE(ResultOfRun()["checkpoint"], "");
      std::filesystem::remove_all(folder_ / "run");
    }
  }
}

TEST_F(SignalsTest, APersonsSignalAtADaemonCancels) {
  for (const std::string verb : {"worker", "coordinator"}) {
    Program run = LongRun();
    ASSERT_TRUE(run.Says("step ")) << run.err();
    ::kill(DaemonOf(run, verb), SIGHUP);
    EXPECT_EQ(run.Wait(), kCancelled) << run.err();
    EXPECT_THAT(run.err(), HasSubstr("cancelled: SIGHUP at "));
    EXPECT_NE(ResultOfRun()["checkpoint"], "");
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(SignalsTest, ASignalAtAllOfThemIsOneCleanStop) {
  for (const int signal : {SIGTERM, SIGHUP, SIGINT}) {
    Program run = LongRun();
    ASSERT_TRUE(run.Says("step ")) << run.err();
    for (const auto& process : Running()) ::kill(process.pid, signal);
    EXPECT_THAT(run.Wait(), AnyOf(kCancelled, kPreempted)) << run.err();
    EXPECT_NE(ResultOfRun()["checkpoint"], "");
    EXPECT_THAT(run.err(), EndsWith(ResumeLine()));
    EXPECT_TRUE(Eventually([&] { return Running().empty(); }));
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(SignalsTest, UnderNohupARunGoesOn) {
  Program run({"/usr/bin/nohup", folder_ / "bin/troupe", "run", "job.yaml", "--run-dir", "run",
               "--set", "train.steps=100000"},
              {"TROUPE_RANK=" + (folder_ / "bin/fake_rank")}, folder_.path(), "nohup");
  ASSERT_TRUE(run.Says("step ")) << run.err();
  for (const auto& process : Running()) ::kill(process.pid, SIGHUP);
  const size_t steps = StepsOfRun();
  EXPECT_TRUE(Eventually([&] { return StepsOfRun() > steps + 100; }));
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), kCancelled) << run.err();
}

TEST_F(SignalsTest, AStopAtTheTerminalPausesAllUntilItIsContinued) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  const auto all = Running();
  ASSERT_EQ(all.size(), 7u);
  for (int round = 0; round < 2; ++round) {
    run.Signal(SIGTSTP);
    for (const auto& process : all) {
      EXPECT_TRUE(Eventually([&] { return StateOf(process.pid) == 'T'; })) << process.pid;
    }
    const size_t steps = StepsOfRun();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_EQ(StepsOfRun(), steps);
    run.Signal(SIGCONT);
    EXPECT_TRUE(Eventually([&] { return StepsOfRun() > steps + 50; })) << run.err();
  }
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), kCancelled) << run.err();
}

// ---- daemons that die or stand still ---------------------------------------------------------

TEST_F(SignalsTest, AnAgentThatDiesBeforeItCanWorkEndsTheRun) {
  Program run = LongRun();
  ::kill(DaemonOf(run, "worker"), SIGKILL);
  EXPECT_EQ(run.Wait(), 5) << run.err();
  // Where it had joined, its job may have found it gone.
  EXPECT_THAT(run.err(), AnyOf(HasSubstr("the host agent of this run was killed by SIGKILL"),
                               HasSubstr("was lost with its host")));
}

TEST_F(SignalsTest, AnInterruptEndsARunWhoseCoordinatorStandsStill) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  const pid_t coordinator = DaemonOf(run, "coordinator");
  ::kill(coordinator, SIGSTOP);
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), kCancelled) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("does not answer: ended without it"));
  EXPECT_EQ(ResultOfRun()["state"], "CANCELLED") << "written by the client";
  EXPECT_TRUE(Eventually([&] { return Running().empty(); }));
}

TEST_F(SignalsTest, ASecondInterruptEndsARunThatHangsAnywhere) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  for (const std::string verb : {"coordinator", "worker"}) ::kill(DaemonOf(run, verb), SIGSTOP);
  run.Signal(SIGINT);
  ASSERT_TRUE(run.Says("stopping after this step"));
  run.Signal(SIGTERM);
  ASSERT_TRUE(run.Says("stopping at once"));
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), kCancelled) << run.err();
  EXPECT_TRUE(Eventually([&] { return Running().empty(); }));
  EXPECT_THAT(run.err(), HasSubstr("ended without waiting for what hangs\n"));
  EXPECT_THAT(run.err(), EndsWith(kNothingCommitted)) << "it was looked for";
  EXPECT_EQ(ResultOfRun()["state"], "CANCELLED");
  EXPECT_EQ(ResultOfRun()["reason"], "ended without waiting for what hangs");
}

TEST_F(SignalsTest, AnInterruptWhileNothingAnswersEndsTheStart) {
  Program run = LongRun();
  ::kill(DaemonOf(run, "worker"), SIGSTOP);
  ::kill(DaemonOf(run, "coordinator"), SIGSTOP);
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), kCancelled) << run.err();
  EXPECT_EQ(ResultOfRun()["state"], "CANCELLED");
  EXPECT_THAT(run.err(), EndsWith(kNothingCommitted));
}

TEST_F(SignalsTest, ASignalBeforeAnythingRunsIsAnEndLikeAnyOther) {
  const struct {
    int signal;
    int exit_code;
    std::string state;
  } cases[] = {{SIGINT, kCancelled, "CANCELLED"},
               {SIGTERM, kCancelled, "CANCELLED"},
               {SIGHUP, kCancelled, "CANCELLED"},
               {SIGUSR1, kPreempted, "PREEMPTED"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.state);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, c.signal);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // inherited: it waits for the program
    Program run = LongRun();
    run.Signal(c.signal);
    ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    EXPECT_EQ(run.Wait(), c.exit_code) << run.err();
    EXPECT_THAT(run.err(), HasSubstr("stopped before anything ran\n"));
    EXPECT_THAT(run.err(), EndsWith(kNothingCommitted));
    EXPECT_EQ(ResultOfRun()["state"], c.state);
    EXPECT_EQ(ResultOfRun()["exit_code"], c.exit_code);
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(SignalsTest, AWarningOfPreemptionWhileTheAgentIsAwaitedPreempts) {
  Program run = LongRun();
  ASSERT_TRUE(Eventually([&] { return !RunningAs("worker").empty(); })) << run.err();
  ::kill(DaemonOf(run, "worker"), SIGSTOP);
  run.Signal(SIGUSR1);
  ASSERT_TRUE(run.Says("SIGUSR1: stopping"));
  EXPECT_EQ(run.Wait(), kPreempted) << run.err();
  ASSERT_TRUE(Eventually([&] { return std::filesystem::exists(folder_ / "run/result.json"); }))
      << run.err();
  EXPECT_EQ(ResultOfRun()["state"], "PREEMPTED");
}

// ---- one folder ------------------------------------------------------------------------------

TEST_F(SignalsTest, OfRunsAtOneMomentInOneFolderOneGoesOn) {
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Program>> runs;
    for (int i = 0; i < 3; ++i) runs.emplace_back(new Program(LongRun()));
    // All but one end by themselves.
    ASSERT_TRUE(Eventually([&] {
      std::erase_if(runs, [](const auto& run) {
        if (!run->ended()) return false;
        const int exit_code = run->Wait();
        EXPECT_EQ(exit_code, 2) << run->err();
        EXPECT_THAT(run->err(), HasSubstr("/run is in use ("));
        return true;
      });
      return runs.size() <= 1;
    }));
    ASSERT_EQ(runs.size(), 1u);
    EXPECT_TRUE(Eventually([&] { return StepsOfRun() > 0; })) << runs[0]->err();
    runs[0]->Signal(SIGINT);
    EXPECT_EQ(runs[0]->Wait(), kCancelled) << runs[0]->err();
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(SignalsTest, TheLastLineOfALongLogIsTold) {
  std::filesystem::create_directories(folder_ / "run/logs");
  std::string log;
  while (log.size() < (2 << 20)) log += "a line among many that a daemon wrote\n";
  folder_.Write("run/logs/coordinator.log", log + "the last words\n");
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  ::kill(DaemonOf(run, "coordinator"), SIGKILL);
  EXPECT_EQ(run.Wait(), 4) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("the coordinator of this run was killed by SIGKILL; "));
  EXPECT_THAT(run.err(), HasSubstr("logs/coordinator.log ends with: the last words\n"));
}

}  // namespace
}  // namespace troupe

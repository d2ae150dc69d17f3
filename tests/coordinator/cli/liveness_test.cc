// Who stands still, and for how long: real processes that are stopped by signals and continued.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/cli/program.h"

namespace troupe {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Program;

class LivenessTest : public testing::TroupeTest {
 protected:
  Program Run(int pp, int silence_seconds, int steps) {
    return Troupe({"run", "job.yaml", "--run-dir", "run", "--set",
                   "parallelism.pp=" + std::to_string(pp), "--set",
                   "resources.peer_silence_seconds=" + std::to_string(silence_seconds), "--set",
                   "train.steps=" + std::to_string(steps)});
  }
};

TEST_F(LivenessTest, AStoppedRankIsToldAtOnceThenBlamedByItsNumberAndPid) {
  for (const int pp : {1, 4}) {
    Program run = Run(pp, /*silence_seconds=*/4, /*steps=*/1'000'000);
    ASSERT_TRUE(run.Says("step ")) << run.err();
    const auto ranks = RunningAs("--control-fd");
    ASSERT_EQ(ranks.size(), static_cast<size_t>(pp));
    const pid_t stopped = ranks.back();
    ::kill(stopped, SIGSTOP);
    ASSERT_TRUE(run.Says("it is stopped (SIGSTOP); the job waits up to 4 s")) << run.err();
    EXPECT_THAT(run.err(), Not(HasSubstr("failed: ")));
    EXPECT_EQ(run.Wait(), 5) << run.err();
    const std::string talk = run.err();
    EXPECT_THAT(
        talk.substr(talk.find("failed: ")),
        AllOf(HasSubstr("pid " + std::to_string(stopped) + ") has said nothing for 4 s"),
              HasSubstr("during forward of microbatch 3"), HasSubstr("it is stopped (SIGSTOP)")));
    EXPECT_THAT(testing::Slurp(folder_ / "run/events.jsonl"), HasSubstr("it is stopped (SIGSTOP)"));
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(LivenessTest, ARankThatIsContinuedInTimeGoesOn) {
  Program run = Run(/*pp=*/4, /*silence_seconds=*/60, /*steps=*/500);
  ASSERT_TRUE(run.Says("step ")) << run.err();
  const pid_t stopped = RunningAs("--control-fd").back();
  ::kill(stopped, SIGSTOP);
  ASSERT_TRUE(run.Says("it is stopped (SIGSTOP)")) << run.err();
  ::kill(stopped, SIGCONT);
  EXPECT_EQ(run.Wait(), 0) << run.err();
}

// docker pause, a suspended machine: longer than any side waits for another.
TEST_F(LivenessTest, AJobThatIsSuspendedWholeGoesOn) {
  Program run = Run(/*pp=*/4, /*silence_seconds=*/4, /*steps=*/2000);
  ASSERT_TRUE(run.Says("step ")) << run.err();
  const auto all = Running();
  ASSERT_EQ(all.size(), 7u) << "run, coordinator, agent, four ranks";
  for (const auto& process : all) ::kill(process.pid, SIGSTOP);
  std::this_thread::sleep_for(6s);
  for (const auto& process : all) ::kill(process.pid, SIGCONT);
  EXPECT_EQ(run.Wait(30s), 0) << run.err();
  EXPECT_THAT(run.err(), Not(HasSubstr("silent")));
}

}  // namespace
}  // namespace troupe

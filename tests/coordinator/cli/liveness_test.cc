// Who stands still, and for how long: real processes that are stopped by signals and continued.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/cli/program.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Program;

class LivenessTest : public testing::TroupeTest {
 protected:
  Program Run(int pp, int silence_seconds) {
    return Troupe({"run", "job.yaml", "--run-dir", "run", "--set",
                   "parallelism.pp=" + std::to_string(pp), "--set",
                   "resources.peer_silence_seconds=" + std::to_string(silence_seconds), "--set",
                   "train.steps=100000"});
  }
  // It goes on by `count` steps more, and heeds a cancel at the end.
  void GoesOn(Program& run, size_t count) {
    const size_t steps = StepsOfRun();
    EXPECT_TRUE(Eventually([&] { return StepsOfRun() >= steps + count || run.ended(); }));
    run.Signal(SIGINT);
    EXPECT_EQ(run.Wait(), 130) << run.err();
    EXPECT_THAT(run.err(), HasSubstr("cancelled; checkpoint "));
  }
};

TEST_F(LivenessTest, AStoppedRankIsToldAtOnceThenBlamedByItsNumberAndPid) {
  for (const int pp : {1, 4}) {
    Program run = Run(pp, /*silence_seconds=*/4);
    ASSERT_TRUE(run.Says("step ")) << run.err();
    const auto ranks = RunningAs("--control-fd");
    ASSERT_EQ(ranks.size(), static_cast<size_t>(pp));
    const pid_t stopped = ranks.back();
    ::kill(stopped, SIGSTOP);
    ASSERT_TRUE(run.Says("it is stopped (SIGSTOP); the job waits up to 4 s")) << run.err();
    EXPECT_EQ(run.Wait(), 5) << run.err();
    const std::string talk = run.err();
    EXPECT_LT(talk.find("the job waits up to 4 s"), talk.find("failed: "));
    EXPECT_THAT(
        talk.substr(talk.find("failed: ")),
        AllOf(HasSubstr("pid " + std::to_string(stopped) + ") has said nothing for 4 s"),
              HasSubstr("during forward of microbatch 3"), HasSubstr("it is stopped (SIGSTOP)")));
    EXPECT_THAT(testing::Slurp(folder_ / "run/events.jsonl"), HasSubstr("it is stopped (SIGSTOP)"));
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(LivenessTest, ARankThatIsContinuedInTimeGoesOn) {
  Program run = Run(/*pp=*/4, /*silence_seconds=*/60);
  ASSERT_TRUE(run.Says("step ")) << run.err();
  const auto ranks = RunningAs("--control-fd");
  ASSERT_EQ(ranks.size(), 4u);
  const pid_t stopped = ranks.back();
  ::kill(stopped, SIGSTOP);
  ASSERT_TRUE(run.Says("it is stopped (SIGSTOP)")) << run.err();
  ::kill(stopped, SIGCONT);
  GoesOn(run, 50);
}

// docker pause, a suspended machine: longer than any side waits for another.
TEST_F(LivenessTest, AJobThatIsSuspendedWholeGoesOn) {
  constexpr int kSilenceSeconds = 10;
  Program run = Run(/*pp=*/4, kSilenceSeconds);
  ASSERT_TRUE(run.Says("step ")) << run.err();
  const auto all = Running();
  ASSERT_EQ(all.size(), 7u) << "run, coordinator, agent, four ranks";
  for (const auto& process : all) ::kill(process.pid, SIGSTOP);
  std::this_thread::sleep_for(std::chrono::seconds(kSilenceSeconds + 2));
  for (const auto& process : all) ::kill(process.pid, SIGCONT);
  GoesOn(run, 50);
  EXPECT_THAT(run.err(), Not(HasSubstr("silent")));
}

}  // namespace
}  // namespace troupe

// `troupe run` from end to end with real processes and fake ranks: what it prints, how it ends, and
// that nothing outlives it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/coordinator/cli/program.h"

namespace troupe {
namespace {

using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Program;
using ::testing::StartsWith;

class RunCommandTest : public testing::TroupeTest {};

TEST_F(RunCommandTest, PrintsAnObjectAStepAndTheResult) {
  Program run = Troupe({"run", "job.yaml", "--run-dir", "run", "-o", "jsonl"});
  ASSERT_EQ(run.Wait(), 0) << run.err();
  std::istringstream lines(run.out());
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) {
    objects.push_back(nlohmann::json::parse(line));  // stdout holds nothing else
  }
  ASSERT_EQ(objects.size(), 7u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(objects[i]["step"], i + 1);
    EXPECT_EQ(objects[i]["loss"].get<double>(), 5.0 / (i + 1));
  }
  EXPECT_EQ(objects[6]["event"], "result");
  EXPECT_EQ(objects[6]["state"], "SUCCEEDED");
  EXPECT_EQ(objects[6]["exit_code"], 0);
  EXPECT_EQ(objects[6]["run_dir"], folder_ / "run");
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run/result.json"));
}

TEST_F(RunCommandTest, JsonIsTheResultAlone) {
  Program run = Troupe({"run", "job.yaml", "--run-dir", "run", "-o", "json"});
  ASSERT_EQ(run.Wait(), 0) << run.err();
  EXPECT_EQ(nlohmann::json::parse(run.out())["state"], "SUCCEEDED") << run.out();
}

TEST_F(RunCommandTest, RunsThatNobodyNamesAreFoundByLatest) {
  for (int i = 0; i < 2; ++i) {
    Program run = Troupe({"run", "job.yaml", "-o", "json"});
    ASSERT_EQ(run.Wait(), 0) << run.err();
    const std::string directory = nlohmann::json::parse(run.out())["run_dir"];
    EXPECT_TRUE(directory.starts_with(folder_ / "runs/small/")) << directory;
    EXPECT_EQ(std::filesystem::canonical(folder_ / "runs/small/latest"), directory);
  }
  Program named = Troupe({"run", "job.yaml", "--run-dir", "mine/first"});
  ASSERT_EQ(named.Wait(), 0) << named.err();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "mine/latest"));
}

TEST_F(RunCommandTest, TheEnvironmentNamesVersionMachineAndCommand) {
  Program run = Troupe({"run", "job.yaml", "--run-dir", "run"});
  ASSERT_EQ(run.Wait(), 0) << run.err();
  const auto environment = nlohmann::json::parse(testing::Slurp(folder_ / "run/env.json"));
  Program version = Troupe({"--version"});
  EXPECT_EQ(version.Wait(), 0);
  EXPECT_THAT(version.out(),
              StartsWith("troupe " + environment["version"].get<std::string>() + " (AVX"))
      << "and what the kernels may use of this CPU";
  EXPECT_THAT(environment["command_line"].get<std::string>(),
              HasSubstr("bin/troupe run job.yaml --run-dir run"));
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  ASSERT_EQ(environment["ranks"].size(), 4u);
  for (const auto& rank : environment["ranks"]) {
    EXPECT_EQ(rank["host"], host);
    EXPECT_EQ(rank["build"], "fake");
  }
}

TEST_F(RunCommandTest, ComparesWithOneWorker) {
  Program run = Troupe({"run", "job.yaml", "--set", "eval.check_against=single_worker"});
  EXPECT_EQ(run.Wait(), 0) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("parity with 1 worker: 6 losses, 6 gradient norms and 12 "
                                   "parameters bit-equal"));
}

TEST_F(RunCommandTest, ADifferenceFailsTheGate) {
  Program run = Troupe({"run", "job.yaml", "--set", "eval.check_against=single_worker"},
                       {"FAKE_RANK_FAULT=2:digest"});
  EXPECT_EQ(run.Wait(), 6) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("3 of 12 parameters differ"));
}

// ---- ranks that fail -------------------------------------------------------------------------

TEST_F(RunCommandTest, AKilledRankIsNamedWithSignalStepAndAction) {
  Program run = LongRun({"FAKE_RANK_FAULT=2:kill:17"});
  EXPECT_EQ(run.Wait(), 5) << run.err();
  EXPECT_THAT(run.err(),
              ::testing::ContainsRegex("failed: rank 2 \\(host .*, pid [0-9]+\\) was killed by "
                                       "signal 9 \\(SIGKILL\\) at step 17 during forward of "
                                       "microbatch 3 on stage 2"));
}

TEST_F(RunCommandTest, ARankKilledFromOutsideEndsTheJob) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  const auto ranks = RunningAs("--control-fd");
  ASSERT_EQ(ranks.size(), 4u);
  ::kill(ranks[1], SIGKILL);
  EXPECT_EQ(run.Wait(), 5) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("pid " + std::to_string(ranks[1]) + ") was killed by signal 9"));
}

TEST_F(RunCommandTest, TheLastLineOfARankThatExitsIsInTheSentence) {
  Program run = LongRun({"FAKE_RANK_FAULT=1:exit:3"});
  EXPECT_EQ(run.Wait(), 5) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("exited with 7 at step 3 during forward of microbatch 3 on "
                                   "stage 1: the last words"));
  EXPECT_THAT(testing::Slurp(folder_ / "run/logs/rank-0001.log"), HasSubstr("the last words"));
}

TEST_F(RunCommandTest, BytesThatAreNoMessageEndTheJobOnly) {
  for (const std::string kind : {"hostile", "garbage"}) {
    Program run = LongRun({"FAKE_RANK_FAULT=1:" + kind + ":3"});
    EXPECT_EQ(run.Wait(), 5) << run.err();
    EXPECT_THAT(run.err(), HasSubstr("was killed by its host agent at step 3"));
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(RunCommandTest, AnErrorOfARankIsThatOfTheJob) {
  Program run = LongRun({"FAKE_RANK_FAULT=0:error:2"});
  EXPECT_EQ(run.Wait(), 1) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("): checkpoint: no space left on /disk"));
}

TEST_F(RunCommandTest, AMissingRankProgramIsNamed) {
  Program run = Troupe({"run", "job.yaml"}, {"X=1"});
  ASSERT_EQ(run.Wait(), 0) << run.err();
  std::filesystem::remove(folder_ / "bin/fake_rank");
  Program without = Troupe({"run", "job.yaml"});
  EXPECT_EQ(without.Wait(), 5) << without.err();
  EXPECT_THAT(without.err(), HasSubstr("bin/fake_rank cannot be run: No such file"));
}

// ---- signals ---------------------------------------------------------------------------------

TEST_F(RunCommandTest, AnInterruptIsACleanStopWithTheCommandThatResumes) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), 130) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("cancelled; checkpoint " + (folder_ / "run/checkpoints/step-")));
  EXPECT_THAT(run.err(), HasSubstr("go on with: " + (folder_ / "bin/troupe") +
                                   " run job.yaml --set train.steps=100000 --run-dir " +
                                   (folder_ / "run") + " --resume\n"));
  EXPECT_THAT(testing::Slurp(folder_ / "run/result.json"), HasSubstr("CANCELLED"));
}

TEST_F(RunCommandTest, ASecondInterruptKills) {
  Program run = Troupe({"run", "job.yaml", "--run-dir", "run", "--set", "train.steps=100000",
                        "--set", "resources.peer_silence_seconds=1000"},
                       {"FAKE_RANK_FAULT=0:hang:3"});
  // From then on no order reaches it.
  ASSERT_TRUE(run.Says("its thread does not get on")) << run.err();
  run.Signal(SIGINT);
  ASSERT_TRUE(run.Says("stopping after this step"));
  ASSERT_TRUE(Eventually([&] {
    Program status = Troupe({"status", "--run-dir", "run", "-o", "json"});
    return status.Wait() == 0 && nlohmann::json::parse(status.out())["state"] == "DRAINING";
  })) << "it waits for its ranks to stop cleanly";
  EXPECT_FALSE(run.ended());
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), 130) << run.err();
  EXPECT_THAT(run.err(), Not(HasSubstr("go on with: "))) << "nothing was saved";
}

TEST_F(RunCommandTest, AnInterruptBeforeTheFirstStepEndsItToo) {
  Program run = LongRun({"FAKE_RANK_FAULT=1:mute"});
  ASSERT_TRUE(run.Says("starting 4 workers")) << run.err();
  run.Signal(SIGTERM);
  EXPECT_EQ(run.Wait(), 130) << run.err();
}

// ---- what dies takes the rest with it ----------------------------------------------------------

TEST_F(RunCommandTest, ADeadAgentEndsTheJob) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  ASSERT_EQ(RunningAs("worker").size(), 1u);
  ::kill(RunningAs("worker")[0], SIGKILL);
  EXPECT_EQ(run.Wait(), 5) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("was lost with its host: its agent's connection ended"));
}

TEST_F(RunCommandTest, ADeadCoordinatorEndsTheRun) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  ASSERT_EQ(RunningAs("coordinator").size(), 1u);
  ::kill(RunningAs("coordinator")[0], SIGKILL);
  EXPECT_EQ(run.Wait(), 4) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("the coordinator of this run was killed by SIGKILL\n"));
  const auto result = nlohmann::json::parse(testing::Slurp(folder_ / "run/result.json"));
  EXPECT_EQ(result["exit_code"], 4);
  EXPECT_EQ(result["reason"], "the coordinator of this run was killed by SIGKILL");
}

TEST_F(RunCommandTest, AKilledRunLeavesNothing) {
  Program run = LongRun();
  ASSERT_TRUE(run.Says("step ")) << run.err();
  ASSERT_EQ(Running().size(), 7u) << "run, coordinator, agent, four ranks";
  run.Signal(SIGKILL);
  EXPECT_EQ(run.Wait(), 128 + SIGKILL);
  EXPECT_TRUE(Eventually([&] { return Running().empty(); }));
}

// ---- usage -----------------------------------------------------------------------------------

TEST_F(RunCommandTest, AnInfeasiblePlanIsThree) {
  Program program = Troupe({"plan", "job.yaml", "--set", "parallelism.pp=5"});
  EXPECT_EQ(program.Wait(), 3) << program.err();
  EXPECT_THAT(program.err(), HasSubstr("parallelism.pp = 5"));
}

TEST_F(RunCommandTest, WhatStandsAgainstARunIsSaidBeforeItsPlan) {
  Program first = Troupe({"run", "job.yaml", "--run-dir", "used"});
  ASSERT_EQ(first.Wait(), 0) << first.err();
  folder_.Write("file", "no folder");
  const std::vector<std::vector<std::string>> refused = {
      {"run", "job.yaml", "--run-dir", "used"},
      {"run", "job.yaml", "--run-dir", "file/below"},
      {"run", "job.yaml", "--run-dir", "other", "--resume", "nowhere"},
      {"run", "job.yaml", "--run-dir", "other", "--resume"},
      {"plan", "job.yaml", "--set", "checkpoint.resume=nowhere"},
      {"validate", "job.yaml", "--set", "checkpoint.resume=nowhere"}};
  for (const auto& words : refused) {
    Program run = Troupe(words);
    EXPECT_EQ(run.Wait(), 2) << words.back() << run.err();
    EXPECT_THAT(run.out() + run.err(), Not(HasSubstr("makespan bubble"))) << words.back();
  }
}

TEST_F(RunCommandTest, UsageErrorsAreTwo) {
  const struct {
    std::vector<std::string> words;
    std::string sentence;
  } cases[] = {
      {{"sumbit"}, "there is no command sumbit: did you mean submit?"},
      {{"run"}, "job is required"},
      {{"run", "job.yaml", "--colour"}, "troupe run has no flag --colour"},
      {{"run", "job.yaml", "--resmue"}, "did you mean --resume?"},
      {{"help", "sumbit"}, "there is no command sumbit: did you mean submit?"},
      {{"run", "nowhere.yaml"}, "nowhere.yaml"},
      {{"run", "job.yaml", "--set", "trian.steps=1"}, "did you mean train?"},
      {{"run", "job.yaml", "--set", "nonsense"}, "nonsense"},
      {{"worker", "--join", "127.0.0.1:1", "--slots", "0"}, "--slots"},
      {{"status", "tiny"}, "tiny: give its number, which `troupe ps` lists, or --run-dir DIR"},
      {{"logs", "1", "--rank", "x"}, "--rank: x: give a rank's number"},
      {{"coordinator", "--lisen", "127.0.0.1:0"}, "did you mean --listen?"},
      {{"ckpt", "verfy", "run"}, "there is no command ckpt verfy: did you mean verify?"},
      {{}, "A subcommand is required"},
  };
  for (const auto& c : cases) {
    Program program = Troupe(c.words);
    EXPECT_EQ(program.Wait(), 2) << ::testing::PrintToString(c.words) << program.err();
    EXPECT_THAT(program.err(), HasSubstr(c.sentence));
    EXPECT_EQ(program.out(), "") << "talk belongs on stderr";
  }
}

TEST_F(RunCommandTest, ARunIsFoundWhileItGoesOn) {
  Program run = Troupe({"run", "job.yaml", "--run-dir", "runs/a/b", "--set", "train.steps=100000"});
  ASSERT_TRUE(run.Says("step ")) << run.err();
  Program ps = Troupe({"ps", "-o", "jsonl"});
  EXPECT_EQ(ps.Wait(), 0) << ps.err();
  EXPECT_THAT(ps.out(), HasSubstr(folder_ / "runs/a/b"));
  Program status = Troupe({"status", "--run-dir", "runs/a/b", "-o", "json"});
  EXPECT_EQ(status.Wait(), 0) << status.err();
  EXPECT_EQ(nlohmann::json::parse(status.out())["state"], "RUNNING");
  Program cancel = Troupe({"cancel", "--run-dir", "runs/a/b"});
  EXPECT_EQ(cancel.Wait(), 0) << cancel.err();
  EXPECT_EQ(run.Wait(), 130) << run.err();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs/a/b/coordinator"));
  Program over = Troupe({"status", "--run-dir", "runs/a/b"});
  EXPECT_EQ(over.Wait(), 4);
  EXPECT_THAT(over.err(), HasSubstr("no run goes on there: see its result.json"));
}

TEST_F(RunCommandTest, HelpIsDataAndBeginsWithExamples) {
  Program word = Troupe({"help", "run"});
  EXPECT_EQ(word.Wait(), 0);
  EXPECT_TRUE(word.out().starts_with("examples:\n  troupe run ")) << word.out();
  Program help = Troupe({"--help"});
  EXPECT_EQ(help.Wait(), 0);
  EXPECT_TRUE(help.out().starts_with("examples:\n  troupe run examples/pretrain-tiny.yaml\n"))
      << help.out();
  // Every verb that it lists, below "Subcommands:".
  int verbs = 0;
  std::istringstream lines(help.out().substr(help.out().find("Subcommands:\n") + 13));
  std::string verb;
  for (std::string line; std::getline(lines, line) && (line.empty() || line[0] == ' ');) {
    if (!(std::istringstream(line) >> verb)) continue;
    ++verbs;
    Program about = Troupe({verb, "--help"});
    EXPECT_EQ(about.Wait(), 0) << about.err();
    EXPECT_TRUE(about.out().starts_with("examples:\n  troupe " + verb)) << about.out();
  }
  EXPECT_EQ(verbs, 15);
}

TEST_F(RunCommandTest, APlanIsOneDocumentOrOneLine) {
  Program json = Troupe({"plan", "job.yaml", "-o", "json"});
  EXPECT_EQ(json.Wait(), 0) << json.err();
  Program jsonl = Troupe({"plan", "job.yaml", "-o", "jsonl"});
  EXPECT_EQ(jsonl.Wait(), 0) << jsonl.err();
  auto document = nlohmann::json::parse(json.out());
  auto line = nlohmann::json::parse(jsonl.out());
  // What is free changes from one call to the next.
  for (auto* plan : {&document, &line}) (*plan)["host"].erase("available_bytes");
  EXPECT_EQ(document, line);
  EXPECT_EQ(std::ranges::count(jsonl.out(), '\n'), 1);
}

TEST_F(RunCommandTest, APlanTakesSpeedsAndSaysWhenHopsAreHidden) {
  const std::vector<std::string> words = {"plan", "job.yaml", "--set", "parallelism.cp=2"};
  const auto plan = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = words;
    all.insert(all.end(), more.begin(), more.end());
    return Troupe(all);
  };
  Program said = plan({"--flops-per-second", "6e14", "--bytes-per-second", "4.5e11"});
  EXPECT_EQ(said.Wait(), 0) << said.err();
  EXPECT_THAT(said.out(), HasSubstr("  hops      hidden from "));
  Program alone = plan({"--flops-per-second", "6e14"});
  EXPECT_EQ(alone.Wait(), 2);
  EXPECT_THAT(alone.err(), HasSubstr("--bytes-per-second"));
  for (const char* speed : {"0", "-1", "inf", "fast"}) {
    Program none = plan({"--flops-per-second", speed, "--bytes-per-second", "1"});
    EXPECT_EQ(none.Wait(), 2);
    EXPECT_THAT(none.err(), HasSubstr(speed + std::string(": use a number above 0")));
    EXPECT_LT(none.err().size(), 300u);
  }
  for (const char* set : {"parallelism.cp_method=all_gather", "parallelism.cp=1"}) {
    Program without =
        plan({"--set", set, "--flops-per-second", "6e14", "--bytes-per-second", "4.5e11"});
    EXPECT_EQ(without.Wait(), 0) << without.err();
    EXPECT_THAT(without.err(), HasSubstr("--bytes-per-second have no effect: only ranks that"));
  }
}

TEST_F(RunCommandTest, ValidateNamesEveryErrorOrSaysOk) {
  Program good = Troupe({"validate", "job.yaml"});
  EXPECT_EQ(good.Wait(), 0);
  EXPECT_EQ(good.err(), "job.yaml: ok\n");
  EXPECT_EQ(good.out(), "");
  Program bad = Troupe({"validate", "job.yaml", "--set", "kind=x", "--set", "train.steps=0"});
  EXPECT_EQ(bad.Wait(), 2);
  EXPECT_EQ(bad.err(),
            "--set kind=x: kind = x: use pretrain, evaluate or sample\n"
            "--set train.steps=0: train.steps = 0: use 1 or more\n");
  Program infeasible = Troupe({"validate", "job.yaml", "--set", "parallelism.pp=5"});
  EXPECT_EQ(infeasible.Wait(), 3);
  EXPECT_THAT(infeasible.err(), HasSubstr("parallelism.pp = 5 needs as many layers"));
}

}  // namespace
}  // namespace troupe

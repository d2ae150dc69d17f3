// Real runs: coordinator, agent and rank processes over shared memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

using testing::Disturbed;
using ::testing::HasSubstr;
using ::testing::Not;

class RunTest : public testing::TroupeTest {
 protected:
  static std::vector<std::string> Steps(const std::string& output) {
    return testing::StepsOf(output);
  }

  // The values of `key` in the output of `-o jsonl`.
  static std::vector<double> Numbers(const std::string& output, const std::string& key) {
    const std::string before = "\"" + key + "\":";
    std::vector<double> numbers;
    for (size_t at = output.find(before); at != std::string::npos; at = output.find(before, at)) {
      at += before.size();
      numbers.push_back(std::stod(output.substr(at, 32)));
    }
    return numbers;
  }
};

TEST_F(RunTest, EveryLayoutPrintsTheSameSteps) {
  const auto one = Troupe("run job.yaml -o jsonl --set parallelism.pp=1 --run-dir a 2>/dev/null");
  ASSERT_EQ(one.exit_code, 0) << one.output;
  const auto expected = Steps(one.output);
  ASSERT_EQ(expected.size(), 6u) << one.output;
  EXPECT_THAT(one.output, HasSubstr(R"({"event":"result","state":"SUCCEEDED","exit_code":0)"));
  for (const std::string layout : {"parallelism.pp=2", "parallelism.pp=3",
                                   "parallelism.pp=4 --set parallelism.schedule=afab"}) {
    const auto many =
        Troupe("run job.yaml -o jsonl --set " + layout + " --run-dir b --overwrite 2>/dev/null");
    ASSERT_EQ(many.exit_code, 0) << layout << "\n" << many.output;
    EXPECT_EQ(Steps(many.output), expected) << layout;
  }
}

TEST_F(RunTest, ComparesWithOneWorkerAndSamples) {
  const auto run = Troupe(
      "run job.yaml --set eval.check_against=single_worker --set eval.every=3 "
      "--set eval.sample.prompt=a --set eval.sample.tokens=4 "
      "--set model.tie_word_embeddings=true --run-dir a 2>&1");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("parity with 1 worker: 6 losses, 6 gradient norms and 38 "
                                    "parameters bit-equal"));
  EXPECT_THAT(run.output, HasSubstr("val/loss"));
  EXPECT_THAT(run.output, HasSubstr("sampled:"));
}

// The weights of a run, by a job that trains nothing.
TEST_F(RunTest, SamplesExportedWeights) {
  const std::string sample = "--set eval.sample.prompt=a --set eval.sample.tokens=12 ";
  const auto run =
      Troupe("run job.yaml " + sample + "--set checkpoint.save_hf=true --run-dir a 2>&1");
  const auto alone = Troupe("run job.yaml --set kind=sample --set model.init_from=a/hf " + sample +
                            "--set parallelism.pp=2 --run-dir b 2>&1");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  ASSERT_EQ(alone.exit_code, 0) << alone.output;
  const auto sampled = [](const std::string& output) {
    const size_t at = output.find("sampled:");
    return at == std::string::npos ? "" : output.substr(at, output.find("\n\n", at) - at);
  };
  EXPECT_EQ(sampled(alone.output), sampled(run.output));
  EXPECT_THAT(sampled(run.output), HasSubstr("sampled:"));
}

// Batches of 256 tokens in plain order, in which dots do not count; the second holds nothing else.
TEST_F(RunTest, AStepInWhichNoLabelCountsIsSaidAndSkippedInAnyLayout) {
  std::string text;
  for (int i = 0; i <= 6 * 256; ++i) {
    const bool dot = i / 256 == 1 || i % 7 == 0 || i % 500 < 90;
    text.push_back(dot ? '.' : static_cast<char>('a' + i * i % 23));
  }
  folder_.Write("dots.txt", text);
  const auto run = Troupe(
      "run job.yaml -o jsonl --set data.train=dots.txt data.val_fraction=0 data.shuffle=false "
      "data.ignore_label=46 "
      "parallelism.pp=2 parallelism.dp=2 eval.check_against=single_worker --run-dir a 2>&1");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const auto steps = Steps(run.output);
  ASSERT_EQ(steps.size(), 6u) << run.output;
  for (size_t step = 0; step < 6; ++step) {
    const bool skipped = steps[step].find(R"("loss":null,"grad_norm":null)") != std::string::npos;
    EXPECT_EQ(skipped, step == 1) << steps[step];
  }
  EXPECT_THAT(run.output, HasSubstr("parity with 1 worker: 5 losses, 5 gradient norms and "));
  EXPECT_THAT(run.output, HasSubstr("step 2 has no label that counts (data.ignore_label = 46): "
                                    "skipped, no update"));
}

TEST_F(RunTest, BFloat16TrainsBitEqualToo) {
  const auto run = Troupe(
      "run job.yaml --set train.dtype=bfloat16 --set eval.check_against=single_worker "
      "--run-dir a 2>&1");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("bit-equal"));
}

TEST_F(RunTest, TheSameBitsWithoutAvx512) {
  const std::string limit = "ONEDNN_MAX_CPU_ISA=AVX2 ";
  for (const std::string dtype : {"float32", "bfloat16"}) {
    const auto run =
        testing::Shell("cd " + folder_.path() + " && " + limit +
                       TROUPE_BINARY_DIR "/bin/troupe run job.yaml --set train.dtype=" + dtype +
                       " --set eval.check_against=single_worker --run-dir a --overwrite 2>&1");
    EXPECT_EQ(run.exit_code, 0) << run.output;
    EXPECT_THAT(run.output, HasSubstr("bit-equal"));
  }
}

// What training for a while comes to does not hang on the dtype of its arithmetic: the job of
// `./run demo`, half as long, without what it does beside training, on one worker (any layout
// computes the same).
TEST_F(RunTest, BFloat16TrainsTheExampleAsFarAsFloat32) {
  const auto runs = testing::Shell("cd " + folder_.path() +
                                   " && sed '/^eval:/,$d' " TROUPE_SOURCE_DIR
                                   R"(/examples/pretrain-tiny.yaml >example.yaml
      for dtype in float32 bfloat16; do
        )" TROUPE_BINARY_DIR R"(/bin/troupe run example.yaml -o jsonl --set train.steps=100 \
          --set train.dtype=$dtype parallelism.pp=1 parallelism.dp=1 \
          --run-dir $dtype >$dtype.out 2>&1 &
      done
      wait)");
  std::vector<double> losses;
  for (const std::string dtype : {"float32", "bfloat16"}) {
    const std::string output = testing::Shell("cat " + (folder_ / (dtype + ".out"))).output;
    const auto steps = Numbers(output, "loss");
    ASSERT_EQ(steps.size(), 100u) << output;
    EXPECT_LT(steps.back(), 0.6 * steps.front()) << dtype << " has learned nothing";
    losses.push_back(steps.back());
  }
  EXPECT_NE(losses[1], losses[0]) << "the arithmetic is the same";
  EXPECT_NEAR(losses[1], losses[0], 0.002 * losses[0]);
}

// stop_after, then on under another pipeline: the steps and the weights of the run that was never
// interrupted.
TEST_F(RunTest, AResumedRunGoesOnBitForBit) {
  const std::string save =
      " --set checkpoint.save_hf=true --set train.steps=12 --set eval.every=12 ";
  const auto whole =
      Troupe("run job.yaml -o jsonl --set parallelism.pp=1 --run-dir whole" + save + "2>/dev/null");
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  const auto first = Troupe("run job.yaml -o jsonl --set parallelism.pp=2 --run-dir parts" + save +
                            "--set train.stop_after=5 2>/dev/null");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  testing::Shell("cd " + folder_.path() + " && cp -r parts/checkpoints/step-00000005 kept");
  const auto second = Troupe("run job.yaml -o jsonl --set parallelism.pp=4 --run-dir parts" + save +
                             "--resume 2>&1");
  ASSERT_EQ(second.exit_code, 0) << second.output;
  std::vector<std::string> steps = Steps(first.output);
  EXPECT_EQ(steps.size(), 5u);
  for (const std::string& step : Steps(second.output)) steps.push_back(step);
  EXPECT_EQ(steps, Steps(whole.output));
  // On one worker the last checkpoint is one file: its bytes are the whole run's.
  const auto single =
      Troupe("run job.yaml --set parallelism.pp=1 --run-dir single" + save + "--resume kept 2>&1");
  ASSERT_EQ(single.exit_code, 0) << single.output;
  for (const std::string path :
       {"/checkpoints/step-00000012/tensors-00001-of-00001.safetensors",
        "/checkpoints/step-00000012/optim-00001-of-00001.safetensors", "/hf/model.safetensors"}) {
    const auto same = testing::Shell("cd " + folder_.path() + " && cmp whole" + path + " single" +
                                     path + " 2>&1");
    EXPECT_EQ(same.exit_code, 0) << same.output;
  }
  // The exported model starts another run: what it loses on the validation data after a step too
  // small to change a weight is what the trained weights lost.
  const auto exported = Troupe(
      "run job.yaml -o jsonl --set model.init_from=parts/hf --set parallelism.pp=3 "
      "--set train.steps=1 --set optimizer.lr=1e-30 --set eval.every=1 --run-dir again 2>&1");
  EXPECT_EQ(exported.exit_code, 0) << exported.output;
  EXPECT_EQ(Numbers(whole.output, "val/loss").size(), 2u) << "the step's and the result's";
  EXPECT_EQ(Numbers(exported.output, "val/loss"), Numbers(whole.output, "val/loss"));
  const auto evaluated = Troupe(
      "run job.yaml -o jsonl --set kind=evaluate --set model.init_from=parts/hf "
      "--set parallelism.pp=2 --run-dir evaluation 2>&1");
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
  EXPECT_EQ(Numbers(evaluated.output, "val/loss"), Numbers(whole.output, "val/loss"));
  const auto refused = Troupe(
      "run job.yaml --set optimizer.lr=0.5 --set train.steps=20 --run-dir parts --resume 2>&1");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.output, HasSubstr("optimizer.lr was 0.001, is 0.5"));
}

// A run that starts before its folder's checkpoints keeps its own, and they are what is resumed.
TEST_F(RunTest, ALaterCheckpointThatARunLeavesBehindIsSetAside) {
  const std::string options =
      "run job.yaml --set checkpoint.every=2 --set checkpoint.keep=9 --run-dir a ";
  const auto first = Troupe(options + "2>&1");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  const auto back =
      Troupe(options + "--resume a/checkpoints/step-00000002 --set train.stop_after=4 2>&1");
  ASSERT_EQ(back.exit_code, 0) << back.output;
  EXPECT_THAT(
      back.output,
      HasSubstr("this run starts from step 2: the later checkpoints of its folder are now "
                "in " +
                folder_.path() + "/a/checkpoints/abandoned-1, which stays until you remove it\n"));
  const auto left =
      testing::Shell("cd " + folder_.path() + "/a/checkpoints && ls -d step-* abandoned-1/*");
  EXPECT_EQ(left.output,
            "abandoned-1/step-00000004\nabandoned-1/step-00000006\nstep-00000002\n"
            "step-00000004\n");
  const auto resumed = Troupe(options + "-o jsonl --resume 2>/dev/null");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_EQ(Steps(resumed.output).size(), 2u) << resumed.output;
}

// Only a run that can begin moves the checkpoints of the one before.
TEST_F(RunTest, ARunThatCannotBeginLeavesTheCheckpointsOfItsFolder) {
  const auto first = Troupe("run job.yaml --run-dir a 2>&1");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  const auto before = testing::Shell("ls -R " + folder_.path() + "/a/checkpoints");
  const auto fresh = Troupe("run job.yaml --run-dir a --set model.vocab_size=64 2>&1");
  EXPECT_EQ(fresh.exit_code, 2) << fresh.output;
  EXPECT_THAT(fresh.output, HasSubstr("vocab_size"));
  EXPECT_EQ(testing::Shell("ls -R " + folder_.path() + "/a/checkpoints").output, before.output);
}

// The run that goes on becomes `latest` itself while it reads the checkpoint of the one before.
TEST_F(RunTest, ARunGoesOnFromTheLatest) {
  const auto first = Troupe("run job.yaml 2>&1");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  const auto second =
      Troupe("run job.yaml -o jsonl --set train.steps=8 --resume runs/small/latest 2>/dev/null");
  ASSERT_EQ(second.exit_code, 0) << second.output;
  EXPECT_EQ(Steps(second.output).size(), 2u) << second.output;
  const auto runs = testing::Shell("cd " + folder_.path() +
                                   "/runs/small && ls -d 2* | wc -l && "
                                   "grep -c . latest/metrics.jsonl");
  EXPECT_EQ(runs.output, "2\n2\n") << "the second run is the latest";
}

TEST_F(RunTest, AFullDiskEndsTheJobWithASentence) {
  const std::string disk = folder_.path() + "/disk";
  const auto mounted =
      testing::Shell("mkdir " + disk + " && mount -t tmpfs -o size=200k tmpfs " + disk + " 2>&1");
  if (mounted.exit_code != 0) GTEST_SKIP() << "no small disk can be mounted: " << mounted.output;
  const auto run = Troupe("run job.yaml --set checkpoint.every=3 --run-dir disk/run 2>&1");
  EXPECT_EQ(run.exit_code, 1) << run.output;
  EXPECT_THAT(run.output, HasSubstr("No space left on device"));
  EXPECT_THAT(run.output, HasSubstr("checkpoint"));
  const auto left = testing::Shell("ls -A " + disk + "/run/checkpoints " + disk +
                                   "/run | grep -E 'step-|partial'; umount " + disk);
  EXPECT_EQ(left.output, "");
}

// The ranks measure, the coordinator decides, and what ran is a file that runs again as it was.
TEST_F(RunTest, AutoDecidesAndItsStepsCanBeRunAgain) {
  const std::string check = " --set eval.check_against=single_worker ";
  const auto chosen =
      Troupe("run job.yaml --set parallelism.schedule=auto --run-dir a" + check + "2>&1");
  ASSERT_EQ(chosen.exit_code, 0) << chosen.output;
  EXPECT_THAT(chosen.output, HasSubstr("[rank 0] schedule auto: "));
  EXPECT_THAT(chosen.output, HasSubstr("bit-equal"));
  const auto again =
      Troupe("run job.yaml --set parallelism.schedule_csv=a/schedule.csv --run-dir b" + check +
             "2>&1 && cmp a/schedule.csv b/schedule.csv");
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_THAT(again.output, HasSubstr("bit-equal"));
}

// Stops a process four fifths of the time until it is gone, also where this thread is woken late;
// never for so long that its peers think it lost.
void SlowDown(pid_t pid) {
  using Clock = std::chrono::steady_clock;
  constexpr int kTimesSlower = 5;
  constexpr Clock::duration kLongest = std::chrono::seconds(1);
  Clock::time_point went_on = Clock::now();
  while (::kill(pid, SIGSTOP) == 0) {
    std::this_thread::sleep_for(std::min(kLongest, (kTimesSlower - 1) * (Clock::now() - went_on)));
    went_on = Clock::now();
    ::kill(pid, SIGCONT);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// A rank that stays slow loses layers at a checkpoint, where it ends and another takes its place;
// nothing that is computed changes. Its actions take several stops each: what a vote says of a
// stage is the median over the microbatches, which forgets a single one.
TEST_F(RunTest, LayersMoveOffARankThatStaysSlow) {
  const std::string in_folder = "cd " + folder_.path() + " && ";
  auto running = std::async(std::launch::async, [&] {
    return testing::Shell(
        in_folder +
        "{ " TROUPE_BINARY_DIR
        R"(/bin/troupe run job.yaml --set parallelism.pp=2 --set parallelism.rebalance=true \
          --set model.num_hidden_layers=8 --set model.hidden_size=128 \
          --set model.intermediate_size=384 --set batch.micro_batch_size=8 \
          --set batch.global_batch_size=32 --set train.steps=40 --set checkpoint.every=4 \
          --set eval.check_against=single_worker --run-dir a >out 2>&1 &
        echo $! >pid; wait $!; echo "code $?"; cat out; })");
  });
  // From its start on, so that no step is over before it is slow.
  const auto slow = testing::Shell(in_folder + R"(
      until [ -s pid ]; do sleep 0.05; done; run=$(cat pid)
      until ranks=$(pgrep -P $(pgrep -P $run -f 'troupe worker') 2>/dev/null) &&
            [ $(echo "$ranks" | wc -l) = 2 ] || ! kill -0 $run 2>/dev/null; do sleep 0.05; done
      echo "$ranks" | tail -1)");
  const pid_t pid = std::atoi(slow.output.c_str());
  if (pid > 0) SlowDown(pid);
  const testing::ShellResult run = running.get();
  EXPECT_THAT(run.output, HasSubstr("code 0\n")) << slow.output;
  EXPECT_THAT(run.output, HasSubstr("rank 1 takes "));
  EXPECT_THAT(run.output, HasSubstr("[4, 4] layers a stage become ["));
  EXPECT_THAT(run.output, HasSubstr("parity with 1 worker: 40 losses, 40 gradient norms"));
}

TEST_F(RunTest, BadJobsAreRefusedInOneSentence) {
  const struct {
    std::string set;
    std::string sentence;
    int exit_code = 2;
  } cases[] = {
      {"parallelism.pp=5", "parallelism.pp = 5 needs as many layers", 3},
      {"model.num_attention_heads=5", "does not divide"},
      {"batch.global_batch_size=7", "batch.global_batch_size = 7 is not a multiple"},
      {"data.train=nowhere.txt", "nowhere.txt"},
      {"batch.seq_len=60000", "needs batch.seq_len + 1"},
      {"trian.steps=1", "did you mean train?"},
      {"train.dtype=float16", "train.dtype = float16: use float32 or bfloat16"},
  };
  for (const auto& c : cases) {
    const auto run = Troupe("run job.yaml --run-dir x --set " + c.set + " 2>&1");
    EXPECT_EQ(run.exit_code, c.exit_code) << c.set << "\n" << run.output;
    EXPECT_THAT(run.output, HasSubstr(c.sentence)) << c.set;
  }
}

TEST_F(RunTest, EveryErrorOfAJobFileHasItsPlace) {
  folder_.Write("bad.yaml",
                "extends: job.yaml\n"
                "name: .hidden\n"
                "train:\n"
                "  steps: 0\n"
                "  dtype: float16\n");
  const auto bad = Troupe("validate bad.yaml --set data.train=nowhere.txt 2>&1");
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.output, HasSubstr("bad.yaml:2:7: name = .hidden: use up to 100 letters"));
  EXPECT_THAT(bad.output, HasSubstr("bad.yaml:4:10: train.steps = 0: use 1 or more\n"));
  EXPECT_THAT(bad.output, HasSubstr("bad.yaml:5:10: train.dtype = float16: use float32 or"));
  EXPECT_THAT(bad.output, HasSubstr("--set data.train=nowhere.txt: data.train = /"));
  folder_.Write("base.yaml", std::string(testing::kSmallJob) + "checkpoint: {keep: 0}\n");
  folder_.Write("child.yaml", "extends: base.yaml\n");
  const auto inherited = Troupe("run child.yaml 2>&1");
  EXPECT_EQ(inherited.exit_code, 2);
  EXPECT_EQ(inherited.output, "base.yaml:10:20: checkpoint.keep = 0: use 1 or more\n");
  const auto unwhole = Troupe("plan job.yaml --set train.steps=1e3 2>&1");
  EXPECT_EQ(unwhole.exit_code, 2);
  EXPECT_THAT(unwhole.output, HasSubstr("write 1000"));
  const auto good = Troupe("validate job.yaml 2>&1");
  EXPECT_EQ(good.exit_code, 0);
  EXPECT_EQ(good.output,
            "warning: job.yaml:5:39: data.val_fraction = 0.2 keeps data from training, and "
            "eval.every = 0 evaluates on none\njob.yaml: ok\n");
}

TEST_F(RunTest, AKilledWorkerEndsTheJobWithItsName) {
  const auto run = testing::Shell(Disturbed(folder_.path(), "kill -9 $rank"));
  EXPECT_THAT(run.output, HasSubstr("code 5\n")) << run.output;
  EXPECT_THAT(run.output, HasSubstr("was killed by signal 9 (SIGKILL) at step "));
  EXPECT_THAT(run.output, ::testing::ContainsRegex(
                              "rank [0-3] \\(host .*, pid [0-9]+\\) was killed by signal 9 "
                              "\\(SIGKILL\\) at step [0-9]+ during [A-Za-z]+"));
}

TEST_F(RunTest, AnInterruptEndsBetweenTwoSteps) {
  testing::Shell("cd " + folder_.path() + " && cp text.txt other.txt");
  const auto run =
      testing::Shell(Disturbed(folder_.path(), "kill -INT $run",
                               "--set 'optimizer.betas=[0.8, 0.9]' --set data.train=other.txt"));
  EXPECT_THAT(run.output, HasSubstr("code 130\n")) << run.output;
  EXPECT_THAT(run.output, HasSubstr("cancelled"));
  // The command that it prints goes on, here for two steps, with all that the run was given.
  const auto resumed =
      testing::Shell("cd " + folder_.path() +
                     " && last=$(sed 's/.*-0*//' a/checkpoints/latest) && "
                     "command=$(sed -n 's/^step [0-9]* is committed; go on with: //p' out) && "
                     "eval \"$command --set train.stop_after=$((last + 2)) -o jsonl 2>&1\"");
  EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_EQ(Steps(resumed.output).size(), 2u) << resumed.output;
}

TEST_F(RunTest, ASecondInterruptEndsAtOnce) {
  // The first asks for a stop with a checkpoint, which a rank that hangs keeps from coming.
  const auto run = testing::Shell(
      Disturbed(folder_.path(),
                "kill -STOP $rank; kill -INT $run\n" +
                    testing::AwaitLine("^stopping after", "out", "$run") + "kill -INT $run",
                "--set resources.peer_silence_seconds=1000"));
  EXPECT_THAT(run.output, HasSubstr("code 130\n")) << run.output;
  EXPECT_THAT(run.output, HasSubstr("stopping at once"));
  EXPECT_THAT(run.output, Not(HasSubstr("go on with: ")));
  EXPECT_EQ(testing::Shell("ls " + folder_ / "a/checkpoints | grep step-").output, "");
}

// Its peers wait for it and say so; nobody else would end the job for a long time. It is the rank
// that begins the steps: between two of them the others wait for it, too.
TEST_F(RunTest, AJobThatStandsStillEndsWithTheRootOfItsWaits) {
  const auto run = testing::Shell(Disturbed(folder_.path(), "kill -STOP $rank; echo stopped $rank",
                                            "--set resources.peer_silence_seconds=1000 "
                                            "--set resources.hang_seconds=10"));
  EXPECT_THAT(run.output, HasSubstr("code 5\n")) << run.output;
  EXPECT_THAT(run.output, ::testing::ContainsRegex("deadline 5000 ms passed"));
  EXPECT_THAT(run.output, ::testing::ContainsRegex(
                              "failed: nothing has moved for [0-9]+ s \\(resources.hang_seconds = "
                              "10\\): rank [0-3] \\(host .*, pid [0-9]+\\) has said nothing for "
                              "[0-9]+ s at step [0-9]+ .*it is stopped \\(SIGSTOP\\)"));
  const std::string pid = run.output.substr(run.output.find("stopped ") + 8);
  EXPECT_THAT(run.output, HasSubstr(", pid " + std::to_string(std::atoi(pid.c_str())) +
                                    ") has said nothing for"));
}

TEST_F(RunTest, NoRankOutlivesItsAgent) {
  const auto run = testing::Shell(Disturbed(
      folder_.path(), "ranks=$(pgrep -P $agent); kill -9 $agent\n" + testing::AwaitEnd("$ranks")));
  EXPECT_THAT(run.output, HasSubstr("code 5\n")) << run.output;
  EXPECT_THAT(run.output, Not(HasSubstr("alive")));
}

TEST_F(RunTest, NothingOutlivesARunThatIsKilled) {
  const auto run = testing::Shell(Disturbed(
      folder_.path(),
      "all=\"$(pgrep -P $run) $(pgrep -P $agent)\"; kill -9 $run\n" + testing::AwaitEnd("$all")));
  EXPECT_THAT(run.output, HasSubstr("code 137\n")) << run.output;
  EXPECT_THAT(run.output, Not(HasSubstr("alive")));
}

}  // namespace
}  // namespace troupe

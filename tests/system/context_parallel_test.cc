// Real runs whose ranks share sequences: against one worker, twice, resumed under other layouts,
// and with a rank that is killed or stopped in the middle of attention.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

using ::testing::ContainsRegex;
using testing::Disturbed;
using ::testing::HasSubstr;

// Every method with every layout that it takes, beside every other way to share a job out.
const std::vector<std::string> kLayouts = {
    "parallelism.pp=1 parallelism.cp=2",
    "parallelism.pp=1 parallelism.cp=4 parallelism.cp_load_balance=contiguous",
    "parallelism.pp=2 parallelism.cp=2 parallelism.cp_load_balance=striped "
    "parallelism.schedule=zb-h1",
    "parallelism.pp=2 parallelism.dp=2 parallelism.cp=2 parallelism.zero_stage=3",
    "parallelism.pp=1 parallelism.cp=3 parallelism.zero_stage=2 batch.seq_len=48",
    "parallelism.pp=1 parallelism.dp=2 parallelism.cp=2 parallelism.cp_method=all_gather "
    "parallelism.zero_stage=1",
    "parallelism.pp=2 parallelism.cp=2 parallelism.cp_method=all_gather "
    "parallelism.cp_load_balance=contiguous",
    "parallelism.pp=1 parallelism.cp=4 parallelism.cp_method=all_gather "
    "parallelism.cp_load_balance=striped parallelism.zero_stage=3",
    "parallelism.pp=1 parallelism.cp=2 parallelism.cp_method=ulysses parallelism.zero_stage=3",
    "parallelism.pp=2 parallelism.cp=4 parallelism.cp_method=ulysses",  // of two heads of keys
    // The first rank of a group decides what the others start.
    "parallelism.pp=2 parallelism.cp=2 parallelism.schedule=dynamic",
    "parallelism.pp=2 parallelism.dp=2 parallelism.cp=2 parallelism.schedule=zb-h1 "
    "parallelism.executor=guided parallelism.activation_slack=1 parallelism.zero_stage=1",
    "parallelism.pp=2 parallelism.cp=2 parallelism.schedule=dualpipe-v",
    "parallelism.pp=1 parallelism.cp=2 train.recompute=full",
    "parallelism.pp=2 parallelism.cp=2 train.recompute=attention parallelism.cp_method=all_gather",
    "parallelism.pp=1 parallelism.cp=2 data.document_separator=10",
    "parallelism.pp=2 parallelism.cp=2 train.dtype=bfloat16"};

class ContextParallelTest : public testing::TroupeTest {
 protected:
  // A model whose steps are attention for the most part: what a rank does is a hop of some layer.
  static std::string Long() {
    return " --set model.max_position_embeddings=4096 batch.seq_len=4096 batch.micro_batch_size=1 "
           "batch.global_batch_size=2 data.train=long.txt data.val_fraction=0 parallelism.pp=1 "
           "parallelism.cp=2 checkpoint.every=0 ";
  }
  void WriteLongText() {
    std::string text;
    for (int i = 0; i < 2000; ++i)
      text += "ranks that share a sequence " + std::to_string(i) + "\n";
    folder_.Write("long.txt", text);
  }
  struct Steps {
    std::vector<double> losses{}, norms{};
  };
  // Adds those of a run.
  static void AddSteps(const std::string& output, Steps& steps) {
    const auto number = [](const std::string& step, const std::string& key) {
      return std::stod(step.substr(step.find(key) + key.size()));
    };
    for (const std::string& step : testing::StepsOf(output)) {
      steps.losses.push_back(number(step, "\"loss\":"));
      steps.norms.push_back(number(step, "\"grad_norm\":"));
    }
  }
  // Disturbs a run until it was in the middle of attention then; gives what the last one printed.
  std::string DisturbedInAttention(const std::string& then, const std::string& options) {
    std::string output;
    for (int attempt = 0; attempt < 5; ++attempt) {
      const std::string timed =
          "rank=$(pgrep -P $agent | tail -1); began=$(date +%s%N); " + then +
          "; wait $run; code=$?; " +
          "echo \"took $(( ($(date +%s%N) - began) / 1000000 )) ms, code $code\"";
      output = testing::Shell("cd " + folder_.path() + " && rm -rf a out; " +
                              Disturbed(folder_.path(), timed, Long() + options))
                   .output;
      if (output.find(", hop ") != std::string::npos) break;
    }
    return output;
  }
  static int64_t TookMs(const std::string& output) {
    const size_t at = output.find("took ");
    return at == std::string::npos ? -1 : std::atoll(output.c_str() + at + 5);
  }
};

TEST_F(ContextParallelTest, ComputesWhatOneWorkerComputes) {
  for (const std::string& layout : kLayouts) {
    const auto run = Troupe(
        "run job.yaml --overwrite --run-dir run --set model.tie_word_embeddings=true "
        "train.steps=20 eval.every=5 eval.check_against=single_worker " +
        layout + " 2>&1");
    EXPECT_EQ(run.exit_code, 0) << layout << "\n" << run.output;
    EXPECT_THAT(run.output, HasSubstr("parity with 1 worker: 20 losses within")) << layout;
  }
}

TEST_F(ContextParallelTest, AScheduleFromAFileAndScaledRotationsDoToo) {
  ASSERT_EQ(Troupe("schedule zb-h1 --stages 2 --microbatches 4 -o csv > list.csv").exit_code, 0);
  for (const std::string settings :
       {"parallelism.pp=2 parallelism.schedule_csv=list.csv",
        "parallelism.pp=1 model.rope_scaling.rope_type=llama3 model.rope_scaling.factor=8 "
        "model.rope_scaling.low_freq_factor=1 model.rope_scaling.high_freq_factor=4 "
        "model.rope_scaling.original_max_position_embeddings=16"}) {
    const auto run = Troupe(
        "run job.yaml --overwrite --run-dir run --set parallelism.cp=2 "
        "eval.check_against=single_worker " +
        settings + " 2>&1");
    EXPECT_EQ(run.exit_code, 0) << settings << "\n" << run.output;
    EXPECT_THAT(run.output, HasSubstr("parity with 1 worker: 6 losses within")) << settings;
  }
}

TEST_F(ContextParallelTest, NeedsTheMemoryAndSendsTheBytesThatWerePredicted) {
  for (const std::string& layout : kLayouts) {
    const auto run = Troupe("run job.yaml --overwrite --run-dir run --set " + layout + " 2>&1");
    ASSERT_EQ(run.exit_code, 0) << layout << "\n" << run.output;
    const bool as_listed = layout.find("dynamic") == std::string::npos &&
                           layout.find("activation_slack") == std::string::npos;
    CheckMemory(static_cast<int>(ReadJson("run/memory.json")["ranks"].size()), run.output,
                as_listed);
    CheckCommunication(run.output);
  }
}

// All that a run leaves is the same, bit for bit.
TEST_F(ContextParallelTest, TwoRunsOfOneLayoutAreEqual) {
  for (const std::string& layout : kLayouts) {
    for (const std::string name : {"a", "b"}) {
      const auto run = Troupe("run job.yaml --overwrite -o jsonl --run-dir " + name + " --set " +
                              layout + " >" + name + ".jsonl 2>" + name + ".err");
      ASSERT_EQ(run.exit_code, 0) << layout << "\n"
                                  << testing::Shell("cat " + folder_ / "a.err").output;
    }
    const auto read = [&](const std::string& name) {
      return testing::StepsOf(testing::Shell("cat " + folder_ / (name + ".jsonl")).output);
    };
    EXPECT_EQ(read("a").size(), 6u) << layout;
    EXPECT_EQ(read("a"), read("b")) << layout;
    const auto same = testing::Shell("cd " + folder_.path() +
                                     " && for f in a/checkpoints/step-00000006/*.safetensors; do "
                                     "cmp $f b${f#a} || exit 1; done 2>&1");
    EXPECT_EQ(same.exit_code, 0) << layout << "\n" << same.output;
  }
}

// What it saves is whole tensors and leaves of them: nothing of how many ranks shared a sequence.
TEST_F(ContextParallelTest, AnyOtherLayoutGoesOn) {
  const std::string save = " --set train.steps=12 ";
  const auto whole =
      Troupe("run job.yaml -o jsonl --run-dir whole" + save + "parallelism.pp=1 2>/dev/null");
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  Steps expected, steps;
  AddSteps(whole.output, expected);
  for (const std::string part :
       {"parallelism.pp=2 parallelism.dp=2 parallelism.cp=2 parallelism.zero_stage=3 "
        "train.stop_after=2",
        "parallelism.pp=1 parallelism.dp=2 train.stop_after=4",
        "parallelism.pp=1 parallelism.cp=4 parallelism.zero_stage=1 train.stop_after=6",
        "parallelism.pp=1 parallelism.cp=2 parallelism.cp_method=ulysses train.stop_after=8",
        "parallelism.pp=2 parallelism.cp=2 parallelism.cp_method=all_gather train.stop_after=10",
        "parallelism.pp=1"}) {
    const std::string resume = steps.losses.empty() ? "" : " --resume";
    const auto run =
        Troupe("run job.yaml -o jsonl --run-dir parts" + resume + save + part + " 2>&1");
    ASSERT_EQ(run.exit_code, 0) << part << "\n" << run.output;
    AddSteps(run.output, steps);
  }
  ASSERT_EQ(steps.losses.size(), expected.losses.size());
  for (size_t i = 0; i < steps.losses.size(); ++i) {
    const double loss = expected.losses[i], norm = expected.norms[i];
    EXPECT_NEAR(steps.losses[i], loss, 1e-5 * loss) << "step " << i + 1;
    EXPECT_NEAR(steps.norms[i], norm, 1e-4 * norm) << "step " << i + 1;
  }
}

TEST_F(ContextParallelTest, AWorkerKilledBetweenTwoHopsEndsTheJobByLayerAndHop) {
  WriteLongText();
  const std::string output = DisturbedInAttention("kill -9 $rank", "");
  EXPECT_THAT(output, HasSubstr(" ms, code 5\n")) << output;
  EXPECT_THAT(output,
              ContainsRegex("rank 1 \\(host .*, pid [0-9]+\\) was killed by signal 9 "
                            "\\(SIGKILL\\) at step [0-9]+ during .*layer [0-3].* hop [0-9]"));
  EXPECT_LE(TookMs(output), 5000) << output;
}

// It is told of after two seconds, and ends the job after peer_silence_seconds: here the fewest.
TEST_F(ContextParallelTest, AWorkerStoppedBetweenTwoHopsEndsTheJobByLayerAndHop) {
  WriteLongText();
  const std::string output =
      DisturbedInAttention("kill -STOP $rank", "resources.peer_silence_seconds=3");
  EXPECT_THAT(output, HasSubstr(" ms, code 5\n")) << output;
  EXPECT_THAT(output, ContainsRegex("rank 1 \\(host .*, pid [0-9]+\\) has said nothing for 3 s at "
                                    "step [0-9]+ during .*layer [0-3].* hop [0-9].*it is stopped "
                                    "\\(SIGSTOP\\)"));
  EXPECT_LE(TookMs(output), 5000) << output;
}

}  // namespace
}  // namespace troupe

// Real runs of data-parallel pipelines, with and without shared optimizer state: what one worker
// computes, saved and taken up by any other of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class DataParallelTest : public testing::TroupeTest {
 protected:
  // In parts, each under another layout, against one run of one worker.
  void GoOn(const std::string& dtype, const std::string& grad_reduce, int groups,
            const std::vector<std::string>& layouts) {
    testing::Shell("cd " + folder_.path() + " && rm -rf whole parts");
    const std::string save =
        " --set checkpoint.save_hf=true train.steps=12 batch.gradient_groups=" +
        std::to_string(groups) + " train.dtype=" + dtype +
        " parallelism.grad_reduce=" + grad_reduce + " ";
    const auto whole =
        Troupe("run job.yaml -o jsonl --run-dir whole" + save + "parallelism.pp=1 2>/dev/null");
    ASSERT_EQ(whole.exit_code, 0) << whole.output;
    std::vector<std::string> steps;
    for (const std::string& part : layouts) {
      const std::string resume = steps.empty() ? "" : " --resume";
      const auto run =
          Troupe("run job.yaml -o jsonl --run-dir parts" + resume + save + part + " 2>/dev/null");
      ASSERT_EQ(run.exit_code, 0) << part << "\n" << run.output;
      for (const std::string& step : testing::StepsOf(run.output)) steps.push_back(step);
    }
    EXPECT_EQ(steps, testing::StepsOf(whole.output)) << dtype;
    for (const std::string path :
         {"/checkpoints/step-00000012/tensors-00001-of-00001.safetensors",
          "/checkpoints/step-00000012/optim-00001-of-00001.safetensors", "/hf/model.safetensors"}) {
      const auto same = testing::Shell("cd " + folder_.path() + " && cmp whole" + path + " parts" +
                                       path + " 2>&1");
      EXPECT_EQ(same.exit_code, 0) << dtype << "\n" << same.output;
    }
  }

  void ExportsTheSameFolder(const std::string& dtype, const std::string& zero_stage) {
    const std::string save =
        " --overwrite --set checkpoint.save_hf=true parallelism.grad_reduce=step train.dtype=" +
        dtype + " ";
    const auto one = Troupe("run job.yaml --run-dir one" + save +
                            "parallelism.pp=2 batch.gradient_groups=2 2>&1");
    const auto many =
        Troupe("run job.yaml --run-dir many" + save +
               "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=" + zero_stage + " 2>&1");
    ASSERT_EQ(one.exit_code, 0) << one.output;
    ASSERT_EQ(many.exit_code, 0) << many.output;
    const auto same =
        testing::Shell("cd " + folder_.path() + " && diff -r one/hf many/hf && ls many/hf 2>&1");
    EXPECT_EQ(same.exit_code, 0) << same.output;
    EXPECT_THAT(same.output, HasSubstr("model-00002-of-00002.safetensors"));
  }
};

TEST_F(DataParallelTest, ComputesWhatOneWorkerComputes) {
  for (const std::string layout :
       {"parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=1",
        "parallelism.pp=2 parallelism.dp=2 parallelism.schedule=zb-h1",
        "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=1 train.dtype=bfloat16",
        "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=2",
        "parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=3 train.dtype=bfloat16",
        "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=3 parallelism.schedule=zb-h1",
        "parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=3 parallelism.grad_reduce=step "
        "parallelism.zero_prefetch=0",
        "parallelism.pp=1 parallelism.dp=4 parallelism.zero_stage=3 "
        "parallelism.reshard_after_forward=false",
        "parallelism.pp=1 parallelism.dp=4 parallelism.zero_stage=3 parallelism.zero_group=2 "
        "parallelism.persist_elements=100 train.grad_dtype=bfloat16 train.dtype=bfloat16",
        "parallelism.pp=1 parallelism.dp=4 parallelism.zero_stage=2 parallelism.zero_group=2",
        "parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=1 "
        "parallelism.persist_elements=2000 train.grad_dtype=bfloat16",
        "parallelism.pp=1 parallelism.dp=2 data_parallel.algorithm=reduce_broadcast",
        "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=1 batch.global_batch_size=16 "
        "parallelism.schedule=dualpipe"}) {
    const auto run = Troupe(
        "run job.yaml --overwrite --run-dir a --set model.tie_word_embeddings=true eval.every=3 "
        "eval.check_against=single_worker " +
        layout + " 2>&1");
    EXPECT_EQ(run.exit_code, 0) << layout << "\n" << run.output;
    EXPECT_THAT(run.output, HasSubstr("parity with 1 worker: 6 losses, 6 gradient norms and 38 "
                                      "parameters bit-equal"))
        << layout;
  }
}

// Saved in pieces by four ranks, read by two that keep everything, by two with shards of their own,
// and by one.
TEST_F(DataParallelTest, AnyOtherLayoutGoesOnBitForBit) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    GoOn(dtype, "step", 2,
         {"parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=1 train.stop_after=4",
          "parallelism.pp=1 parallelism.dp=2 train.stop_after=6",
          "parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=3 train.stop_after=8",
          "parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=1 train.stop_after=10",
          "parallelism.pp=1"});
  }
}

// The same where each microbatch's gradients are added up by themselves.
TEST_F(DataParallelTest, AnyOtherLayoutThatReducesEveryMicrobatchGoesOnBitForBit) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    GoOn(dtype, "microbatch", 2,
         {"parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=3 train.stop_after=4",
          "parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=2 train.stop_after=8",
          "parallelism.pp=4 train.stop_after=10", "parallelism.pp=1"});
  }
}

// Parts of a model that persist are saved once, and so are shards that several ranks have.
TEST_F(DataParallelTest, LayoutsWithRepeatedShardsGoOnBitForBit) {
  GoOn("float32", "step", 4,
       {"parallelism.pp=1 parallelism.dp=4 parallelism.zero_stage=3 parallelism.zero_group=2 "
        "train.stop_after=4",
        "parallelism.pp=1 parallelism.dp=4 parallelism.zero_stage=1 "
        "parallelism.persist_elements=2000 train.stop_after=8",
        "parallelism.pp=1 parallelism.dp=4 parallelism.zero_stage=3 "
        "parallelism.persist_elements=100 train.stop_after=10",
        "parallelism.pp=1"});
}

TEST_F(DataParallelTest, RingsComeCloseToOneWorker) {
  const std::string common =
      "run job.yaml --overwrite --run-dir a -o jsonl --set parallelism.pp=1 "
      "parallelism.grad_reduce=step batch.gradient_groups=4 ";
  const auto losses = [&](const std::string& layout) {
    const auto run = Troupe(common + layout + " 2>/dev/null");
    EXPECT_EQ(run.exit_code, 0) << layout;
    std::vector<double> numbers;
    for (const std::string& step : testing::StepsOf(run.output)) {
      numbers.push_back(std::stod(step.substr(step.find("\"loss\":") + 7)));
    }
    EXPECT_EQ(numbers.size(), 6u) << run.output;
    return numbers;
  };
  const std::vector<double> one = losses("");
  for (const std::string layout :
       {"parallelism.dp=4", "parallelism.dp=4 parallelism.zero_stage=3 parallelism.zero_group=2"}) {
    const std::vector<double> many = losses("parallelism.reduction=ring " + layout);
    ASSERT_EQ(many.size(), one.size());
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_NEAR(many[i], one[i], 1e-6 * one[i]) << layout << ", step " << i + 1;
    }
  }
}

// What is in shards, and bfloat16's masters with it: what each rank has is not even. Bytes that are
// sent are predicted exactly, too.
TEST_F(DataParallelTest, NeedsTheMemoryAndSendsTheBytesThatWerePredicted) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    for (const int dp : {2, 3}) {
      for (const int zero_stage : {0, 1, 2, 3}) {
        const auto run = Troupe(
            "run job.yaml --overwrite --run-dir run --set parallelism.pp=1 "
            "batch.global_batch_size=12 model.tie_word_embeddings=true parallelism.dp=" +
            std::to_string(dp) + " parallelism.zero_stage=" + std::to_string(zero_stage) +
            " train.dtype=" + dtype + " 2>&1");
        ASSERT_EQ(run.exit_code, 0) << run.output;
        CheckMemory(dp, run.output);
        CheckCommunication(run.output);
      }
    }
  }
  for (const std::string layout :
       {"parallelism.pp=1 parallelism.dp=4 parallelism.zero_group=2 parallelism.zero_stage=3 "
        "parallelism.persist_elements=100",
        "parallelism.pp=1 parallelism.dp=4 parallelism.zero_group=2 parallelism.zero_stage=1 "
        "train.dtype=bfloat16 train.grad_dtype=bfloat16",
        "parallelism.pp=1 parallelism.dp=4 parallelism.zero_stage=2 train.dtype=bfloat16 "
        "train.grad_dtype=bfloat16 parallelism.persist_elements=2000 parallelism.reduction=ring",
        "parallelism.pp=2 parallelism.dp=2 parallelism.schedule=dualpipe "
        "parallelism.zero_stage=1 batch.global_batch_size=16",
        "parallelism.pp=1 parallelism.dp=4 data_parallel.algorithm=reduce_broadcast"}) {
    const auto run =
        Troupe("run job.yaml --overwrite --run-dir run --set model.tie_word_embeddings=true " +
               layout + " 2>&1");
    ASSERT_EQ(run.exit_code, 0) << layout << "\n" << run.output;
    CheckMemory(4, run.output);
    CheckCommunication(run.output);
  }
}

// The first pipeline exports, from weights that are whole though the state beside them is not, or
// that are gathered for it.
TEST_F(DataParallelTest, ExportsTheSameFolder) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    for (const std::string stage : {"1", "3"}) ExportsTheSameFolder(dtype, stage);
  }
}

// Sums of a unit's gradients begin when the unit is done, in the middle of a backward.
TEST_F(DataParallelTest, SumsBeginBeforeTheBackwardEnds) {
  struct Span {
    double start_us = 0;
    double end_us = 0;
  };
  for (const std::string zero_stage : {"1", "2", "3"}) {
    const auto run = Troupe(
        "run job.yaml --overwrite --run-dir run --set parallelism.pp=1 parallelism.dp=2 "
        "log.trace=true parallelism.zero_stage=" +
        zero_stage + " 2>&1");
    ASSERT_EQ(run.exit_code, 0) << run.output;
    std::vector<Span> backwards, sums;  // of rank 0
    const auto trace = ReadJson("run/trace/step-00000001.json");
    for (const auto& event : trace["traceEvents"]) {
      if (event["ph"] != "X" || event["pid"] != 0) continue;
      const auto name = event["name"].get<std::string>();
      const double start_us = event["ts"].get<double>();
      const Span span{start_us, start_us + event["dur"].get<double>()};
      if (name.starts_with("Backward")) backwards.push_back(span);
      if (name == "gradient reduction") sums.push_back(span);
    }
    const auto within = [&](const Span& sum) {
      return std::ranges::any_of(backwards, [&](const Span& backward) {
        return backward.start_us < sum.start_us && sum.start_us < backward.end_us;
      });
    };
    EXPECT_GE(backwards.size(), 8u) << "two microbatches of four traced steps";
    EXPECT_GE(std::ranges::count_if(sums, within), 4) << zero_stage << ": of the traced steps";
  }
}

// The first unit of a pass is asked for while the pass before it computes, whatever comes then of
// the two: the backward of the same microbatch, the Forward of the next.
TEST_F(DataParallelTest, UnitsAreGatheredAheadOfTheirPass) {
  using Pass = std::tuple<bool, int, int>;  // whether a Forward, step, microbatch
  for (const std::string prefetch : {"0", "1"}) {
    const auto run = Troupe(
        "run job.yaml --overwrite --run-dir run --set parallelism.pp=1 parallelism.dp=2 "
        "parallelism.zero_stage=3 log.trace=true parallelism.zero_prefetch=" +
        prefetch + " 2>&1");
    ASSERT_EQ(run.exit_code, 0) << run.output;
    std::map<Pass, double> asked_us;                       // of rank 0, the first unit of each
    std::vector<std::tuple<double, double, Pass>> passes;  // when they computed
    const auto trace = ReadJson("run/trace/step-00000001.json");
    for (const auto& event : trace["traceEvents"]) {
      if (event["ph"] != "X" || event["pid"] != 0) continue;
      const auto name = event["name"].get<std::string>();
      const bool is_gather = name.starts_with("gather ");
      const bool is_pass = name.starts_with("Forward") || name.starts_with("Backward");
      if (!is_gather && !is_pass) continue;
      const bool forward =
          is_gather ? name.find("for Forward, ") != std::string::npos : name.starts_with("Forward");
      const Pass pass{forward, event["args"]["step"].get<int>(),
                      event["args"]["microbatch"].get<int>()};
      const double start_us = event["ts"].get<double>();
      if (is_pass) {
        passes.emplace_back(start_us, start_us + event["dur"].get<double>(), pass);
      } else {
        const auto [asked, is_new] = asked_us.emplace(pass, start_us);
        asked->second = std::min(asked->second, start_us);
      }
    }
    std::ranges::sort(passes);
    ASSERT_GE(passes.size(), 16u) << "two microbatches of four traced steps";
    for (size_t i = 1; i < passes.size(); ++i) {
      const auto& [start_us, end_us, pass] = passes[i];
      const auto& [before_start_us, before_end_us, before] = passes[i - 1];
      ASSERT_TRUE(asked_us.contains(pass));
      const bool ahead = asked_us[pass] < before_end_us;
      const bool same_step = std::get<1>(pass) == std::get<1>(before);
      EXPECT_EQ(ahead, same_step && prefetch == "1") << "the weights change with the step: " << i;
    }
  }
}

}  // namespace
}  // namespace troupe

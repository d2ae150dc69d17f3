// Any pipeline computes what one worker computes: real models through the real executor, stage and
// schedule actors over the inproc transport, bit for bit.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>

#include "actors/schedule/transforms.h"
#include "tests/support/model_job.h"

namespace troupe {
namespace {

using testing::ModelJob;
using testing::Outcome;
using testing::SmallModel;

Schedule Lists(const std::string& name, int num_ranks, int num_microbatches) {
  auto schedule =
      Generate({.name = name, .num_ranks = num_ranks, .num_microbatches = num_microbatches});
  CHECK(schedule.ok(), "{}", schedule.error().message);
  return *schedule;
}

SmallModel Drawn() {
  SmallModel model;
  auto& c = model.config;
  c.num_key_value_heads = *rc::gen::element<int64_t>(1, 2);
  c.num_attention_heads = c.num_key_value_heads * *rc::gen::inRange<int64_t>(1, 4);
  c.head_dim = 2 * *rc::gen::inRange<int64_t>(1, 5);
  c.hidden_size = *rc::gen::inRange<int64_t>(2, 24);
  c.intermediate_size = *rc::gen::inRange<int64_t>(2, 30);
  c.num_hidden_layers = *rc::gen::inRange<int64_t>(1, 7);
  c.vocab_size = *rc::gen::inRange<int64_t>(2, 40);
  c.tie_word_embeddings = *rc::gen::arbitrary<bool>();
  auto& batch = model.batch;
  batch.micro_batch_size = *rc::gen::inRange<int64_t>(1, 3);
  batch.seq_len = *rc::gen::inRange<int64_t>(1, 12);
  batch.gradient_groups = *rc::gen::inRange<int32_t>(1, 3);
  batch.num_microbatches = batch.gradient_groups * *rc::gen::inRange<int32_t>(1, 5);
  batch.global_batch_size = batch.micro_batch_size * batch.num_microbatches;
  model.ignored_share = *rc::gen::element(0.0, 0.3, 0.8);
  model.seed = *rc::gen::inRange<uint64_t>(0, 1000);
  return model;
}

bool Skipped(const Outcome& outcome) {
  return !std::ranges::all_of(outcome.losses, [](const auto& loss) { return loss.has_value(); });
}

// A schedule that runs on real stages, how its executors follow it, and what it needs of the batch.
struct DrawnRun {
  Schedule train{};
  ExecutionPolicy policy{};
};

const std::vector<std::string> kBitEqual = {"1f1b",   "gpipe", "interleaved-1f1b", "looped-bfs",
                                            "zb-h1",  "zb-h2", "interleaved-zb",   "zb-v",
                                            "v-half", "v-min", "dualpipe",         "dualpipe-v",
                                            "dynamic"};

// At most 4 ranks and 8 stages; sets the model's layers and microbatches so that they fit.
DrawnRun DrawRun(const std::string& name, SmallModel& model, bool with_parts = true) {
  DrawnRun run;
  const int num_ranks = name == "dualpipe" ? 2 * *rc::gen::inRange(1, 3) : *rc::gen::inRange(1, 5);
  const int chunks = name.starts_with("interleaved") || name == "looped-bfs"
                         ? *rc::gen::inRange(2, 8 / num_ranks + 1)
                         : 0;
  int num_microbatches = *rc::gen::inRange(1, 9);
  if (name == "zb-h1" || name.starts_with("interleaved")) {
    num_microbatches = num_ranks * *rc::gen::inRange(1, 4);
  } else if (name == "zb-h2" || name == "dualpipe-v") {
    num_microbatches = 2 * num_ranks + *rc::gen::inRange(0, 3);
  } else if (name == "dualpipe") {
    num_microbatches = 2 * num_ranks + 2 * *rc::gen::inRange(0, 2);
  }
  auto schedule = Generate({.name = name,
                            .num_ranks = num_ranks,
                            .num_microbatches = num_microbatches,
                            .chunks_per_rank = chunks});
  CHECK(schedule.ok(), "{}", schedule.error().message);
  run.train = *schedule;
  if (name != "gpipe" && *rc::gen::inRange(0, 4) == 0) run.train = WithSplitBackward(run.train);
  run.train = WithWeightParts(run.train, with_parts ? *rc::gen::inRange(1, 5) : 1);
  auto& batch = model.batch;
  batch.num_microbatches = num_microbatches;
  batch.gradient_groups =
      run.train.num_directions == 2 ? 2 : (num_microbatches % 2 == 0 ? *rc::gen::inRange(1, 3) : 1);
  batch.global_batch_size = batch.micro_batch_size * num_microbatches;
  model.config.num_hidden_layers = run.train.StagesPerDirection() + *rc::gen::inRange(0, 3);
  return run;
}

ExecutionPolicy DrawPolicy(const Schedule& train) {
  ExecutionPolicy policy;
  policy.mode =
      train.name == "dynamic"
          ? ExecutorMode::kFreeRun
          : *rc::gen::element(ExecutorMode::kStrict, ExecutorMode::kGuided, ExecutorMode::kFreeRun);
  switch (policy.mode) {
    case ExecutorMode::kStrict:
      policy.pairs = *rc::gen::element(PairMode::kEager, PairMode::kFused);
      break;
    case ExecutorMode::kGuided:
      policy.activation_slack = *rc::gen::element(0.0, 0.5, 1.0, 2.0);
      break;
    case ExecutorMode::kFreeRun:
      policy.activation_limit = *rc::gen::element(1.0, 1.5, 2.0) * train.num_ranks;
  }
  return policy;
}

// How data-parallel ranks share; `drawn` counts their number, and 10 + the ZeRO stage.
void DrawSharing(SmallModel& model, std::map<int, int>& drawn) {
  model.zero = {.stage = *rc::gen::inRange(0, 4),
                .prefetch = *rc::gen::inRange(0, 4),
                .reshard_after_forward = *rc::gen::arbitrary<bool>()};
  model.bucket_bytes = *rc::gen::element<int64_t>(1, 1000, 5000, kBucketBytes);
  model.dtype = *rc::gen::element(DType::kFloat32, DType::kBFloat16);
  ++drawn[model.batch.data_parallel];
  ++drawn[10 + model.zero.stage];
}

void ExpectAllDrawn(std::map<int, int>& drawn) {
  for (const int data_parallel : {2, 3, 4}) EXPECT_GT(drawn[data_parallel], 0) << data_parallel;
  for (const int zero_stage : {0, 1, 2, 3}) EXPECT_GT(drawn[10 + zero_stage], 0) << zero_stage;
}

Outcome OnOneWorker(const SmallModel& model) {
  return ModelJob(model, Lists("1f1b", 1, static_cast<int>(model.batch.num_microbatches))).Run();
}

// The same batch on one worker that shares nothing.
void CompareWithOneWorker(const SmallModel& model, const DrawnRun& run) {
  SmallModel alone = model;
  alone.batch.data_parallel = 1;
  alone.zero = {};
  alone.batch.num_microbatches = model.batch.microbatches_per_step();
  const Outcome one = OnOneWorker(alone);
  const Outcome many = ModelJob(model, run.train, run.policy).Run();
  RC_ASSERT(many.losses == one.losses);
  RC_ASSERT(many.norms == one.norms);
  RC_ASSERT(many.weights == one.weights);
}

TEST(PipelineParity, AnyScheduleComputesWhatOneWorkerComputes) {
  std::map<std::string, int> drawn;
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [&] {
    SmallModel model = Drawn();
    const auto name = *rc::gen::elementOf(kBitEqual);
    DrawnRun run = DrawRun(name, model);
    run.policy = DrawPolicy(run.train);
    ++drawn[name];
    ++drawn[std::string(ExecutorModeName(run.policy.mode))];
    const Outcome one = OnOneWorker(model);
    RC_ASSERT(one.losses.size() == static_cast<size_t>(ModelJob::kSteps));
    drawn["skipped"] += Skipped(one);
    const Outcome many = ModelJob(model, run.train, run.policy).Run();
    RC_ASSERT(many.losses == one.losses);
    RC_ASSERT(many.norms == one.norms);
    RC_ASSERT(many.weights == one.weights);
  }));
  for (const std::string& name : kBitEqual) EXPECT_GT(drawn[name], 0) << name;
  for (const char* mode : {"strict", "guided", "free-run", "skipped"}) {
    EXPECT_GT(drawn[mode], 0) << mode;
  }
}

// Every rank sums one group of the step's microbatches, and the groups are added in order, whatever
// the pipelines: tied weights too, and however many labels of each count. With ZeRO each updates
// its shards alone; with ZeRO-3 it has no more than those between passes.
TEST(PipelineParity, DataParallelPipelinesComputeWhatOneWorkerComputes) {
  std::map<int, int> drawn;
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [&] {
    SmallModel model = Drawn();
    auto names = kBitEqual;
    std::erase(names, "dualpipe");
    DrawnRun run = DrawRun(*rc::gen::elementOf(names), model);
    run.policy = DrawPolicy(run.train);
    BatchArithmetic& batch = model.batch;
    batch.data_parallel = batch.gradient_groups = *rc::gen::inRange(2, 5);
    batch.global_batch_size = batch.micro_batch_size * batch.microbatches_per_step();
    DrawSharing(model, drawn);
    CompareWithOneWorker(model, run);
  }));
  ExpectAllDrawn(drawn);
}

// With gradients reduced every microbatch the ranks' microbatches of one number are a group: the
// one worker computes each apart and adds them up in groups of as many.
TEST(PipelineParity, RanksThatReduceEveryMicrobatchComputeWhatOneWorkerComputes) {
  std::map<int, int> drawn;
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [&] {
    SmallModel model = Drawn();
    auto names = kBitEqual;
    for (const char* other : {"dualpipe", "dualpipe-v", "dynamic"}) std::erase(names, other);
    DrawnRun run = DrawRun(*rc::gen::elementOf(names), model, /*with_parts=*/false);
    BatchArithmetic& batch = model.batch;
    batch.grad_reduce = GradReduce::kMicrobatch;
    batch.data_parallel = *rc::gen::inRange(2, 5);
    batch.gradient_groups = batch.num_microbatches;
    batch.global_batch_size = batch.micro_batch_size * batch.microbatches_per_step();
    DrawSharing(model, drawn);
    CompareWithOneWorker(model, run);
  }));
  ExpectAllDrawn(drawn);
}

// A re-plan between two steps: whole backwards, halves, parts and what is ready, in turn.
TEST(PipelineParity, AnyOrderMayFollowAnother) {
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [] {
    SmallModel model = Drawn();
    const std::string name = *rc::gen::elementOf(std::vector<std::string>{"zb-h1", "zb-v"});
    DrawnRun first = DrawRun(name, model);
    first.policy = DrawPolicy(first.train);
    std::vector<TrainSchedule> others;
    for (int i = *rc::gen::inRange(1, 3); i > 0; --i) {
      Schedule lists = Lists(name == "zb-v" ? "v-half" : "1f1b", first.train.num_ranks,
                             first.train.num_microbatches);
      lists = WithWeightParts(lists, *rc::gen::inRange(1, 4));
      others.push_back({.schedule = lists, .policy = DrawPolicy(lists)});
    }
    const Outcome one = OnOneWorker(model);
    const Outcome many = ModelJob(model, first.train, first.policy, {}, others).Run();
    RC_ASSERT(many.losses == one.losses);
    RC_ASSERT(many.norms == one.norms);
    RC_ASSERT(many.weights == one.weights);
  }));
}

// A schedule that somebody wrote may run backwards in descending order; sums then round otherwise.
TEST(PipelineParity, DescendingBackwardsComeCloseToOneWorker) {
  EXPECT_TRUE(rc::check("losses to 1e-6 relative, weights to 1e-3 of a tensor's largest", [] {
    SmallModel model = Drawn();
    DrawnRun run = DrawRun("gpipe", model);
    for (std::vector<Action>& actions : run.train.ranks) {
      std::reverse(
          std::ranges::find_if(
              actions, [](const Action& action) { return action.kind == ActionKind::kBackward; }),
          actions.end());
    }
    model.batch.gradient_groups = 1;
    // With a tiny eps AdamW makes a whole step of a gradient that is nothing but rounding.
    const AdamWOptions adamw{.eps = 1e-3};
    const int num_microbatches = static_cast<int>(model.batch.num_microbatches);
    const Outcome one = ModelJob(model, Lists("1f1b", 1, num_microbatches), {}, adamw).Run();
    const Outcome many = ModelJob(model, run.train, {}, adamw).Run();
    for (size_t i = 0; i < one.losses.size(); ++i) {
      RC_ASSERT(many.losses[i].has_value() == one.losses[i].has_value());
      const double expected = one.losses[i].value_or(0);
      RC_ASSERT(std::abs(many.losses[i].value_or(0) - expected) <= 1e-6 * std::abs(expected));
    }
    for (const auto& [name, bytes] : one.weights) {
      const std::string& other = many.weights.at(name);
      const size_t elements = bytes.size() / sizeof(float);
      const auto* a = reinterpret_cast<const float*>(bytes.data());
      const auto* b = reinterpret_cast<const float*>(other.data());
      float largest = 0;
      float difference = 0;
      for (size_t i = 0; i < elements; ++i) {
        largest = std::max(largest, std::abs(a[i]));
        difference = std::max(difference, std::abs(a[i] - b[i]));
      }
      RC_ASSERT(difference <= 1e-3F * largest);
    }
  }));
}

}  // namespace
}  // namespace troupe

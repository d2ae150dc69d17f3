// Any pipeline computes what one worker computes: real models through the real executor, stage and
// schedule actors over the inproc transport, bit for bit.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>

#include "actors/schedule/collective_lists.h"
#include "actors/schedule/transforms.h"
#include "actors/schedule/validator.h"
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

// Now and then with collectives, and waits for sums, in the lists of ranks that follow them.
void DrawCollectives(DrawnRun& run, std::map<std::string, int>& drawn) {
  const ExecutionPolicy& policy = run.policy;
  if (policy.mode == ExecutorMode::kFreeRun || policy.activation_slack > 0) return;
  if (*rc::gen::arbitrary<bool>()) return;
  run.train = *WithCollectives(run.train, *rc::gen::inRange(2, 5));
  const bool waits = run.train.num_directions == 1 && *rc::gen::arbitrary<bool>();
  for (std::vector<Action>& actions : run.train.ranks) {
    std::vector<Action> with_waits;
    for (const Action& action : actions) {
      with_waits.push_back(action);
      if (!waits || action.kind != ActionKind::kReduceGrad) continue;
      with_waits.push_back({.stage = action.stage, .kind = ActionKind::kWaitReduceGrad});
    }
    actions = std::move(with_waits);
  }
  const auto report = Validate(run.train);
  CHECK(report.ok(), "{}", report.error().message);
  ++drawn["collectives"];
}

// How data-parallel ranks share; `drawn` counts what there was.
void DrawSharing(SmallModel& model, std::map<std::string, int>& drawn) {
  const int data_parallel = model.batch.data_parallel;
  model.zero = {.stage = *rc::gen::element(0, 1, 2, 3),
                .prefetch = *rc::gen::inRange(0, 4),
                .reshard_after_forward = *rc::gen::arbitrary<bool>(),
                .group = data_parallel == 4 ? *rc::gen::element(0, 1, 2, 2)
                                            : *rc::gen::element(0, 1, data_parallel),
                .persist_elements = *rc::gen::element<int64_t>(0, 0, 30, 300, 100'000)};
  model.bucket_bytes = *rc::gen::element<int64_t>(1, 1000, 5000, kBucketBytes);
  model.dtype = *rc::gen::element(DType::kFloat32, DType::kBFloat16);
  model.rounds_gradients = *rc::gen::arbitrary<bool>();
  if (model.zero.stage == 0 && *rc::gen::arbitrary<bool>()) {
    model.reduction = ReductionAlgorithm::kChain;
  }
  ++drawn[fmt::format("dp {}", data_parallel)];
  ++drawn[fmt::format("stage {}", model.zero.stage)];
  if (model.zero.stage == 0)
    return void(drawn["chain"] += model.reduction == ReductionAlgorithm::kChain);
  drawn["groups"] += data_parallel == 4 && model.zero.group == 2;
  drawn["persisting"] += model.zero.persist_elements > 0;
  drawn["rounding"] += model.rounds_gradients;
}

void ExpectAllDrawn(std::map<std::string, int>& drawn) {
  for (const char* what : {"dp 2", "dp 3", "dp 4", "stage 0", "stage 1", "stage 2", "stage 3",
                           "chain", "groups", "persisting", "rounding", "collectives"}) {
    EXPECT_GT(drawn[what], 0) << what;
  }
}

Outcome OnOneWorker(const SmallModel& model) {
  return ModelJob(model, Lists("1f1b", 1, static_cast<int>(model.batch.num_microbatches))).Run();
}

// The same batch on one worker that shares nothing.
SmallModel Alone(const SmallModel& model) {
  SmallModel alone = model;
  alone.batch.data_parallel = 1;
  alone.zero = {};
  alone.reduction = ReductionAlgorithm::kOrdered;
  alone.batch.num_microbatches = model.batch.microbatches_per_step();
  return alone;
}

void CompareWithOneWorker(const SmallModel& model, const DrawnRun& run) {
  const Outcome one = OnOneWorker(Alone(model));
  ModelJob job(model, run.train, run.policy);
  const Outcome many = job.Run();
  RC_ASSERT(many.losses == one.losses);
  RC_ASSERT(many.norms == one.norms);
  RC_ASSERT(many.weights == one.weights);
  for (const MemoryTag tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kOptimizer}) {
    RC_ASSERT(job.PeakBytes(tag) == job.PredictedBytes(tag));
  }
}

// Losses and norms relative, weights to each tensor's largest element.
void RequireClose(const Outcome& many, const Outcome& one) {
  const auto close = [](std::optional<double> a, std::optional<double> b, double most) {
    const double least = 1e-2;  // below, a norm is of what rounding leaves of sums
    return a.has_value() == b.has_value() &&
           std::abs(a.value_or(0) - b.value_or(0)) <= most * std::max(least, b.value_or(0));
  };
  for (size_t i = 0; i < one.losses.size(); ++i) {
    RC_ASSERT(close(many.losses[i], one.losses[i], 1e-6));
    // A small model is steep: weights that differ by rounding have later norms that differ by more.
    RC_ASSERT(close(many.norms[i], one.norms[i], i == 0 ? 1e-4 : 1e-2));
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

// Each direction of a pipeline sums a group.
void DrawDataParallel(const DrawnRun& run, SmallModel& model) {
  BatchArithmetic& batch = model.batch;
  batch.data_parallel = *rc::gen::element(2, 3, 4, 4);
  batch.gradient_groups = batch.data_parallel * run.train.num_directions;
  batch.global_batch_size = batch.micro_batch_size * batch.microbatches_per_step();
}

// Every rank sums one group of the step's microbatches, and the groups are added in order, whatever
// the pipelines: tied weights too, and however many labels of each count. With ZeRO each updates
// its shards alone; with ZeRO-3 it has no more than those between passes.
TEST(PipelineParity, DataParallelPipelinesComputeWhatOneWorkerComputes) {
  std::map<std::string, int> drawn;
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [&] {
    SmallModel model = Drawn();
    const auto name = *rc::gen::weightedOneOf<std::string>(
        {{3, rc::gen::elementOf(kBitEqual)}, {1, rc::gen::just(std::string("dualpipe"))}});
    DrawnRun run = DrawRun(name, model);
    run.policy = DrawPolicy(run.train);
    DrawDataParallel(run, model);
    DrawSharing(model, drawn);
    drawn["directions"] += run.train.num_directions == 2 && model.zero.stage > 0;
    DrawCollectives(run, drawn);
    CompareWithOneWorker(model, run);
  }));
  EXPECT_GT(drawn["directions"], 0);
  ExpectAllDrawn(drawn);
}

// With gradients reduced every microbatch the ranks' microbatches of one number are a group: the
// one worker computes each apart and adds them up in groups of as many.
TEST(PipelineParity, RanksThatReduceEveryMicrobatchComputeWhatOneWorkerComputes) {
  std::map<std::string, int> drawn;
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [&] {
    SmallModel model = Drawn();
    auto names = kBitEqual;
    for (const char* other : {"dualpipe", "dualpipe-v", "dynamic"}) std::erase(names, other);
    DrawnRun run = DrawRun(*rc::gen::elementOf(names), model, /*with_parts=*/false);
    BatchArithmetic& batch = model.batch;
    batch.grad_reduce = GradReduce::kMicrobatch;
    batch.data_parallel = *rc::gen::element(2, 3, 4, 4);
    batch.gradient_groups = batch.num_microbatches;
    batch.global_batch_size = batch.micro_batch_size * batch.microbatches_per_step();
    DrawSharing(model, drawn);
    DrawCollectives(run, drawn);
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
    RequireClose(many, one);
  }));
}

// Sums along rings begin elsewhere for each part, and replicas of shards are added last.
TEST(PipelineParity, RingsComeCloseToOneWorker) {
  int in_groups = 0;
  EXPECT_TRUE(rc::check("losses to 1e-6 relative, weights to 1e-3 of a tensor's largest", [&] {
    SmallModel model = Drawn();
    DrawnRun run = DrawRun(*rc::gen::elementOf(kBitEqual), model);
    DrawDataParallel(run, model);
    std::map<std::string, int> drawn;
    DrawSharing(model, drawn);
    model.reduction = ReductionAlgorithm::kRing;
    model.dtype = DType::kFloat32;
    model.rounds_gradients = false;
    in_groups += drawn["groups"];
    const SmallModel alone = Alone(model);
    const AdamWOptions adamw{.eps = 1e-3};
    const int num_microbatches = alone.batch.num_microbatches;
    const Outcome one = ModelJob(alone, Lists("1f1b", 1, num_microbatches), {}, adamw).Run();
    const Outcome many = ModelJob(model, run.train, {}, adamw).Run();
    RequireClose(many, one);
  }));
  EXPECT_GT(in_groups, 0);
}

}  // namespace
}  // namespace troupe

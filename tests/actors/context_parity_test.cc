// Ranks that share sequences compute what one worker computes, to rounding: real models through the
// real executor, stage, ring attention and schedule actors over the inproc transport.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "tests/support/model_job.h"

namespace troupe {
namespace {

using testing::ModelJob;
using testing::Outcome;
using testing::SmallModel;

// With a tiny eps AdamW makes a whole step of a gradient that is nothing but rounding.
constexpr AdamWOptions kAdamW{.eps = 1e-3};
// Each token of the sample follows one of other ranks.
testing::JobSteps Steps() {
  return {.steps = ModelJob::kSteps,
          .grad_clip = 0.7,
          .evaluate_every = ModelJob::kSteps,
          .evaluate_rounds = 2,
          .prompt = "a",
          .sample_tokens = 3};
}

Schedule Lists(const std::string& name, int num_ranks, int num_microbatches) {
  auto schedule =
      Generate({.name = name, .num_ranks = num_ranks, .num_microbatches = num_microbatches});
  CHECK(schedule.ok(), "{}", schedule.error().message);
  return *schedule;
}

ContextParallel DrawContext() {
  ContextParallel context{.num_ranks = *rc::gen::element(2, 2, 3, 4)};
  context.method = *rc::gen::element(ContextMethod::kRing, ContextMethod::kRing,
                                     ContextMethod::kAllGather, ContextMethod::kUlysses);
  context.layout = context.method == ContextMethod::kUlysses
                       ? SequenceLayout::kContiguous
                       : *rc::gen::element(SequenceLayout::kContiguous, SequenceLayout::kStriped,
                                           SequenceLayout::kZigzag);
  return context;
}

SmallModel DrawModel() {
  SmallModel model;
  BatchArithmetic& batch = model.batch;
  batch.context = DrawContext();
  const int ranks = batch.context.num_ranks;
  batch.micro_batch_size = *rc::gen::inRange<int64_t>(1, 3);
  batch.seq_len = 2 * ranks * *rc::gen::inRange<int64_t>(2, 4);
  ModelConfig& c = model.config;
  c.num_key_value_heads = *rc::gen::element<int64_t>(1, 2, 4);
  c.num_attention_heads = c.num_key_value_heads * *rc::gen::inRange<int64_t>(1, 3);
  if (batch.context.method == ContextMethod::kUlysses) {
    c.num_key_value_heads = *rc::gen::element<int64_t>(1, ranks);
    c.num_attention_heads = ranks * *rc::gen::inRange<int64_t>(1, 3);
  }
  c.head_dim = 2 * *rc::gen::inRange<int64_t>(1, 5);
  // Of fewer channels a gradient may be what is left of large sums that cancel.
  c.hidden_size = *rc::gen::inRange<int64_t>(8, 24);
  c.intermediate_size = *rc::gen::inRange<int64_t>(8, 30);
  c.vocab_size = *rc::gen::inRange<int64_t>(8, 40);
  c.tie_word_embeddings = *rc::gen::arbitrary<bool>();
  model.ignored_share = *rc::gen::element(0.0, 0.3);
  batch.packs_documents = *rc::gen::element(false, false, true);
  model.recompute = *rc::gen::element(Recompute::kNone, Recompute::kNone, Recompute::kAttention,
                                      Recompute::kFull);
  model.seed = *rc::gen::inRange<uint64_t>(0, 1000);
  return model;
}

const std::vector<std::string> kSchedules = {"1f1b", "gpipe",      "interleaved-1f1b", "zb-h1",
                                             "zb-v", "dualpipe-v", "dualpipe",         "dynamic"};

// In other orders than the lists the first rank of a sequence decides for all (ExecutorActor).
ExecutionPolicy DrawPolicy(const Schedule& train, const BatchArithmetic& batch) {
  ExecutionPolicy policy;
  if (batch.grad_reduce == GradReduce::kMicrobatch) return policy;
  policy.mode =
      train.name == "dynamic"
          ? ExecutorMode::kFreeRun
          : *rc::gen::element(ExecutorMode::kStrict, ExecutorMode::kGuided, ExecutorMode::kFreeRun);
  switch (policy.mode) {
    case ExecutorMode::kStrict:
      policy.pairs = *rc::gen::element(PairMode::kEager, PairMode::kFused);
      break;
    case ExecutorMode::kGuided:
      policy.activation_slack = *rc::gen::element(0.0, 0.5, 1.0);
      break;
    case ExecutorMode::kFreeRun:
      policy.activation_limit = *rc::gen::element(1.0, 1.5) * train.num_ranks;
  }
  return policy;
}

struct DrawnRun {
  Schedule train{};
  ExecutionPolicy policy{};
};

// Sets the model's layers, microbatches and how its weights are shared out.
DrawnRun DrawRun(SmallModel& model, std::map<std::string, int>& drawn) {
  const auto name = *rc::gen::elementOf(kSchedules);
  const int num_ranks = name == "dualpipe" ? 2 : *rc::gen::inRange(1, 3);
  const Schedule train = Lists(name, num_ranks, 2 * num_ranks);
  model.config.num_hidden_layers = train.StagesPerDirection() + *rc::gen::inRange(0, 2);
  BatchArithmetic& batch = model.batch;
  batch.num_microbatches = train.num_microbatches;
  batch.data_parallel = *rc::gen::element(1, 1, 2);
  batch.gradient_groups = batch.data_parallel * train.num_directions;
  const bool ascending = !name.starts_with("dualpipe") && name != "dynamic";
  if (ascending && *rc::gen::arbitrary<bool>()) {
    batch.grad_reduce = GradReduce::kMicrobatch;
    batch.gradient_groups = batch.num_microbatches;
  }
  batch.global_batch_size = batch.micro_batch_size * batch.microbatches_per_step();
  const int replicas = batch.weight_replicas();
  model.zero = {.stage = *rc::gen::element(0, 1, 2, 3),
                .prefetch = *rc::gen::inRange(0, 3),
                .reshard_after_forward = *rc::gen::arbitrary<bool>(),
                .group = replicas % 2 == 0 ? *rc::gen::element(0, 2, replicas) : 0,
                .persist_elements = *rc::gen::element<int64_t>(0, 0, 30)};
  ++drawn[name];
  ++drawn[fmt::format("pp {}", num_ranks)];
  ++drawn[fmt::format("dp {}", batch.data_parallel)];
  ++drawn[fmt::format("cp {}", batch.context.num_ranks)];
  ++drawn[fmt::format("stage {}", model.zero.stage)];
  ++drawn[std::string(ContextMethodName(batch.context.method))];
  ++drawn[std::string(RecomputeName(model.recompute))];
  drawn["documents"] += batch.packs_documents;
  const ExecutionPolicy policy = DrawPolicy(train, batch);
  ++drawn[std::string(ExecutorModeName(policy.mode))];
  return {train, policy};
}

SmallModel Alone(const SmallModel& model) {
  SmallModel alone = model;
  alone.batch.data_parallel = 1;
  alone.batch.context = {};
  alone.zero = {};
  alone.recompute = Recompute::kNone;
  alone.batch.num_microbatches = model.batch.microbatches_per_step();
  return alone;
}

void RequireNear(std::optional<double> a, std::optional<double> b, double most,
                 const std::string& what) {
  RC_ASSERT(a.has_value() == b.has_value());
  if (std::abs(a.value_or(0) - b.value_or(0)) > most * std::abs(b.value_or(0)))
    RC_FAIL(fmt::format("{}: {} for {}", what, a.value_or(0), b.value_or(0)));
}

float LargestOf(const std::string& bytes) {
  const auto* elements = reinterpret_cast<const float*>(bytes.data());
  float largest = 0;
  for (size_t i = 0; i < bytes.size() / sizeof(float); ++i) {
    largest = std::max(largest, std::abs(elements[i]));
  }
  return largest;
}

// To each tensor's largest element.
void RequireNear(const std::map<std::string, std::string>& many,
                 const std::map<std::string, std::string>& one, float most) {
  RC_ASSERT(many.size() == one.size());
  for (const auto& [name, bytes] : one) {
    const std::string& other = many.at(name);
    RC_ASSERT(other.size() == bytes.size());
    const auto* a = reinterpret_cast<const float*>(bytes.data());
    const auto* b = reinterpret_cast<const float*>(other.data());
    const float largest = LargestOf(bytes);
    float difference = 0;
    for (size_t i = 0; i < bytes.size() / sizeof(float); ++i) {
      difference = std::max(difference, std::abs(a[i] - b[i]));
    }
    if (difference > most * largest)
      RC_FAIL(fmt::format("{}: {} of {}", name, difference, largest));
  }
}

TEST(ContextParity, RanksThatShareSequencesComputeWhatOneWorkerComputes) {
  std::map<std::string, int> drawn;
  EXPECT_TRUE(rc::check("losses, gradients and weights agree to rounding", [&] {
    SmallModel model = DrawModel();
    const DrawnRun run = DrawRun(model, drawn);
    const SmallModel alone = Alone(model);
    ModelJob one_worker(alone, Lists("1f1b", 1, alone.batch.num_microbatches), {}, kAdamW, {},
                        Steps());
    const Outcome one = one_worker.Run();
    ModelJob job(model, run.train, run.policy, kAdamW, {}, Steps());
    const Outcome many = job.Run();
    RC_ASSERT(many.losses.size() == one.losses.size());
    for (size_t i = 0; i < one.losses.size(); ++i) {
      RequireNear(many.losses[i], one.losses[i], 1e-5, "loss");
      // A small model is steep: weights that differ by rounding have later norms that differ more.
      RequireNear(many.norms[i], one.norms[i], i == 0 ? 1e-4 : 1e-3, "gradient norm");
    }
    RequireNear(many.first_moments, one.first_moments, 1e-4F);
    RequireNear(many.weights, one.weights, 1e-3F);
    RC_ASSERT(many.val_losses.size() == one.val_losses.size());
    for (size_t i = 0; i < one.val_losses.size(); ++i) {
      RequireNear(many.val_losses[i], one.val_losses[i], 1e-5, "validation loss");
    }
    RC_ASSERT(many.sampled == one.sampled);
    for (const MemoryTag tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kOptimizer}) {
      RC_ASSERT(job.PeakBytes(tag) == job.PredictedBytes(tag));
    }
  }));
  for (const std::string& name : kSchedules) EXPECT_GT(drawn[name], 0) << name;
  for (const char* what :
       {"pp 1",      "pp 2",    "dp 1",      "dp 2",    "cp 2",   "cp 3",       "cp 4",
        "stage 0",   "stage 1", "stage 2",   "stage 3", "ring",   "all_gather", "ulysses",
        "attention", "full",    "documents", "strict",  "guided", "free-run"}) {
    EXPECT_GT(drawn[what], 0) << what;
  }
}

TEST(ContextParity, TwoRunsOfOneLayoutAreBitEqual) {
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [] {
    SmallModel model = DrawModel();
    std::map<std::string, int> drawn;
    const DrawnRun run = DrawRun(model, drawn);
    const Outcome first = ModelJob(model, run.train, run.policy).Run();
    const Outcome second = ModelJob(model, run.train, run.policy).Run();
    RC_ASSERT(first.losses == second.losses);
    RC_ASSERT(first.norms == second.norms);
    RC_ASSERT(first.first_moments == second.first_moments);
    RC_ASSERT(first.weights == second.weights);
  }));
}

}  // namespace
}  // namespace troupe

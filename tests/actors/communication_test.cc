// What ranks send in training steps is what the plan says, byte for byte: real models through the
// real actors over the inproc transport.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/model_job.h"

namespace troupe {
namespace {

using testing::ModelJob;
using testing::SmallModel;

struct Layout {
  std::string schedule = "1f1b";
  int pp = 1;
  int dp = 1;
  bool tied = true;
  int64_t hidden_size = 32;
  int zero_stage = 0;
  bool every_microbatch = false;
  bool keeps = false;  // units from a Forward to its backward
  int64_t bucket_bytes = kBucketBytes;
  int zero_group = 0;
  int64_t persist_elements = 0;
  bool rounds_gradients = false;
  ReductionAlgorithm reduction = ReductionAlgorithm::kOrdered;
  ContextParallel context{};
  Recompute recompute = Recompute::kNone;
};

SmallModel ModelOf(const Layout& layout) {
  SmallModel model;
  ModelConfig& c = model.config;
  c.hidden_size = layout.hidden_size;
  c.intermediate_size = 2 * layout.hidden_size;
  c.num_hidden_layers = 8;
  c.vocab_size = 301;  // no part of the sums is as large as another
  c.tie_word_embeddings = layout.tied;
  model.zero = {.stage = layout.zero_stage,
                .reshard_after_forward = !layout.keeps,
                .group = layout.zero_group,
                .persist_elements = layout.persist_elements};
  model.bucket_bytes = layout.bucket_bytes;
  model.rounds_gradients = layout.rounds_gradients;
  model.reduction = layout.reduction;
  model.recompute = layout.recompute;
  BatchArithmetic& batch = model.batch;
  batch.num_microbatches = 8;
  batch.data_parallel = layout.dp;
  batch.context = layout.context;
  batch.gradient_groups = layout.schedule == "dualpipe" ? 2 * layout.dp : layout.dp;
  if (layout.every_microbatch) {
    batch.grad_reduce = GradReduce::kMicrobatch;
    batch.gradient_groups = batch.num_microbatches;
  }
  batch.global_batch_size = batch.micro_batch_size * batch.microbatches_per_step();
  return model;
}

// Hop by hop and phase by phase; only where sequences are shared.
void ExpectPredictedAttention(const proto::CommunicationReport& report, const Layout& layout) {
  ASSERT_EQ(report.has_attention(), layout.context.shared());
  if (!report.has_attention()) return;
  EXPECT_EQ(report.attention().phases_size(), 3);
  int64_t pairs = 0;
  for (const auto& phase : report.attention().phases()) {
    ASSERT_EQ(phase.pairs_size(), phase.predicted_pairs_size());
    for (int hop = 0; hop < phase.pairs_size(); ++hop) {
      EXPECT_EQ(phase.pairs(hop), ModelJob::kSteps * phase.predicted_pairs(hop)) << "hop " << hop;
      pairs += phase.pairs(hop);
    }
  }
  EXPECT_GT(pairs, 0);
  EXPECT_EQ(report.attention().phases(1).pairs_size() > 0, layout.recompute != Recompute::kNone);
}

// Runs the layout; bytes that a training step sends, of all ranks, by axis and operation.
std::map<std::string, int64_t> SentInAStep(const Layout& layout) {
  const SmallModel model = ModelOf(layout);
  const auto train = Generate({.name = layout.schedule,
                               .num_ranks = layout.pp,
                               .num_microbatches = model.batch.num_microbatches});
  CHECK(train.ok(), "{}", train.error().message);
  ModelJob job(model, *train);
  (void)job.Run();
  std::map<std::string, int64_t> sent;
  for (int rank = 0; rank < job.job().plan().mesh.num_ranks(); ++rank) {
    const proto::CommunicationReport report = job.job().Communication(rank);
    EXPECT_EQ(report.steps(), ModelJob::kSteps);
    EXPECT_GT(report.rows_size(), 0) << "rank " << rank;
    ExpectPredictedAttention(report, layout);
    for (const auto& row : report.rows()) {
      const std::string name = row.axis() + " " + row.operation();
      EXPECT_GT(row.predicted_count(), 0) << name << " of rank " << rank;
      EXPECT_EQ(row.measured_count(), ModelJob::kSteps * row.predicted_count())
          << name << " of rank " << rank;
      EXPECT_EQ(row.measured_bytes(), ModelJob::kSteps * row.predicted_bytes())
          << name << " of rank " << rank;
      sent[name] += row.predicted_bytes();
    }
  }
  return sent;
}

constexpr int64_t kTokens = 2 * 6;            // of a microbatch
constexpr int64_t kEmbedding = 301 * 32 * 4;  // bytes

TEST(Communication, OfAPipelineIsItsMessagesAndTheTiedGradient) {
  const auto sent = SentInAStep({.pp = 2});
  EXPECT_EQ(sent, (std::map<std::string, int64_t>{{"pp activation", 8 * kTokens * 32 * 4},
                                                  {"pp gradient", 8 * kTokens * 32 * 4},
                                                  {"pp all-reduce", 2 * kEmbedding}}));
  EXPECT_FALSE(SentInAStep({.pp = 2, .tied = false}).contains("pp all-reduce"));
}

// 2 S (N - 1) of all ranks together, over the gradients of the model: each use of a tied weight is
// one of its own.
TEST(Communication, OfDataParallelRanksIsTwiceTheGradientForEachOther) {
  for (const bool tied : {true, false}) {
    const SmallModel model = ModelOf({.tied = tied});
    const ParameterTable table(model.config);
    const int64_t gradients = 4 * table.num_elements() + (tied ? kEmbedding : 0);
    for (const int dp : {2, 3, 4}) {
      const auto sent = SentInAStep({.dp = dp, .tied = tied});
      EXPECT_EQ(sent,
                (std::map<std::string, int64_t>{{"dp all-reduce", 2 * gradients * (dp - 1)}}));
    }
  }
}

// The same bytes: gradients go to their owners, weights come back.
TEST(Communication, OfSharedOptimizerStateIsAScatterAndAGather) {
  for (const bool tied : {true, false}) {
    const ParameterTable table(ModelOf({.tied = tied}).config);
    const int64_t weights = 4 * table.num_elements();
    for (const int dp : {2, 3, 4}) {
      const auto sent = SentInAStep({.dp = dp, .tied = tied, .zero_stage = 1});
      EXPECT_EQ(sent, (std::map<std::string, int64_t>{
                          {"dp reduce-scatter", (weights + (tied ? kEmbedding : 0)) * (dp - 1)},
                          {"dp all-gather", weights * (dp - 1)}}));
    }
  }
  const auto sent = SentInAStep({.pp = 2, .dp = 2, .zero_stage = 1});
  EXPECT_EQ(sent.at("pp all-reduce"), 2 * kEmbedding) << "each of a pair of ranks its half";
}

// Every way to share: what is reduced each microbatch, and what is gathered for each pass or kept.
TEST(Communication, OfSharedGradientsAndWeightsIsAsPredicted) {
  for (const int zero_stage : {0, 2, 3}) {
    for (const bool keeps : {false, true}) {
      for (const bool tied : {false, true}) {
        for (const int pp : {1, 2}) {
          const auto sent = SentInAStep({.pp = pp,
                                         .dp = 2,
                                         .tied = tied,
                                         .zero_stage = zero_stage,
                                         .every_microbatch = true,
                                         .keeps = keeps});
          EXPECT_EQ(sent.contains("dp shard"), zero_stage == 3);
        }
      }
    }
  }
}

// What persists goes whole, and what several groups of owners repeat also from group to group: of
// all ranks together the same bytes of gradients, whichever way they go.
TEST(Communication, OfWhatPersistsAndOfRepeatedShardsIsAsPredicted) {
  for (const int zero_stage : {1, 2, 3}) {
    for (const int64_t persist_elements : {0, 40, 3000}) {
      for (const auto reduction : {ReductionAlgorithm::kOrdered, ReductionAlgorithm::kRing}) {
        Layout layout{.dp = 4,
                      .zero_stage = zero_stage,
                      .every_microbatch = zero_stage > 1,
                      .zero_group = 2,
                      .persist_elements = persist_elements,
                      .reduction = reduction};
        const auto sent = SentInAStep(layout);
        EXPECT_EQ(sent.contains("dp all-reduce"),
                  persist_elements > 0 || reduction == ReductionAlgorithm::kRing);
        layout.zero_group = 0;
        EXPECT_FALSE(SentInAStep(layout).empty());
      }
    }
  }
}

TEST(Communication, OfNarrowGradientsIsHalf) {
  const auto wide = SentInAStep({.dp = 2, .zero_stage = 1});
  const auto narrow = SentInAStep({.dp = 2, .zero_stage = 1, .rounds_gradients = true});
  EXPECT_EQ(2 * narrow.at("dp reduce-scatter"), wide.at("dp reduce-scatter"));
  EXPECT_EQ(narrow.at("dp all-gather"), wide.at("dp all-gather"));
  EXPECT_FALSE(SentInAStep({.pp = 2, .dp = 3, .rounds_gradients = true}).empty());
}

// The whole once there and once back, but for the ends.
TEST(Communication, OfAChainIsTheGradientForEachHop) {
  const ParameterTable table(ModelOf({}).config);
  const int64_t gradients = 4 * table.num_elements() + kEmbedding;
  for (const int dp : {2, 3, 4}) {
    const auto sent = SentInAStep({.dp = dp, .reduction = ReductionAlgorithm::kChain});
    EXPECT_EQ(sent, (std::map<std::string, int64_t>{{"dp reduce", gradients * (dp - 1)},
                                                    {"dp broadcast", gradients * (dp - 1)}}));
  }
}

// So large that the parts of a sum go in several blocks, and so small that everybody sums it all.
TEST(Communication, OfAnySizeIsAsPredicted) {
  EXPECT_FALSE(SentInAStep({.dp = 3, .hidden_size = 96}).empty());
  EXPECT_FALSE(SentInAStep({.pp = 2, .dp = 3, .bucket_bytes = 30'000}).empty());
  EXPECT_FALSE(SentInAStep({.pp = 4, .dp = 3, .hidden_size = 2}).empty());
}

TEST(Communication, OfDataParallelPipelinesIsBoth) {
  const auto sent = SentInAStep({.pp = 2, .dp = 2});
  const ParameterTable table(ModelOf({}).config);
  EXPECT_EQ(sent, (std::map<std::string, int64_t>{
                      {"pp activation", 2 * 8 * kTokens * 32 * 4},
                      {"pp gradient", 2 * 8 * kTokens * 32 * 4},
                      {"pp all-reduce", 2 * 2 * kEmbedding},
                      {"dp all-reduce", 2 * (4 * table.num_elements() + kEmbedding)}}));
}

// What goes along cp, and along dp among the ranks of all sequences.
TEST(Communication, OfRanksThatShareSequencesIsAsPredicted) {
  const ContextParallel contexts[] = {
      {3, ContextMethod::kRing, SequenceLayout::kZigzag},
      {2, ContextMethod::kRing, SequenceLayout::kStriped},
      {3, ContextMethod::kAllGather, SequenceLayout::kZigzag},
      {2, ContextMethod::kUlysses, SequenceLayout::kContiguous},
  };
  for (const ContextParallel& context : contexts) {
    for (const int zero_stage : {0, 3}) {
      Layout layout{.pp = 2, .dp = 2, .zero_stage = zero_stage};
      layout.every_microbatch = zero_stage == 3;
      layout.context = context;
      layout.recompute = zero_stage == 3 ? Recompute::kAttention : Recompute::kNone;
      const auto sent = SentInAStep(layout);
      EXPECT_EQ(sent.at("pp activation"), 2 * 8 * kTokens * 32 * 4) << "of all parts together";
      EXPECT_EQ(sent.contains("dp shard"), zero_stage == 3);
      const bool ring = context.method == ContextMethod::kRing;
      EXPECT_EQ(sent.contains("cp kv_hop") && sent.contains("cp kv_gradient_hop"), ring);
    }
  }
}

// Two stages a rank with a fold on one, backward in halves, two directions.
TEST(Communication, OfOtherSchedulesIsAsPredicted) {
  for (const std::string schedule : {"zb-v", "interleaved-1f1b", "zb-h1"}) {
    EXPECT_FALSE(SentInAStep({.schedule = schedule, .pp = 2, .dp = 2}).empty()) << schedule;
  }
  EXPECT_GT(SentInAStep({.schedule = "dualpipe", .pp = 4})["pp all-reduce"], 0);
  for (const int zero_stage : {0, 1, 3}) {
    const Layout layout{.schedule = "dualpipe", .pp = 2, .dp = 2, .zero_stage = zero_stage};
    EXPECT_FALSE(SentInAStep(layout).empty()) << zero_stage;
  }
}

}  // namespace
}  // namespace troupe

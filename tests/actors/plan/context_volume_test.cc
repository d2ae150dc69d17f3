#include "actors/plan/context_volume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <tuple>

#include "actors/plan/job_plan.h"
#include "runtime/base/slot_stride.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Case {
  int cp = 1;
  int pp = 1;
  const char* method = "ring";
  const char* layout = nullptr;
  const char* recompute = "none";
  const char* dtype = "float32";
  const char* schedule = "1f1b";
};

// 6 layers, 4 microbatches of 2 sequences of 48 tokens; 4 heads of 16 channels, 2 of keys.
JobPlan PlanOf(const Case& c) {
  proto::JobSpec spec;
  auto& model = *spec.mutable_model();
  model.set_hidden_size(64);
  model.set_intermediate_size(96);
  model.set_num_hidden_layers(6);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_vocab_size(100);
  model.set_max_position_embeddings(64);
  spec.mutable_batch()->set_micro_batch_size(2);
  spec.mutable_batch()->set_global_batch_size(8);
  spec.mutable_batch()->set_seq_len(48);
  spec.mutable_parallelism()->set_cp(c.cp);
  spec.mutable_parallelism()->set_pp(c.pp);
  spec.mutable_parallelism()->set_schedule(c.schedule);
  spec.mutable_parallelism()->set_cp_method(c.method);
  if (c.layout != nullptr) spec.mutable_parallelism()->set_cp_load_balance(c.layout);
  spec.mutable_train()->set_recompute(c.recompute);
  spec.mutable_train()->set_dtype(c.dtype);
  spec.mutable_optimizer()->set_lr(0.001);
  spec.mutable_train()->set_steps(20);
  auto plan = MakeJobPlan(spec);
  CHECK(plan.ok(), "{}", plan.error().message);
  return *std::move(plan);
}

constexpr int64_t kLayers = 6;
constexpr int64_t kMicrobatches = 4;
// 2 b c k d e
constexpr int64_t Block(int64_t ranks, int64_t bytes) { return 2 * 2 * (48 / ranks) * 32 * bytes; }

CommunicationVolume Hops(std::string_view operation, int64_t a_pass, int64_t num_bytes) {
  const int64_t count = kLayers * kMicrobatches * a_pass;
  return {Axis::kCp, operation, count, count * num_bytes, num_bytes};
}

TEST(ContextVolume, ARankThatSharesNoSequenceSendsNothing) {
  const JobPlan plan = PlanOf({});
  EXPECT_THAT(ContextVolumeOf(plan, Rank(0)), IsEmpty());
  EXPECT_EQ(ContextSlotBytes(plan), 0);
}

TEST(ContextVolume, ARingSendsAHopLessThanRanksAndGradientsHome) {
  const JobPlan plan = PlanOf({.cp = 4});
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_THAT(
        ContextVolumeOf(plan, Rank(rank)),
        ElementsAre(Hops(kKvHop, 3 + 3, Block(4, 4)), Hops(kKvGradientHop, 4, Block(4, 4))));
  }
  const JobPlan again = PlanOf({.cp = 3, .recompute = "full", .dtype = "bfloat16"});
  EXPECT_THAT(ContextVolumeOf(again, Rank(1)), ElementsAre(Hops(kKvHop, 2 + 2 + 2, Block(3, 2)),
                                                           Hops(kKvGradientHop, 3, Block(3, 4))));
}

TEST(ContextVolume, EachStageSendsWhatItsLayersNeed) {
  for (const char* schedule : {"1f1b", "zb-h1", "interleaved-1f1b"}) {
    const JobPlan plan = PlanOf({.cp = 2, .pp = 2, .recompute = "attention", .schedule = schedule});
    int64_t hops = 0;
    for (int rank = 0; rank < 4; rank += 2) {
      const auto rows = ContextVolumeOf(plan, Rank(rank));
      EXPECT_EQ(rows, ContextVolumeOf(plan, Rank(rank + 1)));
      hops += rows.at(0).count;
    }
    EXPECT_EQ(hops, kLayers * kMicrobatches * 3) << schedule;
  }
}

TEST(ContextVolume, AllGatherTakesAllAtOnceAndScattersSumsOfGradients) {
  const JobPlan plan = PlanOf({.cp = 4, .method = "all_gather", .dtype = "bfloat16"});
  const int64_t passes = kLayers * kMicrobatches;
  EXPECT_THAT(
      ContextVolumeOf(plan, Rank(2)),
      ElementsAre(
          CommunicationVolume{Axis::kCp, "all-gather", 2 * passes, 2 * passes * 3 * Block(4, 2)},
          CommunicationVolume{Axis::kCp, "reduce-scatter", passes, passes * 3 * Block(4, 4)}));
}

// Heads of 16 channels: with 2 ranks 2 of queries and 1 of keys each, with 4 one each.
TEST(ContextVolume, UlyssesExchangesEachSequencesHeads) {
  for (const auto& [ranks, q, w] :
       {std::tuple{2, 32, 32 + 2 * 16}, std::tuple{4, 16, 16 + 2 * 16}}) {
    JobPlan plan = PlanOf({.cp = ranks, .method = "ulysses", .recompute = "full"});
    const int64_t passes = kLayers * kMicrobatches;
    const int64_t channel = (ranks - 1) * 2 * (48 / ranks) * 4;
    const CommunicationVolume exchanged{Axis::kCp, "all-to-all", passes * 2 * (2 + 2 + 3),
                                        passes * channel * (2 * (w + q) + w + 2 * q)};
    EXPECT_THAT(ContextVolumeOf(plan, Rank(1)), ElementsAre(exchanged));
    plan.batch.packs_documents = true;
    EXPECT_THAT(ContextVolumeOf(plan, Rank(1)),
                ElementsAre(exchanged, CommunicationVolume{Axis::kCp, "all-gather", passes * 2 * 3,
                                                           passes * channel * 3}));
  }
}

TEST(ContextVolume, TheRowsStandBesideTheOthersOfTheRank) {
  const JobPlan plan = PlanOf({.cp = 2});
  const auto rows = CommunicationOf(plan, Rank(0));
  ASSERT_GE(rows.size(), 3u);
  EXPECT_EQ(rows[0].operation, kKvHop);
  EXPECT_EQ(rows[1].operation, kKvGradientHop);
  EXPECT_EQ(rows[2].axis, Axis::kDp);
  EXPECT_EQ(rows[2].bytes_per_hop, 0);
}

TEST(ContextVolume, ARingHasTwoSlotsALaneAndTwoForGradients) {
  const JobPlan ring = PlanOf({.cp = 2});
  EXPECT_EQ(ContextSlotBytes(ring), 6 * SlotStrideBytes(Block(2, 4)));
  const auto comm = [](const JobPlan& plan) {
    return plan.MemoryOf(Rank(0), VectorIsa::kAvx2)[static_cast<size_t>(MemoryTag::kComm)];
  };
  const JobPlan gathers = PlanOf({.cp = 2, .method = "all_gather"});
  EXPECT_EQ(comm(ring) - comm(gathers), ContextSlotBytes(ring) - ContextSlotBytes(gathers));
}

int64_t Sum(const std::vector<int64_t>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), int64_t{0});
}

TEST(AttentionPairs, AllRanksTogetherSeeEveryPairOnce) {
  const int64_t dense = kLayers * kMicrobatches * 2 * 48 * 49 / 2;
  for (const char* layout : {"contiguous", "striped", "zigzag"}) {
    for (const int cp : {2, 3, 4, 8}) {
      const JobPlan plan = PlanOf({.cp = cp, .layout = layout, .recompute = "full"});
      int64_t forward = 0, again = 0, backward = 0;
      for (int rank = 0; rank < cp; ++rank) {
        const AttentionPairs pairs = AttentionPairsOf(plan, Rank(rank));
        ASSERT_EQ(pairs.forward.size(), static_cast<size_t>(cp));
        forward += Sum(pairs.forward);
        again += Sum(pairs.recompute);
        backward += Sum(pairs.backward);
      }
      EXPECT_EQ(forward, dense) << layout << " " << cp;
      EXPECT_EQ(again, dense);
      EXPECT_EQ(backward, dense);
    }
  }
}

TEST(AttentionPairs, AHopMeetsTheKeysOfTheRankThatFarBefore) {
  const JobPlan plan = PlanOf({.cp = 4, .layout = "contiguous"});
  const AttentionPairs pairs = AttentionPairsOf(plan, Rank(1));
  const int64_t all = kLayers * kMicrobatches * 2;
  EXPECT_THAT(pairs.forward, ElementsAre(all * 12 * 13 / 2, all * 12 * 12, 0, 0));
  EXPECT_THAT(pairs.recompute, IsEmpty());
  EXPECT_EQ(pairs.backward, pairs.forward);
}

TEST(AttentionPairs, UlyssesHasWholeSequences) {
  const AttentionPairs pairs = AttentionPairsOf(PlanOf({.cp = 2, .method = "ulysses"}), Rank(1));
  EXPECT_THAT(pairs.forward, ElementsAre(kLayers * kMicrobatches * 2 * 48 * 49 / 2));
}

// c >= (k / a) F / B where all pairs of a block are visible, else twice that; in a backward a fifth
// more in bfloat16.
TEST(HidingChunk, FollowsFromHeadsAndSpeeds) {
  const auto chunk = [](const char* layout, const char* dtype, double bytes_per_second) {
    const HidingChunk c = HidingChunkOf(PlanOf({.cp = 2, .layout = layout, .dtype = dtype}), 600e12,
                                        bytes_per_second);
    return std::pair(c.forward, c.backward);
  };
  EXPECT_EQ(chunk("contiguous", "bfloat16", 450e9), std::pair(int64_t{667}, int64_t{800}));
  EXPECT_EQ(chunk("zigzag", "bfloat16", 450e9), std::pair(int64_t{1334}, int64_t{1600}));
  EXPECT_EQ(chunk("striped", "bfloat16", 50e9), std::pair(int64_t{12000}, int64_t{14400}));
  EXPECT_EQ(chunk("contiguous", "float32", 450e9), std::pair(int64_t{1334}, int64_t{1067}));
}

}  // namespace
}  // namespace troupe

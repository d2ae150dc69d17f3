#include "actors/plan/gradient_piece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "tests/support/biased_layer.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

ModelConfig Config(bool tied = false, int64_t hidden = 64, int64_t intermediate = 96) {
  return {.hidden_size = hidden,
          .intermediate_size = intermediate,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 16,
          .vocab_size = 131,
          .tie_word_embeddings = tied};
}

constexpr StageLayout kWhole{.num_layers = 2};

std::vector<std::string> NamesOf(const ParameterTable& table, const GradientPiece& piece) {
  std::vector<std::string> names;
  for (const int index : piece.parameters) names.push_back(table[index].name);
  return names;
}

// A layer's norms are complete with the first half of a backward, its products' weights with the
// second; in a whole backward they go together.
TEST(GradientPiece, IsWhatOfAUnitIsCompleteAtOnce) {
  const ParameterTable table(Config());
  const auto halves = GradientPiecesOf(table, kWhole, /*halves=*/true);
  ASSERT_EQ(halves.size(), 7U) << "the embedding; two of each layer; the head's matrix and norm";
  EXPECT_EQ(halves[0].moment, GradientMoment::kWeight);
  EXPECT_EQ(halves[1].moment, GradientMoment::kInput);
  EXPECT_THAT(NamesOf(table, halves[1]),
              ElementsAre("model.layers.0.input_layernorm.weight",
                          "model.layers.0.post_attention_layernorm.weight"));
  EXPECT_EQ(halves[1].num_elements, 2 * 64);
  EXPECT_EQ(halves[2].moment, GradientMoment::kWeight);
  EXPECT_EQ(halves[2].parameters.size(), 7U);
  EXPECT_EQ(halves[5].moment, GradientMoment::kForward);
  EXPECT_THAT(NamesOf(table, halves[5]), ElementsAre("lm_head.weight"));
  EXPECT_EQ(halves[6].moment, GradientMoment::kInput);
  EXPECT_THAT(NamesOf(table, halves[6]), ElementsAre("model.norm.weight"));

  const auto whole = GradientPiecesOf(table, kWhole, /*halves=*/false);
  ASSERT_EQ(whole.size(), 5U);
  EXPECT_EQ(whole[1].parameters.size(), 9U) << "a layer";
  EXPECT_EQ(whole[3].moment, GradientMoment::kForward);
  EXPECT_EQ(whole[4].moment, GradientMoment::kWeight);
  EXPECT_EQ(BucketElements(table, kWhole, false), whole[1].num_elements);
}

// What is not part of a product stands between those that are.
TEST(GradientPiece, OfAnotherKindOfLayerFollowsItsSpec) {
  const ParameterTable table(testing::MixedModel(Config()));
  const auto pieces = GradientPiecesOf(table, kWhole, /*halves=*/true);
  EXPECT_THAT(NamesOf(table, pieces[3]),
              ElementsAre("model.layers.1.norm.weight", "model.layers.1.fc.bias",
                          "model.layers.1.proj.bias"));
  EXPECT_THAT(NamesOf(table, pieces[4]),
              ElementsAre("model.layers.1.fc.weight", "model.layers.1.proj.weight"));
}

TEST(GradientPiece, OfATiedWeightIsOneOfEachUse) {
  const ParameterTable table(Config(/*tied=*/true));
  const auto one = GradientPiecesOf(table, kWhole, /*halves=*/false);
  ASSERT_EQ(one.size(), 5U);
  EXPECT_EQ(one.front().parameters, one[3].parameters);
  EXPECT_FALSE(one.front().second_use);
  EXPECT_TRUE(one[3].second_use);
  EXPECT_FALSE(one[4].second_use) << "the last norm is used once";
  const StageLayout last{.stage = 1, .num_stages = 2, .first_layer = 1, .num_layers = 1};
  for (const GradientPiece& piece : GradientPiecesOf(table, last, false)) {
    EXPECT_FALSE(piece.second_use) << "the first is on another stage";
  }
}

ModelSpec DrawnModel() {
  const ModelConfig config = Config(*rc::gen::arbitrary<bool>(), *rc::gen::inRange<int64_t>(1, 200),
                                    *rc::gen::inRange<int64_t>(1, 200));
  return *rc::gen::arbitrary<bool>() ? testing::MixedModel(config) : ModelSpec(config);
}

TEST(GradientPiece, PiecesAreEveryUseOfEveryParameterOnce) {
  EXPECT_TRUE(rc::check("any model, stage and kind of backward", [] {
    const ParameterTable table(DrawnModel());
    const bool halves = *rc::gen::arbitrary<bool>();
    const auto stages = PartitionStages(table.model(), *rc::gen::inRange(1, 3), /*seq_len=*/8);
    for (const StageLayout& layout : *stages) {
      const auto pieces = GradientPiecesOf(table, layout, halves);
      std::set<std::pair<int, int>> uses;
      std::map<int, int> seen;
      for (const GradientPiece& piece : pieces) {
        RC_ASSERT(!piece.parameters.empty() && std::ranges::is_sorted(piece.parameters));
        RC_ASSERT(halves || piece.moment != GradientMoment::kInput);
        int64_t elements = 0;
        for (const int index : piece.parameters) {
          RC_ASSERT(uses.emplace(piece.unit, index).second);
          RC_ASSERT(piece.second_use == (seen[index]++ > 0));
          elements += table[index].num_elements();
        }
        RC_ASSERT(elements == piece.num_elements);
      }
      std::set<std::pair<int, int>> wanted;
      for (const int unit : UnitsOf(table.model(), layout)) {
        for (const int index : table.OfUnit(unit)) wanted.emplace(unit, index);
      }
      RC_ASSERT(uses == wanted);
      const auto in_order = [](const GradientPiece& a, const GradientPiece& b) {
        return std::pair(a.unit, a.moment) < std::pair(b.unit, b.moment);
      };
      RC_ASSERT(std::ranges::is_sorted(pieces, in_order));
    }
  }));
}

TEST(GradientPiece, WhatOwnersHaveOfThePiecesIsTheirShards) {
  EXPECT_TRUE(rc::check("any model, stage, kind of backward and number of owners", [] {
    const ParameterTable table(DrawnModel());
    const bool halves = *rc::gen::arbitrary<bool>();
    const int num_owners = *rc::gen::inRange(1, 20);
    const auto stages = PartitionStages(table.model(), *rc::gen::inRange(1, 3), /*seq_len=*/8);
    for (const StageLayout& layout : *stages) {
      std::vector<int64_t> sums(static_cast<size_t>(num_owners));
      for (const GradientPiece& piece : GradientPiecesOf(table, layout, halves)) {
        const auto counts = OwnerCounts(table, layout, piece, {.num_owners = num_owners});
        RC_ASSERT(std::ssize(counts) == num_owners);
        RC_ASSERT(std::accumulate(counts.begin(), counts.end(), int64_t{0}) == piece.num_elements);
        if (piece.second_use) continue;
        for (size_t owner = 0; owner < counts.size(); ++owner) sums[owner] += counts[owner];
      }
      for (int owner = 0; owner < num_owners; ++owner) {
        const ShardPlace place{.owner = owner, .num_owners = num_owners};
        RC_ASSERT(sums[static_cast<size_t>(owner)] == OwnedElements(table, layout, place));
      }
    }
  }));
}

// In a bucket an owner's part is one run: where it has something of two parameters, it has all
// that lies between.
TEST(GradientPiece, AnOwnersPartOfABucketIsOneRun) {
  EXPECT_TRUE(rc::check("any model and number of owners", [] {
    const ParameterTable table(DrawnModel());
    const bool halves = *rc::gen::arbitrary<bool>();
    const int num_owners = *rc::gen::inRange(1, 20);
    const auto rows = ShardRowsOf(table, kWhole);
    for (const GradientPiece& piece : GradientPiecesOf(table, kWhole, halves)) {
      const auto counts = OwnerCounts(table, kWhole, piece, {.num_owners = num_owners});
      int64_t border = 0;
      for (int owner = 0; owner < num_owners; ++owner) {
        int64_t first = -1;
        int64_t end = -1;
        int64_t at = 0;  // of the parameter in the bucket
        for (const auto& row : rows) {
          for (const ParameterShard& shard :
               ShardsOf(table, row, {.owner = owner, .num_owners = num_owners})) {
            if (!std::ranges::binary_search(piece.parameters, shard.parameter)) continue;
            if (shard.num_elements > 0) {
              if (first < 0) first = at + shard.first_element;
              RC_ASSERT(end < 0 || end == at + shard.first_element);
              end = at + shard.first_element + shard.num_elements;
            }
            at += shard.cut_elements;
          }
        }
        RC_ASSERT(first < 0 || first == border);
        border += counts[static_cast<size_t>(owner)];
        RC_ASSERT(end < 0 || end == border);
      }
      RC_ASSERT(border == piece.num_elements);
    }
  }));
}

// What persists is a piece of its own, and lies in the bucket beside what is shared out.
TEST(GradientPiece, OfSmallParametersThatPersistIsWhole) {
  const ParameterTable table(Config());
  const ShardPlace place{.num_owners = 2, .persist_elements = 65};
  const auto pieces = GradientPiecesOf(table, kWhole, /*halves=*/false, place);
  const auto whole = GradientPiecesOf(table, kWhole, /*halves=*/false);
  ASSERT_EQ(pieces.size(), whole.size() + 2 * 3) << "two norms of a layer, and what they part";
  int persisting = 0;
  for (const GradientPiece& piece : pieces) {
    if (!piece.persists) continue;
    ++persisting;
    EXPECT_THAT(NamesOf(table, piece), ElementsAre(::testing::HasSubstr("norm.weight")));
    EXPECT_EQ(OwnerCounts(table, kWhole, piece, place), (std::vector<int64_t>{64, 64}));
  }
  EXPECT_EQ(persisting, 5);
  EXPECT_EQ(BucketElements(table, kWhole, false, place), BucketElements(table, kWhole, false));
}

// Members stand in the order of their groups of microbatches: data-parallel ranks ascending, of
// each its directions.
TEST(MemberShares, AreEvenSharesOfEachOwnersRun) {
  EXPECT_THAT(
      MemberShares(std::array<int64_t, 2>{10, 7}, {.num_owners = 2, .num_replicas = 2}),
      ElementsAre(ElementRun{0, 5}, ElementRun{10, 3}, ElementRun{5, 5}, ElementRun{13, 4}));
  EXPECT_THAT(MemberShares(std::array<int64_t, 2>{4, 8},
                           {.num_owners = 2, .num_replicas = 2, .num_directions = 2}),
              ElementsAre(ElementRun{0, 2}, ElementRun{2, 2}, ElementRun{4, 4}, ElementRun{8, 4}));
  EXPECT_TRUE(rc::check("any owners, replicas, directions and runs", [] {
    const int directions = *rc::gen::inRange(1, 3);
    const ShardPlace all{.num_owners = *rc::gen::inRange(1, 6),
                         .num_replicas = directions * *rc::gen::inRange(1, 5),
                         .num_directions = directions};
    const auto counts = *rc::gen::container<std::vector<int64_t>>(
        static_cast<size_t>(all.num_owners), rc::gen::inRange<int64_t>(0, 50));
    const auto shares = MemberShares(counts, all);
    RC_ASSERT(std::ssize(shares) == all.num_owners * all.num_replicas);
    std::set<int> members;
    int64_t first = 0;
    ShardPlace place = all;
    for (place.owner = 0; place.owner < all.num_owners; ++place.owner) {
      const int64_t run = counts[static_cast<size_t>(place.owner)];
      int64_t sum = 0;
      for (place.replica = 0; place.replica < all.num_replicas; ++place.replica) {
        const int member = MemberOf(place);
        RC_ASSERT(members.insert(member).second);
        const ElementRun& share = shares.at(static_cast<size_t>(member));
        RC_ASSERT(share.first == first + sum);
        RC_ASSERT(share.count == run / all.num_replicas ||
                  share.count == run / all.num_replicas + 1);
        RC_ASSERT(share.count ==
                  ReplicaCounts(run, all.num_replicas).at(static_cast<size_t>(place.replica)));
        sum += share.count;
      }
      RC_ASSERT(sum == run);
      first += run;
    }
  }));
}

// Whole gradients are added up from the last to the first, no run smaller than a bucket but the
// last, and none before all of it is there.
TEST(GradientRun, TheyAreAllGradientsInTheOrderInWhichUnitsEnd) {
  EXPECT_TRUE(rc::check("any model, stage and bucket", [] {
    const ParameterTable table(DrawnModel());
    const auto bucket = *rc::gen::inRange<int64_t>(0, 20'000);
    const auto stages = PartitionStages(table.model(), *rc::gen::inRange(1, 3), /*seq_len=*/8);
    for (const StageLayout& layout : *stages) {
      const auto runs = GradientRunsOf(table, layout, bucket);
      RC_ASSERT(!runs.empty());
      int64_t begin = 0;
      for (const int unit : UnitsOf(table.model(), layout)) {
        for (const int index : table.OfUnit(unit)) begin += table[index].num_elements();
      }
      for (size_t i = 0; i < runs.size(); ++i) {
        RC_ASSERT(runs[i].first_element + runs[i].num_elements == begin);
        RC_ASSERT(runs[i].num_elements > 0);
        RC_ASSERT(i + 1 == runs.size() || runs[i].num_elements >= bucket);
        RC_ASSERT(i == 0 || runs[i].unit < runs[i - 1].unit);
        begin = runs[i].first_element;
      }
      RC_ASSERT(begin == 0);
    }
  }));
}

TEST(GradientRun, NoneIsAddedUpBeforeItsUnitHasEnded) {
  ModelConfig config{.hidden_size = 8,
                     .intermediate_size = 8,
                     .num_hidden_layers = 3,
                     .num_attention_heads = 1,
                     .num_key_value_heads = 1,
                     .head_dim = 8,
                     .vocab_size = 10,
                     .tie_word_embeddings = true};
  const ParameterTable table{ModelSpec(config)};
  const auto runs = GradientRunsOf(table, {.num_layers = 3}, /*bucket_elements=*/1);
  // The head's use of the embedding and its norm, each layer, the embedding.
  std::vector<int> units;
  for (const GradientRun& run : runs) units.push_back(run.unit);
  EXPECT_EQ(units, (std::vector<int>{4, 3, 2, 1, 0}));
  EXPECT_EQ(runs.front().num_elements, 80 + 8);
  EXPECT_EQ(runs.back().num_elements, 80);
  // On the last stage the tied weight lies in front: it goes with what ends last.
  const auto last =
      GradientRunsOf(table, {.stage = 1, .num_stages = 2, .first_layer = 2, .num_layers = 1}, 1);
  units.clear();
  for (const GradientRun& run : last) units.push_back(run.unit);
  EXPECT_EQ(units, (std::vector<int>{4, 3}));
  EXPECT_EQ(last.front().num_elements, 8);
}

}  // namespace
}  // namespace troupe

#include "actors/plan/parameter_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>

#include "kernels/squared_norm.h"

namespace troupe {
namespace {

ModelConfig Config(int64_t hidden, int64_t intermediate) {
  return {.hidden_size = hidden,
          .intermediate_size = intermediate,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 16,
          .vocab_size = 131};
}

ParameterTable DrawnTable() {
  return ParameterTable(
      Config(*rc::gen::inRange<int64_t>(1, 300), *rc::gen::inRange<int64_t>(1, 300)));
}

std::vector<int> AllOf(const ParameterTable& table) {
  std::vector<int> all;
  for (int i = 0; i < table.size(); ++i) all.push_back(i);
  return all;
}

TEST(ParameterShard, OneOwnerHasEverythingWhole) {
  const ParameterTable table(Config(64, 96));
  const std::vector<ParameterShard> shards = ShardsOf(table, AllOf(table), {});
  ASSERT_EQ(static_cast<int>(shards.size()), table.size());
  for (const ParameterShard& shard : shards) {
    EXPECT_TRUE(shard.is_whole());
    EXPECT_EQ(shard.num_elements, table[shard.parameter].num_elements());
    EXPECT_EQ(shard.cut_leaves(), NumNormLeaves(shard.num_elements));
  }
}

TEST(ParameterShard, TheLeafIsTheNorms) { EXPECT_EQ(kShardLeafElements, kNormLeafElements); }

TEST(ParameterShard, ShardsOfAnyNumberOfOwnersRebuildTheWhole) {
  EXPECT_TRUE(rc::check("each element has one owner, runs are whole leaves", [] {
    const ParameterTable table = DrawnTable();
    const int num_cuts = *rc::gen::inRange(1, 5);
    const int num_owners = *rc::gen::inRange(1, 40);
    std::vector<std::vector<int>> owners(static_cast<size_t>(table.size()));
    for (int i = 0; i < table.size(); ++i) {
      owners[static_cast<size_t>(i)].resize(static_cast<size_t>(table[i].num_elements()));
    }
    for (int cut = 0; cut < num_cuts; ++cut) {
      for (int owner = 0; owner < num_owners; ++owner) {
        for (const ParameterShard& shard :
             ShardsOf(table, AllOf(table), {cut, num_cuts, owner, num_owners})) {
          if (shard.num_elements == 0) continue;
          RC_ASSERT(shard.first_element % kShardLeafElements == 0);
          const int64_t end = shard.first_element + shard.num_elements;
          RC_ASSERT(end == shard.cut_elements || end % kShardLeafElements == 0);
          for (int64_t i = 0; i < shard.num_elements; ++i) {
            const int64_t element = GlobalElement(table[shard.parameter], shard, i);
            ++owners[static_cast<size_t>(shard.parameter)][static_cast<size_t>(element)];
          }
        }
      }
    }
    for (int i = 0; i < table.size(); ++i) {
      // What tensor parallel does not cut, each of its members has.
      const int copies = table[i].shard_axis < 0 ? num_cuts : 1;
      for (const int count : owners[static_cast<size_t>(i)]) RC_ASSERT(count == copies);
    }
  }));
}

// What is below the threshold stays whole, between runs of what is shared out; query, key and value
// are one matrix, so they stay or go together.
TEST(ParameterShard, SmallParametersPersist) {
  const ParameterTable table(Config(64, 96));
  const StageLayout whole{.num_layers = 1};
  const ShardPlace place{.owner = 1, .num_owners = 2, .persist_elements = 65};
  const auto rows = ShardRowsOf(table, whole, place);
  int64_t persistent = 0;
  for (const ParameterRow& row : rows) {
    const bool small = table[row.parameters.front()].one_dimensional;
    EXPECT_EQ(row.persists, small) << table[row.parameters.front()].name;
    for (const ParameterShard& shard : ShardsOf(table, row, place)) {
      EXPECT_EQ(shard.is_first_copy, !row.persists) << "owner 1 has only a copy of what persists";
      if (!row.persists) continue;
      EXPECT_EQ(shard.num_elements, table[shard.parameter].num_elements());
      persistent += shard.num_elements;
    }
    if (row.persists) {
      EXPECT_THAT(OwnerElements(table, row, place), ::testing::Each(64));
    }
  }
  EXPECT_EQ(persistent, 3 * 64) << "three norms";
  EXPECT_EQ(ShardRowsOf(table, whole, {.persist_elements = 65}).size(), 3U) << "one owner has all";
}

// The rows of a stage are its units' parameters; what two units use is a row by itself, so that
// first and last stage cut it alike.
TEST(ParameterShard, RowsAreUnitsAndATiedWeight) {
  ModelConfig config = Config(64, 96);
  config.tie_word_embeddings = true;
  const ParameterTable table(config);
  const auto stages = PartitionStages(table.model(), 2, /*seq_len=*/8);
  ASSERT_TRUE(stages.ok());
  const auto first = ShardRowsOf(table, stages->front());
  const auto last = ShardRowsOf(table, stages->back());
  ASSERT_EQ(first.size(), 2U);
  ASSERT_EQ(last.size(), 3U);
  EXPECT_EQ(first.front().parameters, std::vector{table.embedding_index()});
  EXPECT_EQ(last.front().parameters, first.front().parameters);
  EXPECT_EQ(first.back().parameters.size(), 9U) << "a layer";
  EXPECT_EQ(last.back().parameters.size(), 1U) << "the last norm";
  for (const StageLayout& layout : *stages) {
    int64_t elements = 0;
    for (const int index : ParametersOf(table, layout)) elements += table[index].num_elements();
    EXPECT_EQ(OwnedElements(table, layout, {}), elements);
    int64_t shared = 0;
    for (int owner = 0; owner < 3; ++owner) {
      shared += OwnedElements(table, layout, {.owner = owner, .num_owners = 3});
    }
    EXPECT_EQ(shared, elements);
  }
}

TEST(ParameterShard, OwnersAreBalancedWithinTwoLeaves) {
  EXPECT_TRUE(rc::check("most and least differ by less than two leaves", [] {
    const ParameterTable table = DrawnTable();
    const int num_owners = *rc::gen::inRange(1, 40);
    std::vector<int64_t> elements;
    for (int owner = 0; owner < num_owners; ++owner) {
      int64_t& sum = elements.emplace_back(0);
      for (const ParameterShard& shard :
           ShardsOf(table, AllOf(table), {.owner = owner, .num_owners = num_owners})) {
        sum += shard.num_elements;
      }
    }
    const auto [least, most] = std::ranges::minmax(elements);
    RC_ASSERT(most - least < 2 * kShardLeafElements);
  }));
}

TEST(ParameterShard, ACutIsRowsOrColumns) {
  const ParameterSpec rows{.name = "up", .rows = 10, .columns = 3, .shard_axis = 0};
  EXPECT_EQ(CutOf(rows, {.cut = 1, .num_cuts = 4}), (TensorCut{0, 2, 3}));
  EXPECT_EQ(ElementsOf(rows, CutOf(rows, {.cut = 1, .num_cuts = 4})), 9);
  const ParameterSpec columns{.name = "down", .rows = 3, .columns = 8, .shard_axis = 1};
  const TensorCut cut = CutOf(columns, {.cut = 3, .num_cuts = 4});
  EXPECT_EQ(cut, (TensorCut{1, 6, 2}));
  EXPECT_EQ(GlobalElement(columns, {.cut = cut, .num_elements = 6, .cut_elements = 6}, 3), 15);
  const ParameterSpec norm{.name = "norm", .rows = 8, .columns = 1, .shard_axis = -1};
  EXPECT_EQ(CutOf(norm, {.cut = 1, .num_cuts = 4}), TensorCut{});
}

}  // namespace
}  // namespace troupe

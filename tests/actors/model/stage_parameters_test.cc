// Shards of a stage's parameters do what the whole parameters do: bit for bit.
#include "actors/model/stage_parameters.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "kernels/squared_norm.h"
#include "tests/support/small_model.h"

namespace troupe {
namespace {

constexpr uint64_t kSeed = 7;

// Matrices of some leaves, of a part of one, and vectors.
ParameterTable Table() {
  testing::SmallModel model;
  model.config.hidden_size = 72;
  model.config.intermediate_size = 100;
  return ParameterTable(model.Spec());
}

// A gradient that any owner knows by the element's number.
float GradientOf(int parameter, int64_t element) {
  return static_cast<float>(parameter + 1) / static_cast<float>(1 + element % 97) - 0.1f;
}

// By parameter.
struct Held {
  std::vector<std::array<std::string, 3>> bytes{};  // master, first and second moment
  std::vector<double> roots{};
};

// The tree over leaves [first_leaf, first_leaf + num_leaves), from nodes in ascending order, which
// it takes.
double RootOf(int64_t first_leaf, int64_t num_leaves, std::span<const NormNode>& nodes) {
  if (!nodes.empty() && nodes.front().first_leaf == first_leaf &&
      nodes.front().num_leaves == num_leaves) {
    const double sum = nodes.front().sum;
    nodes = nodes.subspan(1);
    return sum;
  }
  CHECK(num_leaves > 1, "leaf {} has no node", first_leaf);
  const int64_t left_leaves = LeftNormLeaves(num_leaves);
  const double left = RootOf(first_leaf, left_leaves, nodes);
  return left + RootOf(first_leaf + left_leaves, num_leaves - left_leaves, nodes);
}

// All owners initialise, vote and update; what they hold is put together.
Held RunShards(const ParameterTable& table, ShardPlace place) {
  const StageLayout layout{.num_layers = table.model().num_layers()};
  MemoryLedger ledger;
  Held held;
  held.bytes.resize(static_cast<size_t>(table.size()));
  std::vector<std::vector<NormNode>> nodes(static_cast<size_t>(table.size()));
  for (int rank = 0; rank < place.num_owners * place.num_replicas; ++rank) {
    place.owner = rank % place.num_owners;
    place.replica = rank / place.num_owners;
    StageParameters parameters({.shards = place}, table, layout, ledger);
    parameters.Initialize(kSeed);
    for (const StageParameter& p : parameters.all()) {
      if (!p.owned) continue;  // another copy's votes count
      std::vector<float> gradient(static_cast<size_t>(p.shard.num_elements));
      for (size_t i = 0; i < gradient.size(); ++i) {
        gradient[i] = GradientOf(p.index, p.shard.first_element + static_cast<int64_t>(i));
      }
      const auto view = ConstTensorView::Of<float>(gradient.data(), {p.shard.num_elements});
      std::vector<proto::NormNode> votes;
      AddNormNodes({}, p, view, votes);
      for (const proto::NormNode& vote : votes) {
        nodes[static_cast<size_t>(p.index)].push_back(
            {vote.first_leaf(), vote.num_leaves(), vote.sum()});
      }
      parameters.Update({}, {.lr = 0.01, .weight_decay = 0.1, .step = 1}, p, view);
      const TensorView views[] = {p.weight, p.m, p.v};
      for (size_t i = 0; i < 3; ++i) {
        held.bytes[static_cast<size_t>(p.index)][i].append(
            static_cast<const char*>(views[i].data()), static_cast<size_t>(views[i].num_bytes()));
      }
    }
  }
  for (int i = 0; i < table.size(); ++i) {
    std::span<const NormNode> left = nodes[static_cast<size_t>(i)];
    held.roots.push_back(RootOf(0, NumNormLeaves(table[i].num_elements()), left));
    EXPECT_TRUE(left.empty()) << table[i].name;
  }
  return held;
}

TEST(StageParametersTest, ShardsInitialiseVoteAndUpdateAsTheWhole) {
  const ParameterTable table = Table();
  const Held whole = RunShards(table, {});
  for (const int num_owners : {2, 3, 5, 16}) {
    for (const int num_replicas : {1, 2}) {
      for (const int64_t persist_elements : {0, 2000}) {
        const Held shards = RunShards(table, {.num_owners = num_owners,
                                              .num_replicas = num_replicas,
                                              .persist_elements = persist_elements});
        EXPECT_EQ(shards.roots, whole.roots) << num_owners;
        EXPECT_EQ(shards.bytes, whole.bytes) << num_owners;
      }
    }
  }
}

}  // namespace
}  // namespace troupe

#include "actors/plan/unit_tensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "actors/plan/memory_model.h"

namespace troupe {
namespace {

const ModelConfig kConfig{.hidden_size = 32,
                          .intermediate_size = 64,
                          .num_hidden_layers = 1,
                          .num_attention_heads = 8,
                          .num_key_value_heads = 2,
                          .head_dim = 4,
                          .vocab_size = 10};

BatchArithmetic Batch(int ranks, ContextMethod method) {
  return {.micro_batch_size = 2,
          .seq_len = 64,
          .context = {ranks, method, SequenceLayout::kContiguous}};
}

std::vector<LayerTensor> OfLayer(const BatchArithmetic& batch,
                                 Recompute recompute = Recompute::kNone) {
  return TensorsOf(DecoderLayerSpec(kConfig), batch, recompute);
}

const LayerTensor* Find(const std::vector<LayerTensor>& tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &LayerTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

// Of one layer between others.
UnitPlaces WorkspaceOf(const BatchArithmetic& batch) {
  const StageShape shape{
      .model = kConfig, .layout = {.stage = 1, .num_stages = 3, .num_layers = 1}, .batch = batch};
  return WorkspaceLayoutOf(shape, 0).units.front();
}

TEST(UnitTensors, AreTheSpecsWhereNothingIsShared) {
  const auto tensors = OfLayer(Batch(1, ContextMethod::kRing));
  const LayerSpec spec = DecoderLayerSpec(kConfig);
  ASSERT_EQ(tensors.size() + 1, spec.tensors.size()) << "but where documents begin";
  for (const LayerTensor& tensor : tensors) EXPECT_EQ(tensor.life, spec.Tensor(tensor.name).life);
  for (const LayerSpec& unit : {EmbeddingSpec(kConfig), HeadSpec(kConfig)}) {
    EXPECT_EQ(TensorsOf(unit, Batch(4, ContextMethod::kRing), Recompute::kFull).size(),
              unit.tensors.size());
  }
}

TEST(UnitTensors, HaveOneNameEach) {
  for (const auto method :
       {ContextMethod::kRing, ContextMethod::kAllGather, ContextMethod::kUlysses}) {
    for (const int ranks : {1, 2, 4}) {
      BatchArithmetic batch = Batch(ranks, method);
      batch.packs_documents = true;
      std::set<std::string_view> names;
      for (const LayerTensor& tensor : OfLayer(batch)) {
        EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name;
      }
      EXPECT_TRUE(names.contains(kDocumentStartsTensor));
      EXPECT_TRUE(names.contains("first_key"));
    }
  }
}

TEST(UnitTensors, OfARingHoldTwoBlocksOfGradientsAndOneOfKeys) {
  const UnitPlaces work = WorkspaceOf(Batch(4, ContextMethod::kRing));
  constexpr int64_t kTokens = 2 * 64 / 4;
  for (const std::string_view name : {"kv_own", "dkv_own", "dkv_part"}) {
    EXPECT_EQ(work.Of(name).rows, kTokens) << name;
    EXPECT_EQ(work.Of(name).columns, 2 * 2 * 4) << name;
  }
  EXPECT_EQ(work.Of("attention_acc").columns, 8 * 4);
  EXPECT_FALSE(work.Has("kv_all"));
  EXPECT_FALSE(work.Has("qkv_heads"));
}

TEST(UnitTensors, OfAnAllGatherHoldEveryRanksKeys) {
  const UnitPlaces work = WorkspaceOf(Batch(4, ContextMethod::kAllGather));
  for (const std::string_view name : {"kv_all", "dkv_all"}) {
    EXPECT_EQ(work.Of(name).rows, 2 * 64) << name;
    EXPECT_EQ(work.Of(name).columns, 2 * 2 * 4) << name;
  }
  EXPECT_FALSE(work.Has("kv_own"));
}

TEST(UnitTensors, OfUlyssesKeepTheRanksHeads) {
  const auto tensors = OfLayer(Batch(2, ContextMethod::kUlysses));
  EXPECT_EQ(Find(tensors, "qkv")->life, TensorLife::kWorkspace);
  const LayerTensor& kept = *Find(tensors, "qkv_heads");
  EXPECT_EQ(kept.life, TensorLife::kStash);
  EXPECT_EQ(kept.rows, TensorRows::kContext);
  EXPECT_EQ(2 * kept.columns, (8 + 2 * 2) * 4) << "as much as all heads of half the tokens";
  EXPECT_EQ(Find(tensors, "dqkv_sum"), nullptr);
  // Four ranks, two heads of keys: each goes to two ranks.
  const auto repeated = OfLayer(Batch(4, ContextMethod::kUlysses));
  EXPECT_EQ(Find(repeated, "qkv_heads")->columns, (2 + 2 * 1) * 4);
  EXPECT_NE(Find(repeated, "dqkv_sum"), nullptr);
  EXPECT_EQ(
      Find(OfLayer(Batch(2, ContextMethod::kUlysses), Recompute::kAttention), "qkv_heads")->life,
      TensorLife::kHalf);
}

TEST(UnitTensors, ThatABackwardComputesAgainLiveAsHalvesDo) {
  const BatchArithmetic batch = Batch(1, ContextMethod::kRing);
  const auto lives = [&batch](Recompute recompute, std::string_view name) {
    return Find(OfLayer(batch, recompute), name)->life;
  };
  for (const Recompute recompute : {Recompute::kNone, Recompute::kAttention, Recompute::kFull}) {
    EXPECT_EQ(lives(recompute, "x"), TensorLife::kStash);
  }
  for (const std::string_view name : {"qkv", "out", "lse"}) {
    EXPECT_EQ(lives(Recompute::kNone, name), TensorLife::kStash) << name;
    EXPECT_EQ(lives(Recompute::kAttention, name), TensorLife::kHalf) << name;
    EXPECT_EQ(lives(Recompute::kFull, name), TensorLife::kHalf) << name;
  }
  for (const std::string_view name : {"n1", "rstd1", "mid", "n2", "rstd2", "gate_up"}) {
    EXPECT_EQ(lives(Recompute::kAttention, name), TensorLife::kStash) << name;
    EXPECT_EQ(lives(Recompute::kFull, name), TensorLife::kHalf) << name;
  }
}

TEST(UnitTensors, HeadsAreSharedByUlyssesAlone) {
  const LayerAttention all{.num_heads = 8, .num_kv_heads = 2, .head_dim = 4};
  const auto of = [&all](int ranks, ContextMethod method) {
    return HeadsOfRank(all, Batch(ranks, method).context);
  };
  EXPECT_EQ(of(4, ContextMethod::kRing).num_heads, 8);
  EXPECT_EQ(of(2, ContextMethod::kUlysses).num_heads, 4);
  EXPECT_EQ(of(2, ContextMethod::kUlysses).num_kv_heads, 1);
  EXPECT_EQ(of(8, ContextMethod::kUlysses).num_heads, 1);
  EXPECT_EQ(of(8, ContextMethod::kUlysses).num_kv_heads, 1);
  EXPECT_EQ(TokensOfBlock(Batch(4, ContextMethod::kRing)), 16);
  EXPECT_EQ(TokensOfBlock(Batch(4, ContextMethod::kUlysses)), 64);
}

}  // namespace
}  // namespace troupe

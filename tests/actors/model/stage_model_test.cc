#include "actors/model/stage_model.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>

#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::SmallModel;
using testing::StageChain;

SmallModel Drawn() {
  SmallModel model;
  auto& c = model.config;
  c.num_key_value_heads = *rc::gen::element<int64_t>(1, 2, 4);
  c.num_attention_heads = c.num_key_value_heads * *rc::gen::inRange<int64_t>(1, 3);
  c.head_dim = 2 * *rc::gen::inRange<int64_t>(1, 9);
  c.hidden_size = *rc::gen::inRange<int64_t>(3, 40);
  c.intermediate_size = *rc::gen::inRange<int64_t>(3, 50);
  c.num_hidden_layers = *rc::gen::inRange<int64_t>(1, 6);
  c.vocab_size = *rc::gen::inRange<int64_t>(2, 70);
  c.tie_word_embeddings = *rc::gen::arbitrary<bool>();
  auto& batch = model.batch;
  batch.micro_batch_size = *rc::gen::inRange<int64_t>(1, 4);
  batch.seq_len = *rc::gen::inRange<int64_t>(1, 20);
  batch.gradient_groups = *rc::gen::inRange<int32_t>(1, 4);
  batch.num_microbatches = batch.gradient_groups * *rc::gen::inRange<int32_t>(1, 4);
  model.dtype = *rc::gen::element(DType::kFloat32, DType::kFloat32, DType::kBFloat16);
  model.random_positions = *rc::gen::arbitrary<bool>();
  model.seed = *rc::gen::inRange<uint64_t>(0, 1000);
  return model;
}

std::string BytesOf(const Buffer& buffer) {
  return {reinterpret_cast<const char*>(buffer.data()), static_cast<size_t>(buffer.num_bytes())};
}

// A microbatch whose first sequence begins with the text.
Microbatch Beginning(const SmallModel& model, std::vector<int32_t> text) {
  text.resize(static_cast<size_t>(model.batch.micro_batch_size * (model.batch.seq_len + 1)));
  return MicrobatchOf(text, model.batch, testing::kAllFields, PositionsOfSequences(model.batch));
}

struct Trace {
  std::vector<double> losses;
  std::string gradients;
  std::string weights;
};

Trace Train(const SmallModel& model, int num_parts = 1) {
  StageChain chain(model);
  Trace trace;
  for (int step = 1; step <= 2; ++step) {
    trace.losses.push_back(chain.RunStep(num_parts));
    trace.gradients += chain.GradientBytes();
    chain.Update({.lr = 0.01, .grad_factor = 0.01, .step = step});
  }
  trace.weights = chain.WeightBytes();
  return trace;
}

TEST(StageModel, AnyPartitionComputesWhatOneStageComputes) {
  EXPECT_TRUE(rc::check("bit-equal losses, gradients and weights", [] {
    SmallModel model = Drawn();
    const Trace one = Train(model);
    model.num_stages =
        *rc::gen::inRange<int>(1, static_cast<int>(model.config.num_hidden_layers) + 1);
    model.halves = *rc::gen::arbitrary<bool>();
    const Trace many = Train(model, *rc::gen::inRange(1, 5));
    RC_ASSERT(many.losses == one.losses);
    RC_ASSERT(many.gradients == one.gradients);
    RC_ASSERT(many.weights == one.weights);
  }));
}

TEST(StageModel, LearnsItsTokens) {
  SmallModel model;
  model.config.vocab_size = 7;
  StageChain chain(model);
  const double before = chain.RunStep();
  double loss = before;
  for (int step = 1; step <= 60; ++step) {
    chain.Update({.lr = 0.02, .weight_decay = 0, .grad_factor = 1.0 / 24, .step = step});
    loss = chain.RunStep();
  }
  EXPECT_NEAR(before / 24, std::log(7.0), 0.8);
  EXPECT_LT(loss, before / 5);
}

TEST(StageModel, BFloat16StaysNearFloat32) {
  SmallModel model;
  StageChain exact(model);
  model.dtype = DType::kBFloat16;
  StageChain rounded(model);
  const double loss = exact.RunStep();
  EXPECT_NEAR(rounded.RunStep(), loss, 0.02 * loss);
}

// Products of whole blocks, rows that lie badly, several microbatches: every way in which a CPU may
// read bfloat16 operands, forward and backward.
TEST(StageModel, BFloat16TrainsAsFloat32Does) {
  SmallModel model;
  model.config = {.hidden_size = 384,
                  .intermediate_size = 1024,
                  .num_hidden_layers = 2,
                  .num_attention_heads = 6,
                  .num_key_value_heads = 2,
                  .head_dim = 64,
                  .vocab_size = 512};
  model.batch.seq_len = 32;
  const auto losses = [&model](DType dtype) {
    model.dtype = dtype;
    StageChain chain(model);
    std::vector<double> losses;
    for (int step = 1; step <= 4; ++step) {
      losses.push_back(chain.RunStep() / 128);
      chain.Update({.lr = 2e-3, .weight_decay = 0, .grad_factor = 1.0 / 128, .step = step});
    }
    return losses;
  };
  const std::vector<double> exact = losses(DType::kFloat32), rounded = losses(DType::kBFloat16);
  EXPECT_NEAR(exact.front(), std::log(512.0), 0.5);
  EXPECT_LT(exact.back(), 0.8 * exact.front());
  for (size_t i = 0; i < exact.size(); ++i) EXPECT_NEAR(rounded[i], exact[i], 0.03 * exact[i]);
  EXPECT_NE(rounded, exact);
}

TEST(StageModel, MemoryIsWhatTheModelPredicts) {
  for (const bool tied : {false, true}) {
    for (const int stages : {1, 3}) {
      SmallModel model;
      model.config.tie_word_embeddings = tied;
      model.num_stages = stages;
      model.batch.gradient_groups = 2;
      StageChain chain(model);
      chain.Forward(0);
      chain.Forward(1);
      for (size_t i = 0; i < chain.num_stages(); ++i) {
        const auto predicted = PredictMemory(
            chain.table(), {.shape = chain.stage(i).options().shape, .peak_microbatches = 2});
        const auto used = chain.ledger(i).Snapshot().peak_bytes;
        for (const MemoryTag tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kOptimizer,
                                    MemoryTag::kActivations}) {
          EXPECT_EQ(used[static_cast<size_t>(tag)], predicted[static_cast<size_t>(tag)])
              << MemoryTagName(tag) << " of stage " << i << " of " << stages;
        }
      }
    }
  }
}

TEST(StageModel, WorkspaceIsWhatTheModelPredictsForThisCpu) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    SmallModel model{
        .dtype = dtype, .num_stages = 2, .open_actions = dtype == DType::kFloat32 ? 1 : 3};
    model.config = {.hidden_size = 128,
                    .intermediate_size = 344,
                    .num_hidden_layers = 3,
                    .num_attention_heads = 4,
                    .num_key_value_heads = 2,
                    .head_dim = 32,
                    .vocab_size = 256};
    model.batch.seq_len = 64;
    StageChain chain(model);
    chain.RunStep();
    chain.Update({});
    for (size_t i = 0; i < chain.num_stages(); ++i) {
      const auto predicted = PredictMemory(
          chain.table(), {.shape = chain.stage(i).options().shape, .isa = ThisVectorIsa()});
      EXPECT_EQ(chain.ledger(i).Snapshot().peak_bytes[static_cast<size_t>(MemoryTag::kWorkspace)],
                predicted[static_cast<size_t>(MemoryTag::kWorkspace)])
          << "stage " << i << " with " << VectorIsaName(ThisVectorIsa());
    }
  }
}

TEST(StageModel, EvaluationHasForwardsLoss) {
  SmallModel model;
  model.num_stages = 2;
  StageChain chain(model);
  const double evaluated = chain.Evaluate(1);
  EXPECT_EQ(chain.Forward(1), evaluated);
}

TEST(StageModel, GeneratesFromTheLastPosition) {
  SmallModel model;
  StageChain one(model);
  model.num_stages = 2;
  StageChain two(model);
  const Microbatch prompt = Beginning(model, {1, 5, 3});
  const Buffer logits = *RunStraight(one.stage(0).GenerateForward({}, prompt, 2));
  const Buffer hidden = *RunStraight(two.stage(0).GenerateForward({}, prompt, 2));
  const Buffer same = *RunStraight(two.stage(1).GenerateForward(hidden.bytes(), prompt, 2));
  ASSERT_EQ(logits.num_bytes(), model.config.vocab_size * 4);
  EXPECT_EQ(BytesOf(logits), BytesOf(same));
  // Other later tokens do not matter, an earlier one does.
  const Microbatch longer = Beginning(model, {1, 5, 3, 9});
  const auto after = [&one](const Microbatch& data, int64_t token) {
    return BytesOf(*RunStraight(one.stage(0).GenerateForward({}, data, token)));
  };
  EXPECT_EQ(after(longer, 2), BytesOf(logits));
  EXPECT_NE(after(longer, 3), BytesOf(logits));
  EXPECT_NE(after(Beginning(model, {2, 5, 3}), 2), BytesOf(logits));
}

// ---- positions ------------------------------------------------------------------------------

// The rows of a first stage's output.
std::vector<std::string> RowsUnder(const SmallModel& model, std::vector<int32_t> positions,
                                   std::vector<int32_t> tokens) {
  StageChain chain(model);
  Microbatch data;
  data.tokens = std::move(tokens);
  data.positions = std::make_shared<const std::vector<int32_t>>(std::move(positions));
  const std::string bytes = BytesOf(RunStraight(chain.stage(0).Forward(0, {}, data))->output);
  const size_t row_bytes = static_cast<size_t>(model.config.hidden_size) * sizeof(float);
  std::vector<std::string> rows;
  for (size_t at = 0; at < bytes.size(); at += row_bytes) {
    rows.push_back(bytes.substr(at, row_bytes));
  }
  return rows;
}

// Two sequences of six tokens, by plain loops, which compute a row alike wherever it lies.
SmallModel OfPlainLoops() { return {.num_stages = 2, .specification = true}; }
const std::vector<int32_t> kTwelveTokens = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};

TEST(StageModelPositions, ComeWithTheBatch) {
  const SmallModel model = OfPlainLoops();
  // Where all are one, what turns the heads does not matter; else it does.
  SmallModel turned = model;
  turned.config.rope_theta = 3;
  const std::vector<int32_t> nowhere(12, 0);
  EXPECT_EQ(RowsUnder(model, nowhere, kTwelveTokens), RowsUnder(turned, nowhere, kTwelveTokens));
  const std::vector<int32_t> whole = *PositionsOfSequences(model.batch);
  EXPECT_NE(RowsUnder(model, whole, kTwelveTokens), RowsUnder(turned, whole, kTwelveTokens));
}

TEST(StageModelPositions, MayRestartWithinASequence) {
  const SmallModel model = OfPlainLoops();
  const auto rows = RowsUnder(model, *PositionsOfSequences(model.batch), kTwelveTokens);
  const auto restarted = RowsUnder(model, {0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 5}, kTwelveTokens);
  ASSERT_EQ(rows.size(), 12u);
  for (size_t t = 0; t < rows.size(); ++t) {
    EXPECT_EQ(rows[t] == restarted[t], t < 3 || t >= 6) << "token " << t;
  }
}

TEST(StageModelPositions, GoWithTheirTokensWhereSequencesChangePlaces) {
  const SmallModel model = OfPlainLoops();
  const auto swapped = [](auto both) {
    std::ranges::rotate(both, both.begin() + 6);
    return both;
  };
  const std::vector<int32_t> positions = {5, 0, 3, 1, 4, 2, 0, 1, 0, 1, 2, 3};
  const auto rows = RowsUnder(model, positions, kTwelveTokens);
  EXPECT_EQ(RowsUnder(model, swapped(positions), swapped(kTwelveTokens)), swapped(rows));
  EXPECT_NE(RowsUnder(model, positions, swapped(kTwelveTokens)), swapped(rows));
}

// Each keeps its own until its backward.
TEST(StageModelPositions, AreAMicrobatchsOwnWhereSeveralAreUnderWay) {
  SmallModel model;
  model.random_positions = true;
  StageChain in_turn(model);
  StageChain together(model);
  in_turn.RunStep();
  for (const int32_t microbatch : {0, 1}) together.Forward(microbatch);
  for (const int32_t microbatch : {0, 1}) together.Backward(microbatch);
  EXPECT_EQ(together.GradientBytes(), in_turn.GradientBytes());
}

TEST(StageModelPositions, ABatchWithoutThemIsRefused) {
  const SmallModel model = OfPlainLoops();
  StageChain chain(model);
  const Microbatch data{.tokens = kTwelveTokens};
  EXPECT_DEATH((void)RunStraight(chain.stage(0).Forward(0, {}, data)),
               "a microbatch of 12 tokens has 0 positions");
}

TEST(StageModel, DrawsByTemperature) {
  SmallModel model;
  model.config.vocab_size = 4;
  StageChain chain(model);
  MemoryLedger ledger;
  Buffer logits(ledger, MemoryTag::kWorkspace, 16);
  const float values[4] = {0, std::log(3.0f), 0, std::log(5.0f)};
  std::memcpy(logits.data(), values, sizeof(values));
  StageModel& stage = chain.stage(0);
  EXPECT_EQ(stage.DrawToken(logits, 0, 1, 0), 3);
  int counts[4] = {};
  for (uint64_t i = 0; i < 10'000; ++i) ++counts[stage.DrawToken(logits, 1.0, 1, i)];
  EXPECT_NEAR(counts[0], 1000, 150);
  EXPECT_NEAR(counts[1], 3000, 250);
  EXPECT_NEAR(counts[3], 5000, 250);
  EXPECT_EQ(stage.DrawToken(logits, 1.0, 1, 5), stage.DrawToken(logits, 1.0, 1, 5));
}

}  // namespace
}  // namespace troupe

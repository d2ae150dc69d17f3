// Small models for tests: a partition of stages that run after one another in one thread, without
// actors or messages.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "actors/model/stage_model.h"
#include "actors/plan/data_parallel_keys.h"
#include "runtime/base/random.h"

namespace troupe::testing {

struct SmallModel {
  ModelConfig config{.hidden_size = 16,
                     .intermediate_size = 24,
                     .num_hidden_layers = 4,
                     .num_attention_heads = 4,
                     .num_key_value_heads = 2,
                     .head_dim = 4,
                     .vocab_size = 11,
                     .rms_norm_eps = 1e-5,
                     .initializer_range = 0.3};
  BatchArithmetic batch{.micro_batch_size = 2,
                        .global_batch_size = 4,
                        .seq_len = 6,
                        .num_microbatches = 2,
                        .gradient_groups = 1};
  std::optional<ModelSpec> spec{};  // in place of the config's
  LayerFactory new_layer = NewLayer;
  DType dtype = DType::kFloat32;
  bool rounds_gradients = false;  // adds them up in bfloat16
  int num_stages = 1;
  bool halves = false;
  bool specification = false;
  int open_actions = 1;
  Recompute recompute = Recompute::kNone;
  ZeroSharding zero{};
  ReductionAlgorithm reduction = ReductionAlgorithm::kOrdered;
  int64_t bucket_bytes = kBucketBytes;
  AxisGroups groups{};
  bool random_positions = false;  // of each microbatch others; else whole sequences'
  double ignored_share = 0;       // of the labels, and of whole microbatches, does not count
  uint64_t seed = 1;

  ModelSpec Spec() const { return spec ? *spec : ModelSpec(config); }
};

inline NumberWidths WidthsOf(DType dtype, bool rounds_gradients = false) {
  const int64_t bytes = DTypeBytes(dtype);
  const int64_t master_bytes = dtype == DType::kBFloat16 ? 4 : bytes;
  return {bytes, master_bytes, rounds_gradients ? 2 : master_bytes};
}

// Tokens of one microbatch, by (seed, microbatch).
inline std::vector<int32_t> RandomTokens(const SmallModel& m, int32_t microbatch) {
  std::vector<int32_t> tokens(
      static_cast<size_t>(m.batch.micro_batch_size * (m.batch.seq_len + 1)));
  const uint64_t key = RandomKey(m.seed, "tokens");
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(UniformAt(key, microbatch * 100'000 + i) *
                                     static_cast<double>(m.config.vocab_size));
  }
  return tokens;
}

inline constexpr MicrobatchFields kAllFields{.tokens = true, .labels = true, .positions = true};

inline TokenPositions PositionsOf(const SmallModel& m, int32_t microbatch) {
  if (!m.random_positions) return PositionsOfSequences(m.batch);
  auto positions = std::make_shared<std::vector<int32_t>>();
  const uint64_t key = RandomKey(m.seed, "positions");
  for (int64_t t = 0; t < m.batch.tokens_per_microbatch(); ++t) {
    positions->push_back(
        static_cast<int32_t>(UniformAt(key, static_cast<uint64_t>(microbatch * 100'000 + t)) *
                             static_cast<double>(m.batch.seq_len)));
  }
  return positions;
}

inline void IgnoreSome(const SmallModel& m, int32_t microbatch, std::vector<int32_t>& labels) {
  const uint64_t key = RandomKey(m.seed, "ignored labels");
  const auto number = static_cast<uint64_t>(microbatch);
  const bool whole = UniformAt(RandomKey(m.seed, "ignored microbatches"), number) < m.ignored_share;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (whole || UniformAt(key, number * 100'000 + i) < m.ignored_share) labels[i] = kIgnoredLabel;
  }
}

// Of each sequence the positions of the rank at `context_rank` along cp.
inline Microbatch PartOf(const Microbatch& whole, const BatchArithmetic& batch, int context_rank) {
  Microbatch part;
  auto positions = std::make_shared<std::vector<int32_t>>();
  const std::vector<int32_t> own = troupe::PositionsOf(batch.context, context_rank, batch.seq_len);
  for (int64_t sequence = 0; sequence < batch.micro_batch_size; ++sequence) {
    for (const int32_t position : own) {
      const auto at = static_cast<size_t>(sequence * batch.seq_len + position);
      part.tokens.push_back(whole.tokens[at]);
      part.labels.push_back(whole.labels[at]);
      positions->push_back((*whole.positions)[at]);
      if (batch.packs_documents) part.document_starts.push_back(whole.document_starts[at]);
    }
  }
  part.positions = std::move(positions);
  return part;
}

// By (seed, number); where ranks share sequences, that rank's part. Token 0 ends documents, where
// sequences pack several.
inline Microbatch RandomMicrobatch(const SmallModel& m, int32_t number, int context_rank = 0) {
  SmallModel whole = m;
  whole.batch.context = {};
  MicrobatchFields fields = kAllFields;
  SpecialTokens special;
  if (m.batch.packs_documents) {
    fields.document_starts = true;
    special.document_separator = 0;
  }
  Microbatch data = MicrobatchOf(RandomTokens(m, number), whole.batch, fields,
                                 PositionsOf(whole, number), special);
  IgnoreSome(m, number, data.labels);
  return m.batch.context.shared() ? PartOf(data, m.batch, context_rank) : data;
}

// All stages of a model, run in turn.
class StageChain {
 public:
  explicit StageChain(const SmallModel& model) : model_(model), table_(model.Spec()) {
    auto partition = PartitionStages(table_.model(), model.num_stages, model.batch.seq_len);
    CHECK(partition.ok(), "{}", partition.error().message);
    for (const StageLayout& layout : *partition) {
      StageModelOptions options;
      options.shape = {.model = table_.model(),
                       .layout = layout,
                       .batch = model.batch,
                       .widths = WidthsOf(model.dtype, model.rounds_gradients),
                       .halves = model.halves,
                       .recompute = model.recompute,
                       .open_actions = model.open_actions};
      options.dtype = model.dtype;
      options.specification = model.specification;
      options.new_layer = model.new_layer;
      options.groups = model.groups;
      ledgers_.push_back(std::make_unique<MemoryLedger>());
      stages_.push_back(std::make_unique<StageModel>(options, table_, *ledgers_.back()));
      stages_.back()->parameters().Initialize(model.seed);
      stages_.back()->WeightsChanged();
    }
  }

  // Loss sum of one microbatch; keeps what backward needs.
  double Forward(int32_t microbatch) {
    const Microbatch data = RandomMicrobatch(model_, microbatch);
    Buffer boundary;
    double loss = 0;
    for (auto& stage : stages_) {
      auto result = *RunStraight(stage->Forward(microbatch, std::as_const(boundary).bytes(), data));
      boundary = std::move(result.output);
      if (result.loss) loss += result.loss->nll;
    }
    return loss;
  }
  double Evaluate(int32_t microbatch) {
    const Microbatch data = RandomMicrobatch(model_, microbatch);
    Buffer boundary;
    double loss = 0;
    for (auto& stage : stages_) {
      auto result = *RunStraight(stage->Evaluate(std::as_const(boundary).bytes(), data));
      boundary = std::move(result.output);
      if (result.loss) loss += result.loss->nll;
    }
    return loss;
  }
  void Backward(int32_t microbatch, int num_parts = 1) {
    Buffer boundary;
    for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
      const auto gradient = std::as_const(boundary).bytes();
      if (!model_.halves) {
        boundary = *RunStraight((*stage)->Backward(microbatch, gradient));
        continue;
      }
      boundary = *RunStraight((*stage)->BackwardInput(microbatch, gradient));
      for (int part = 0; part < num_parts; ++part) {
        CHECK(RunStraight((*stage)->BackwardWeight(microbatch, part, num_parts)).ok());
      }
    }
  }
  // Forward and backward of all microbatches, and the tied exchange. Loss sum in order.
  double RunStep(int num_parts = 1) {
    double loss = 0;
    for (int32_t m = 0; m < model_.batch.num_microbatches; ++m) {
      loss += Forward(m);
      Backward(m, num_parts);
    }
    if (table_.tied() && stages_.size() > 1) {
      constexpr auto kTied = SharedWeights::kTied;
      stages_.front()->AddSharedGradient(kTied, stages_.back()->SharedGradient(kTied));
      const TensorView sum = stages_.front()->SharedGradient(kTied);
      std::memcpy(stages_.back()->SharedGradient(kTied).data(), sum.data(),
                  static_cast<size_t>(sum.num_bytes()));
    }
    for (auto& stage : stages_) stage->FinishGradients();
    return loss;
  }
  void Update(const AdamWOptions& options) {
    for (auto& stage : stages_) stage->ApplyUpdate(options, true);
  }

  StageModel& stage(size_t index) { return *stages_[index]; }
  MemoryLedger& ledger(size_t index) { return *ledgers_[index]; }
  size_t num_stages() const { return stages_.size(); }
  const ParameterTable& table() const { return table_; }

  // The owning stage's view of a parameter, and its gradient.
  std::pair<StageModel*, const StageParameter*> Owner(int index) {
    for (auto& stage : stages_) {
      for (const StageParameter& p : stage->parameters().all()) {
        if (p.index == index && p.owned) return {stage.get(), &p};
      }
    }
    CHECK(false, "parameter {} has no owner", index);
    return {};
  }
  // Bytes of all weights and, before Update, of all gradients, in table order.
  std::string WeightBytes() {
    std::string bytes;
    for (int i = 0; i < table_.size(); ++i) {
      const auto [stage, parameter] = Owner(i);
      bytes.append(static_cast<const char*>(parameter->weight.data()),
                   static_cast<size_t>(parameter->weight.num_bytes()));
    }
    return bytes;
  }
  std::string GradientBytes() {
    std::string bytes;
    for (int i = 0; i < table_.size(); ++i) {
      const auto [stage, parameter] = Owner(i);
      const ConstTensorView gradient = stage->Gradient(*parameter);
      bytes.append(static_cast<const char*>(gradient.data()),
                   static_cast<size_t>(gradient.num_bytes()));
    }
    return bytes;
  }

 private:
  const SmallModel model_;
  const ParameterTable table_;
  std::vector<std::unique_ptr<MemoryLedger>> ledgers_;
  std::vector<std::unique_ptr<StageModel>> stages_;
};

}  // namespace troupe::testing

// What the benchmarks of a step train: models of two sizes, each as one stage with every layer, on
// one math thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/model/stage_model.h"
#include "actors/plan/stage_partition.h"
#include "actors/step_decision.h"
#include "tests/support/small_model.h"

namespace troupe {

struct TrainingCase {
  std::string name{};
  testing::SmallModel model{};
  int steps_per_sample = 1;
};

// The dimensions of examples/pretrain-tiny.yaml.
inline TrainingCase TinyCase() {
  TrainingCase tiny{.name = "tiny", .steps_per_sample = 3};
  tiny.model.config = {.hidden_size = 96,
                       .intermediate_size = 256,
                       .num_hidden_layers = 8,
                       .num_attention_heads = 6,
                       .num_key_value_heads = 2,
                       .head_dim = 16,
                       .vocab_size = 256,
                       .tie_word_embeddings = true};
  tiny.model.batch = {.micro_batch_size = 2,
                      .global_batch_size = 16,
                      .seq_len = 128,
                      .num_microbatches = 8,
                      .gradient_groups = 1};
  return tiny;
}

// A model whose products are worth a worker.
inline TrainingCase SmallCase() {
  TrainingCase small{.name = "small"};
  small.model.config = {.hidden_size = 384,
                        .intermediate_size = 1024,
                        .num_hidden_layers = 6,
                        .num_attention_heads = 6,
                        .num_key_value_heads = 2,
                        .head_dim = 64,
                        .vocab_size = 4096};
  small.model.batch = {.micro_batch_size = 2,
                       .global_batch_size = 8,
                       .seq_len = 256,
                       .num_microbatches = 4,
                       .gradient_groups = 1};
  return small;
}

inline constexpr AdamWOptions kTraineeAdamW{
    .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
inline constexpr double kTraineeClip = 1.0;

// One stage with every layer, as a worker's stream runs it.
class Trainee {
 public:
  explicit Trainee(const testing::SmallModel& model) : model_(model), chain_(model) {
    for (int32_t m = 0; m < model.batch.num_microbatches; ++m) {
      microbatches_.push_back(testing::RandomMicrobatch(model, m));
    }
  }

  // Returns the mean loss.
  double Step() {
    StageModel& stage = chain_.stage(0);
    double loss_sum = 0;
    int64_t num_labels = 0;
    for (int32_t m = 0; m < model_.batch.num_microbatches; ++m) {
      const auto result = *RunStraight(stage.Forward(m, {}, microbatches_[static_cast<size_t>(m)]));
      CHECK(RunStraight(stage.Backward(m, {})).ok());
      loss_sum += result.loss->nll;
      num_labels += result.loss->num_tokens;
    }
    proto::Vote vote;
    for (const proto::NormNode& node : stage.NormNodes()) *vote.add_norm_nodes() = node;
    const auto norm = GradientNorm({&vote, 1}, chain_.table().size());
    CHECK(norm.ok(), "{}", norm.error().message);
    AdamWOptions adamw = kTraineeAdamW;
    adamw.step = ++step_;
    adamw.grad_factor =
        GradientFactor(*norm / static_cast<double>(num_labels), kTraineeClip, num_labels);
    stage.ApplyUpdate(adamw, true);
    return loss_sum / static_cast<double>(num_labels);
  }

  // What the peer starts from and learns.
  std::string WeightBytes() { return chain_.WeightBytes(); }
  std::string TokenBytes() const {
    std::string bytes;
    for (int32_t m = 0; m < model_.batch.num_microbatches; ++m) {
      const std::vector<int32_t> rows = testing::RandomTokens(model_, m);
      bytes.append(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(int32_t));
    }
    return bytes;
  }

 private:
  const testing::SmallModel model_;
  testing::StageChain chain_;
  std::vector<Microbatch> microbatches_;
  int64_t step_ = 0;
};

}  // namespace troupe

// Whole runs of the real program, for benchmarks of their steps: a model of trainee.h in a folder
// of its own. The text is one step long, so every step has the same samples, in another order.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/benchmark/bench.h"
#include "tests/benchmark/trainee.h"
#include "tests/support/shell.h"
#include "tests/support/temporary_folder.h"

namespace troupe {

// By step; as metrics.jsonl has them.
struct MeasuredSteps {
  std::vector<double> step_ms{};
  std::vector<double> end_ms{};  // when it was committed
  std::vector<double> losses{};
  std::string failure{};  // why there are none
};

class MeasuredJob {
 public:
  // Not in these: the first touch memory and are traced.
  static constexpr int kFirstSteps = 5;

  explicit MeasuredJob(const testing::SmallModel& model) : model_(model) {
    const int64_t num_tokens = model.batch.global_batch_size * model.batch.seq_len + 1;
    const uint64_t key = RandomKey(model.seed, "tokens");
    for (int64_t i = 0; i < num_tokens; ++i) {
      tokens_.push_back(static_cast<int32_t>(UniformAt(key, static_cast<uint64_t>(i)) *
                                             static_cast<double>(model.config.vocab_size)));
    }
    std::string file(1024, '\0');  // llm.c's: 256 words, and a token in two bytes
    const int32_t header[] = {20240520, 1, static_cast<int32_t>(num_tokens)};
    std::memcpy(file.data(), header, sizeof(header));
    for (const int32_t token : tokens_) {
      file += static_cast<char>(token & 0xff);
      file += static_cast<char>(token >> 8);
    }
    folder_.Write("tokens.bin", file);
    folder_.Write("job.yaml", JobText());
  }

  // `sets`: what --set takes besides.
  MeasuredSteps Run(int num_steps, const std::string& sets) {
    const std::string run =
        fmt::format("cd {} && rm -rf run && {} run job.yaml --run-dir run --set train.steps={} {}",
                    folder_.path(), Program(), num_steps, sets);
    const auto ended = testing::Shell(run + " 2>&1 >/dev/null | tail -1");
    MeasuredSteps steps;
    std::ifstream metrics(folder_ / "run/metrics.jsonl");
    for (std::string line; std::getline(metrics, line);) {
      const auto row = nlohmann::json::parse(line);
      if (!row.contains("step_seconds")) continue;
      steps.step_ms.push_back(1000 * row["step_seconds"].get<double>());
      steps.end_ms.push_back(1000 * row["time"].get<double>());
      steps.losses.push_back(row["loss"].get<double>());
    }
    if (std::ssize(steps.losses) != num_steps) steps = {.failure = ended.output};
    return steps;
  }
  // Of a step, in the median.
  static double StepMs(const MeasuredSteps& steps) {
    const auto& all = steps.step_ms;
    return bench::Median(
        {all.begin() + std::min<int64_t>(kFirstSteps, std::ssize(all)), all.end()});
  }

  int64_t tokens_per_step() const { return model_.batch.global_batch_size * model_.batch.seq_len; }
  // One row for each sample: its tokens and the label behind the last, int32.
  std::string RowBytes() const {
    std::string rows;
    for (int64_t sample = 0; sample < model_.batch.global_batch_size; ++sample) {
      rows.append(reinterpret_cast<const char*>(tokens_.data() + sample * model_.batch.seq_len),
                  static_cast<size_t>(model_.batch.seq_len + 1) * sizeof(int32_t));
    }
    return rows;
  }
  // With which the job begins, in the table's order.
  std::string WeightBytes() { return testing::StageChain(model_).WeightBytes(); }
  const testing::TemporaryFolder& folder() const { return folder_; }

 private:
  static std::string Program() {
    const auto own = std::filesystem::read_symlink("/proc/self/exe");
    return (own.parent_path().parent_path() / "troupe").string();
  }
  std::string JobText() const {
    const ModelConfig& c = model_.config;
    return fmt::format(
        R"(name: measured
model: {{vocab_size: {}, hidden_size: {}, intermediate_size: {}, num_hidden_layers: {},
        num_attention_heads: {}, num_key_value_heads: {}, head_dim: {}, rms_norm_eps: {},
        max_position_embeddings: {}, tie_word_embeddings: {}}}
data: {{train: tokens.bin}}
batch: {{micro_batch_size: {}, global_batch_size: {}, seq_len: {}}}
optimizer: {{lr: {}, betas: [{}, {}], eps: {}, weight_decay: {}, grad_clip: {}}}
train: {{seed: {}, dtype: {}}}
checkpoint: {{every: 0}}
)",
        c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers,
        c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.rms_norm_eps,
        model_.batch.seq_len, c.tie_word_embeddings, model_.batch.micro_batch_size,
        model_.batch.global_batch_size, model_.batch.seq_len, kTraineeAdamW.lr, kTraineeAdamW.beta1,
        kTraineeAdamW.beta2, kTraineeAdamW.eps, kTraineeAdamW.weight_decay, kTraineeClip,
        model_.seed, DTypeName(model_.dtype));
  }

  const testing::SmallModel model_;
  const testing::TemporaryFolder folder_{};
  std::vector<int32_t> tokens_{};
};

}  // namespace troupe

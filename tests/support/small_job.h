// A small job and its text in a folder of its own, for tests of whole programs.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace troupe::testing {

inline constexpr char kSmallJob[] = R"(
name: small
model: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 4,
        num_key_value_heads: 2, vocab_size: 256, max_position_embeddings: 64}
data: {train: text.txt, val_fraction: 0.2}
parallelism: {pp: 4}
batch: {micro_batch_size: 2, global_batch_size: 8, seq_len: 32}
optimizer: {lr: 1.0e-3}
train: {steps: 6, seed: 3}
)";

inline void WriteSmallJob(const TemporaryFolder& folder) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "a pipeline of worker actors " + std::to_string(i) + "\n";
  folder.Write("text.txt", text);
  folder.Write("job.yaml", kSmallJob);
}

// Steps in the output of `-o jsonl`: step, loss, grad_norm, lr and tokens of each, not the times.
inline std::vector<std::string> StepsOf(const std::string& output) {
  std::vector<std::string> steps;
  std::istringstream stream(output);
  for (std::string line; std::getline(stream, line);) {
    const size_t loss = line.find("\"loss\":");
    const size_t end = line.find(",\"tokens_per_second\"");
    if (loss == std::string::npos || end == std::string::npos) continue;
    steps.push_back(line.substr(0, line.find(",\"time\"")) + line.substr(loss, end - loss));
  }
  return steps;
}

}  // namespace troupe::testing

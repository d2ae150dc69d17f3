// A small job that may start: its file, its data, and the effective job made of both.
#pragma once

#include <string>
#include <vector>

#include "tests/support/load_job.h"
#include "tests/support/temporary_folder.h"

namespace troupe::testing {

inline constexpr std::string_view kTinyJob = R"(name: small
model:
  hidden_size: 16
  intermediate_size: 32
  num_hidden_layers: 4
  num_attention_heads: 4
  num_key_value_heads: 2
  vocab_size: 256
data: {train: text.txt}
parallelism: {pp: 2, schedule: 1f1b}
batch: {micro_batch_size: 1, global_batch_size: 4, seq_len: 8}
train: {steps: 20, seed: 7}
)";

// A folder with job.yaml and the text that it trains on.
class JobFolder {
 public:
  explicit JobFolder(std::string_view yaml = kTinyJob) {
    folder.Write("text.txt", std::string(1000, 'x'));
    path = folder.Write("job.yaml", yaml);
  }
  Result<LoadedJob> Load(const std::vector<std::string>& sets = {}) const {
    std::vector<Override> overrides;
    for (const std::string& set : sets) {
      ASSIGN_OR_RETURN(auto one, ParseOverride(set));
      overrides.push_back(std::move(one));
    }
    return LoadJob(SystemFiles(), path, overrides);
  }
  // What loading says, every sentence in a line of its own; empty where the job is good.
  std::string Errors(const std::vector<std::string>& sets = {}) const {
    const auto job = Load(sets);
    return job.ok() ? "" : job.error().message;
  }

  TemporaryFolder folder;
  std::string path;
};

}  // namespace troupe::testing

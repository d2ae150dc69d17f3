// StageParameters: the masters of one stage with their optimizer state, by shards of the parameter
// table. Masters of all parameters lie in one buffer in table order, so that query, key and value
// (and gate and up) are one matrix to the product; likewise m, v and gradients. What products read
// belongs to the units (unit_weights.h).
//
// Thread: the compute stream's.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "actors/plan/parameter_shard.h"
#include "actors/plan/parameter_table.h"
#include "actors/plan/stage_partition.h"
#include "kernels/adamw.h"
#include "kernels/tensor_view.h"
#include "proto/training.pb.h"
#include "runtime/memory/buffer.h"

namespace troupe {

struct StageParameter {
  int index = 0;  // in the parameter table
  const ParameterSpec* spec = nullptr;
  bool owned = true;  // voted, saved and exported by this stage
  ParameterShard shard{};
  int64_t first_element = 0;  // in the stage's buffers
  TensorView weight{};        // master: of a whole parameter (rows, columns) or (rows), else flat
  TensorView m{};
  TensorView v{};
  TensorView compute{};  // what products read: the master, or its copy; empty while it is absent
};

// Of the parameter that `spec` describes.
TensorView Shaped(void* data, DType dtype, const ParameterSpec& spec);

// The shard's votes for the squared norm of its gradient.
void AddNormNodes(const Exec& exec, const StageParameter& parameter, ConstTensorView gradient,
                  std::vector<proto::NormNode>& votes);

class StageParameters {
 public:
  struct Options {
    DType master = DType::kFloat32;
    double initializer_range = 0.02;
    bool owner = true;  // false: another stage votes, saves and exports all of them
    ShardPlace shards{};
  };
  // The table outlives this.
  StageParameters(const Options& options, const ParameterTable& table, const StageLayout& layout,
                  MemoryLedger& ledger);

  std::span<const StageParameter> all() const { return parameters_; }
  const StageParameter& Of(int table_index) const;
  int64_t num_elements() const { return num_elements_; }

  void Initialize(uint64_t seed);
  DType master() const { return options_.master; }
  void SetCompute(int table_index, TensorView compute);
  // One parameter's AdamW step, and its compute copy's; `gradient` has its elements.
  void Update(const Exec& exec, const AdamWOptions& options, const StageParameter& parameter,
              ConstTensorView gradient);

 private:
  size_t At(int table_index) const;

  const Options options_;
  std::vector<StageParameter> parameters_;
  std::map<int, size_t> by_index_;
  int64_t num_elements_ = 0;
  Buffer masters_;
  Buffer moments_;  // m, then v
};

}  // namespace troupe

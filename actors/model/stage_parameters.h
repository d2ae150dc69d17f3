// StageParameters: the weights of one stage with their optimizer state, by the parameter table.
// Masters of all parameters lie in one buffer in table order, so that query, key and value (and
// gate and up) are one matrix to the product; likewise m, v and gradients.
//
// Thread: the compute stream's.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "actors/plan/parameter_table.h"
#include "actors/plan/stage_partition.h"
#include "kernels/adamw.h"
#include "kernels/matmul.h"
#include "kernels/tensor_view.h"
#include "runtime/memory/buffer.h"

namespace troupe {

struct StageParameter {
  int index = 0;  // in the parameter table
  const ParameterSpec* spec = nullptr;
  bool owned = true;  // voted, saved and exported by this stage
  int64_t first_element = 0;
  TensorView weight{};  // master, (rows, columns) or (rows)
  TensorView m{};
  TensorView v{};
};

class StageParameters {
 public:
  struct Options {
    DType compute = DType::kFloat32;
    DType master = DType::kFloat32;
    double initializer_range = 0.02;
    bool owner = true;  // false: another stage votes, saves and exports all of them
  };
  // The table outlives this.
  StageParameters(const Options& options, const ParameterTable& table, const StageLayout& layout,
                  MemoryLedger& ledger);

  std::span<const StageParameter> all() const { return parameters_; }
  const StageParameter& Of(int table_index) const;
  int64_t num_elements() const { return num_elements_; }

  void Initialize(uint64_t seed);
  // What the products read: the master, or its bfloat16 copy. `num_parameters` neighbours in the
  // table as one matrix (their columns agree).
  ConstTensorView Compute(int table_index, int num_parameters = 1) const;
  // One parameter's AdamW step; `gradient` has its elements.
  void Update(const Exec& exec, const AdamWOptions& options, const StageParameter& parameter,
              ConstTensorView gradient);
  // Rounds all masters to the compute copy, where there is one.
  void RoundMasters(const Exec& exec);

 private:
  TensorView In(const Buffer& buffer, DType dtype, const StageParameter& parameter) const;

  const Options options_;
  std::vector<StageParameter> parameters_;
  std::map<int, size_t> by_index_;
  int64_t num_elements_ = 0;
  Buffer masters_;
  Buffer computes_;  // empty where compute and master agree
  Buffer moments_;   // m, then v
};

}  // namespace troupe

// StageParameters: the masters of one stage with their optimizer state, by shards of the parameter
// table. Masters of all parameters lie in one buffer in table order, so that query, key and value
// (and gate and up) are one matrix to the product; likewise m, v and gradients. What products read
// belongs to the units (unit_weights.h).
//
//   S1. Moments are the shards' alone. Masters are whole where products read them as they are, else
//       the shards' too. Where rows are gathered for each pass, nothing is whole. A shard of a row
//       that persists is all of it.
//
// Thread: the compute stream's.
#pragma once

#include <cstdint>
#include <functional>
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
  bool owned = true;     // its shard is voted and saved by this stage of this rank
  bool exported = true;  // whole, by this rank
  ParameterShard shard{};
  int64_t first_element = 0;  // of the whole, in the stage's list in table order
  TensorView whole{};         // master; empty where only the shard's is kept (S1)
  TensorView weight{};  // the shard's: of a whole parameter (rows, columns) or (rows), or flat
  TensorView m{};
  TensorView v{};
  TensorView copy{};  // the shard's in the compute dtype, where rows are gathered from it
  // What products read: the master, or its copy; empty while it is absent. Where rows are gathered
  // it is always there of those that persist.
  TensorView compute{};
};

// Of the parameter that `spec` describes.
TensorView Shaped(void* data, DType dtype, const ParameterSpec& spec);

// A row of parameters that is shared out (ShardRowsOf), as it lies in the stage's list.
struct ShardRow {
  std::vector<int> parameters{};  // table indices
  int64_t first_element = 0;
  int64_t num_elements = 0;
  std::vector<int64_t> counts{};  // elements of each owner's run, in their order
  int64_t own_first = 0;          // of this owner's run in the row
  int64_t own_count = 0;
  int64_t own_place = 0;  // of that run among all runs of this owner
  bool persists = false;  // whole at every owner, whose run is all of it
};

// The shard's votes for the squared norm of its gradient.
void AddNormNodes(const Exec& exec, const StageParameter& parameter, ConstTensorView gradient,
                  std::vector<proto::NormNode>& votes);

class StageParameters {
 public:
  struct Options {
    DType master = DType::kFloat32;
    double initializer_range = 0.02;
    bool exporter = true;
    ShardPlace shards{};
    bool whole_masters = true;        // though the shards are not: products read them
    bool gathered = false;            // rows are gathered for each pass: shards alone are kept
    DType compute = DType::kFloat32;  // what products read
  };
  // The table outlives this.
  StageParameters(const Options& options, const ParameterTable& table, const StageLayout& layout,
                  MemoryLedger& ledger);

  std::span<const StageParameter> all() const { return parameters_; }
  const StageParameter& Of(int table_index) const;
  int64_t num_elements() const { return num_elements_; }  // whole
  std::span<const ShardRow> rows() const { return rows_; }
  bool gathered() const { return options_.gathered; }
  // What products read of a row, as one run.
  std::span<std::byte> ComputeRow(const ShardRow& row) const;
  // This rank's run of the row in the compute dtype, where rows are gathered.
  std::span<const std::byte> OwnRun(const ShardRow& row) const;

  void Initialize(uint64_t seed);
  // `fill` writes each parameter's whole master; where only a shard's is kept, that and the compute
  // copy are made of it, one parameter at a time.
  Status Fill(const std::function<Status(const StageParameter& parameter, TensorView whole)>& fill);
  DType master() const { return options_.master; }
  void SetCompute(int table_index, TensorView compute);
  // One shard's AdamW step, and its compute copy's; `gradient` has its elements.
  void Update(const Exec& exec, const AdamWOptions& options, const StageParameter& parameter,
              ConstTensorView gradient);

 private:
  size_t At(int table_index) const;
  void AddRow(const ParameterTable& table, const ParameterRow& of, std::span<const int> owned);
  void PlaceBuffers(MemoryLedger& ledger);
  void LetPersist(const ShardRow& row);

  const Options options_;
  std::vector<StageParameter> parameters_;
  std::vector<ShardRow> rows_;
  std::map<int, size_t> by_index_;
  int64_t num_elements_ = 0;
  int64_t owned_elements_ = 0;
  Buffer masters_;
  Buffer moments_;  // m, then v
  Buffer
      copies_;  // of the shards, in the compute dtype, where that is another and rows are gathered
};

}  // namespace troupe

// UnitWeights: what the products of one unit read, made from the masters of its parameters: a copy
// in the compute dtype, where that is another than the masters', and copies in the layouts that the
// products read fastest. They can be dropped and made again, so that a unit need not be there while
// others are at work.
//
//     absent --Gather--> gathering --Ready--> ready --Drop--> absent
//                    (memory is there)
//
// Thread: the compute stream's.
//   W1. Only what is ready is read; anything else is a CHECK with the unit's name.
//   W2. Ready makes equal bytes of equal masters. Where only shards of them are here, whoever wants
//       the unit fills each of its rows (StageParameters::ComputeRow) between Gather and Ready
//       (unit_residency.h); where copies are whole beside them, what is dropped could not be made
//       again: Drop is a CHECK.
//   W3. A unit that comes and goes is packed for a use when that use first reads it: most passes
//       have one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "actors/model/gathered_memory.h"
#include "actors/model/stage_parameters.h"
#include "kernels/matmul.h"
#include "runtime/memory/buffer.h"

namespace troupe {

enum class WeightsState : uint8_t { kAbsent, kGathering, kReady };

class UnitWeights {
 public:
  struct Options {
    std::string name{};                 // "layer 3", for sentences
    std::span<const int> parameters{};  // table indices, in the order of the unit's spec
    std::vector<int> own_parameters{};  // without those that an earlier unit of the stage keeps
    DType compute = DType::kFloat32;
    bool lent = false;                   // ranks of this host read a copy in place after an update
    GatheredMemory* gathered = nullptr;  // where they come and go
  };
  // What the options and the arguments point to outlives this.
  UnitWeights(Options options, StageParameters& masters, MemoryLedger& ledger);

  // A product with `num_parameters` neighbours of the unit's as one matrix. Returns its number.
  int AddProduct(const MatmulShape& shape, int first_parameter, int num_parameters);

  const std::string& name() const { return options_.name; }
  WeightsState state() const { return state_; }
  void Gather();
  // Rounds the masters and packs; gathers first where nothing is there. Also after the masters have
  // changed. Where only shards of the masters are here, the copies are whole already (Fill).
  void Ready(const Exec& exec);
  // The same where the optimizer has written the compute copy already; nothing where absent.
  void Repack(const Exec& exec);
  void Drop();

  // Parameter `place` of the unit's spec, in the compute dtype; `num_parameters` neighbours as one
  // matrix (their columns agree).
  ConstTensorView Compute(int place, int num_parameters = 1) const;
  const PackedWeight& Packed(const Exec& exec, int product, WeightUse use);

 private:
  struct Copy {
    PackedWeight packed{};  // without a weight where it is not packed
    Buffer memory{};        // empty where packing does not pay
    int64_t layout = 0;     // GatheredMemory's: of this use of equal products
  };
  struct Product {
    MatmulShape shape{};
    int first_parameter = 0;
    int num_parameters = 1;
    Copy forward{};
    Copy input_grad{};
  };
  ConstTensorView Matrix(int place, int num_parameters) const;
  void Pack(const Exec& exec, const Product& product, WeightUse use, Copy& copy);
  void CheckReady() const;

  const Options options_;
  StageParameters& masters_;
  MemoryLedger& ledger_;
  std::vector<Product> products_{};
  Buffer computes_{};  // of own parameters; empty where compute and master agree
  WeightsState state_ = WeightsState::kAbsent;
};

}  // namespace troupe

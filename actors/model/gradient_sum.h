// GradientSum: the gradients of a stage, summed over the microbatches of a step in the one order
// that every layout shares. `groups` groups of consecutive microbatches are each summed in
// ascending order, then the groups in ascending order.
//
// Thread: the compute stream's.
//   G1. Each accumulator sees ascending microbatches within a step.
//   G2. With one group there is one buffer; with more, a second one holds the group at work.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/exec.h"
#include "kernels/tensor_view.h"
#include "runtime/memory/buffer.h"

namespace troupe {

class GradientSum {
 public:
  struct Options {
    int64_t num_elements = 0;
    DType dtype = DType::kFloat32;  // float32 or float64
    int32_t num_microbatches = 1;
    int32_t groups = 1;
  };
  GradientSum(const Options& options, MemoryLedger& ledger);

  // A run of elements that one product sums into. Returns its number.
  int AddAccumulator(int64_t first_element, int64_t num_elements);

  // Where microbatch `microbatch` adds its gradient: dense, of the accumulator's elements.
  TensorView Target(const Exec& exec, int accumulator, int32_t microbatch);
  // Adds the last groups. Idempotent until Reset.
  void Finish(const Exec& exec);
  // Zeroes everything for the next step.
  void Reset(const Exec& exec);

  // The sum over the step, valid after Finish.
  TensorView Sum(int64_t first_element, int64_t num_elements) const;
  TensorView All() const { return Sum(0, options_.num_elements); }

 private:
  struct Accumulator {
    int64_t first_element = 0;
    int64_t num_elements = 0;
    int32_t group = 0;
  };
  TensorView In(const Buffer& buffer, const Accumulator& accumulator) const;
  void CloseGroup(const Exec& exec, Accumulator& accumulator);

  const Options options_;
  const int32_t group_size_;
  Buffer total_;
  Buffer group_;
  std::vector<Accumulator> accumulators_;
  bool finished_ = false;
};

}  // namespace troupe

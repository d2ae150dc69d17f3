// The gradients of a stage, summed over the microbatches of a step in the one order that every
// layout shares: `groups` groups of consecutive microbatches are each summed in ascending order,
// then the groups in ascending order.
//
// Thread: the compute stream's.
//   G1. Each accumulator sees ascending microbatches within a step.
//   G2. With one group GradientSum has one buffer; with more, a second one holds the group at work.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/exec.h"
#include "kernels/tensor_view.h"
#include "runtime/memory/buffer.h"

namespace troupe {

// What units add their gradients to, and where the step's sum is.
class Gradients {
 public:
  virtual ~Gradients() = default;

  // A run of elements that one product sums into, where the stage's gradients lie one behind the
  // other. Returns its number.
  virtual int AddAccumulator(int64_t first_element, int64_t num_elements) = 0;
  // Where microbatch `microbatch` adds its gradient: dense, of the accumulator's elements.
  virtual TensorView Target(const Exec& exec, int accumulator, int32_t microbatch) = 0;
  // Adds the last groups. Idempotent until Reset.
  virtual void Finish(const Exec& exec) = 0;
  // Zeroes everything for the next step.
  virtual void Reset(const Exec& exec) = 0;
  // The sum over the step, valid after Finish: of elements that this rank has.
  virtual TensorView Sum(int64_t first_element, int64_t num_elements) const = 0;
};

// A rank's own sum: each microbatch adds to it as it is computed.
class GradientSum final : public Gradients {
 public:
  struct Options {
    int64_t num_elements = 0;
    DType dtype = DType::kFloat32;  // float32 or float64
    int32_t num_microbatches = 1;
    int32_t groups = 1;
    bool lent = false;  // ranks of this host add it up: they read it in place
  };
  GradientSum(const Options& options, MemoryLedger& ledger);

  int AddAccumulator(int64_t first_element, int64_t num_elements) override;
  TensorView Target(const Exec& exec, int accumulator, int32_t microbatch) override;
  void Finish(const Exec& exec) override;
  void Reset(const Exec& exec) override;
  TensorView Sum(int64_t first_element, int64_t num_elements) const override;
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

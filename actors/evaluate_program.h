// EvaluateProgram: the mean loss over the labels of the validation data that count, forward only,
// as a program of its own or in the middle of training.
#pragma once

#include "actors/program.h"
#include "actors/step_decision.h"

namespace troupe {

struct EvaluateOptions {
  int32_t rounds = 0;
  int32_t num_microbatches = 0;  // of a round and data-parallel rank
  int32_t data_parallel = 1;
  int32_t context_parallel = 1;  // ranks that vote for a microbatch
  int64_t global_batch_size = 0;
};

class EvaluateProgram : public Program {
 public:
  explicit EvaluateProgram(const EvaluateOptions& options) : options_(options) {}

  void Begin(const TrainingProgress& progress, int64_t now_ns) override;
  std::optional<Deed> Next(int64_t now_ns) override;
  Result<Verdict> Decide(std::vector<proto::Vote> votes) override;
  ProgramNews Committed(int64_t took_ns) override;
  void Saved(int64_t) override {}
  void Choose(size_t) override {}
  void Cancel(bool) override { cancelled_ = true; }  // what is left is not evaluated, nor told
  int64_t last_step() const override { return step_; }

 private:
  const EvaluateOptions options_;
  int64_t step_ = 0;  // that is evaluated
  int32_t round_ = 0;
  StepSums sums_{};
  bool cancelled_ = false;
};

}  // namespace troupe

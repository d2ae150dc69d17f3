// TrainProgram: optimizer steps, and between them evaluations and checkpoints; after the last one a
// sample.
//
//   Begin --> step --> [evaluation] --> [checkpoint] --> step … --> last step --> [evaluation]
//     --> [checkpoint] --> [sample]
//
//   T1. A run that begins after its last step still does what follows that step.
//   T2. A cancelled one ends after the open step, with a checkpoint where one is asked for, and
//       evaluates and samples no more.
//   T3. Losses are added by ascending microbatch, and of one by ascending rank, norm roots in table
//       order: one shape in every layout (DESIGN: sums that decide something).
//   T4. A step in which no label counts is skipped: it commits without an update, so weights,
//       moments and the number of updates stay, and the samples are passed. It has no loss.
#pragma once

#include <functional>
#include <memory>

#include "actors/evaluate_program.h"
#include "actors/program.h"
#include "actors/sample_program.h"
#include "actors/step_decision.h"

namespace troupe {

struct TrainOptions {
  int64_t steps = 0;             // the last step of this run: stop_after, or train.steps
  int32_t num_microbatches = 0;  // of a data-parallel rank
  int32_t data_parallel = 1;
  int32_t context_parallel = 1;  // ranks that vote for a microbatch: they share its sequences
  int64_t global_batch_size = 0;
  int32_t num_parameters = 0;
  double grad_clip = 0;
  int32_t evaluate_every = 0;
  EvaluateOptions evaluate{};
  int32_t checkpoint_every = 0;
  int64_t checkpoint_every_seconds = 0;  // since the last one, or the start; 0: never
  bool checkpoint_at_end = true;
  SampleOptions sample{};    // after the last step
  double step_flops = 0;     // that the model takes in a step
  double product_flops = 0;  // a second, of all ranks' devices; 0: not known
  std::function<double(int64_t step)> learning_rate{};
};

class TrainProgram : public Program {
 public:
  explicit TrainProgram(TrainOptions options);

  void Begin(const TrainingProgress& progress, int64_t now_ns) override;
  std::optional<Deed> Next(int64_t now_ns) override;
  Result<Verdict> Decide(std::vector<proto::Vote> votes) override;
  ProgramNews Committed(int64_t took_ns) override;
  void Saved(int64_t now_ns) override { saved_ns_ = now_ns; }
  void Choose(size_t order) override { order_ = order; }
  void Cancel(bool checkpoint) override;
  int64_t last_step() const override { return progress_.step; }

 private:
  bool IsLastStep() const { return progress_.step >= options_.steps || cancelling_; }
  bool EvaluationIsDue() const;
  bool CheckpointIsDue(int64_t now_ns) const;
  bool SampleIsDue() const;
  std::optional<Deed> StartPart(std::unique_ptr<Program> part, int64_t now_ns);
  Round NextStep();

  const TrainOptions options_;
  TrainingProgress progress_{};       // of the last committed step
  std::unique_ptr<Program> part_{};   // the evaluation or the sample under way
  std::vector<proto::Vote> votes_{};  // of the step to be committed
  StepSums decided_{};
  double decided_norm_ = 0;
  size_t order_ = 0;           // that the next step runs
  int32_t running_order_ = 0;  // of the open or last one
  int64_t saved_ns_ = 0;       // the last checkpoint's begin or end, or the start's
  // What follows the last committed step and is done.
  bool evaluated_ = false;
  bool checkpointed_ = false;
  bool sampled_ = false;
  bool cancelling_ = false;
  bool checkpoint_on_cancel_ = true;
};

}  // namespace troupe

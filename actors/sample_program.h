// SampleProgram: goes on from a prompt, one token a round, as a program of its own or after
// training.
#pragma once

#include <utility>

#include "actors/program.h"

namespace troupe {

struct SampleOptions {
  std::vector<int32_t> prompt{};
  int32_t tokens = 0;
  double temperature = 0;  // 0: greedy
  int32_t seed = 0;
  int32_t seq_len = 0;  // the model sees at most so many tokens: the newest
};

class SampleProgram : public Program {
 public:
  explicit SampleProgram(SampleOptions options) : options_(std::move(options)) {}

  void Begin(const TrainingProgress& progress, int64_t now_ns) override;
  std::optional<Deed> Next(int64_t now_ns) override;
  Result<Verdict> Decide(std::vector<proto::Vote> votes) override;
  ProgramNews Committed(int64_t took_ns) override;
  void Saved(int64_t) override {}
  void Choose(size_t) override {}
  void Cancel(bool) override { cancelled_ = true; }
  int64_t last_step() const override { return step_; }

 private:
  bool IsOver() const;

  const SampleOptions options_;
  int64_t step_ = 0;
  std::vector<int32_t> sequence_{};  // the prompt and what was drawn
  bool cancelled_ = false;
};

}  // namespace troupe

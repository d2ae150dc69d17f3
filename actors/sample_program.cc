#include "actors/sample_program.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace troupe {

void SampleProgram::Begin(const TrainingProgress& progress, int64_t) {
  step_ = progress.step;
  sequence_ = options_.prompt;
}

bool SampleProgram::IsOver() const {
  const size_t drawn = sequence_.size() - options_.prompt.size();
  return drawn >= static_cast<size_t>(options_.tokens) || (cancelled_ && drawn > 0);
}

std::optional<Deed> SampleProgram::Next(int64_t) {
  if (IsOver()) return std::nullopt;
  Round round;
  round.start.set_mode(proto::STEP_MODE_SAMPLE);
  round.start.set_step(step_);
  round.start.set_num_microbatches(1);
  round.start.set_temperature(options_.temperature);
  round.start.set_sample_seed(options_.seed);
  round.start.set_first_sample(static_cast<int64_t>(sequence_.size()));
  const auto seen = std::min<size_t>(sequence_.size(), static_cast<size_t>(options_.seq_len));
  round.start.mutable_tokens()->Assign(sequence_.end() - static_cast<int64_t>(seen),
                                       sequence_.end());
  return round;
}

Result<Verdict> SampleProgram::Decide(std::vector<proto::Vote> votes) {
  const auto token = std::ranges::find_if(
      votes, [](const proto::Vote& vote) { return vote.sampled_token() >= 0; });
  if (token == votes.end()) {
    return MakeError(ErrorCode::kFailed, "no rank voted a sampled token");
  }
  sequence_.push_back(token->sampled_token());
  if (!IsOver()) return Verdict{};
  return Verdict{
      .news = TokensSampled{
          {sequence_.begin() + static_cast<int64_t>(options_.prompt.size()), sequence_.end()}}};
}

ProgramNews SampleProgram::Committed(int64_t) {
  CHECK(false, "sampling commits nothing");
  return {};
}

}  // namespace troupe

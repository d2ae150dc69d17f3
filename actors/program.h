// Program: what a job's ranks do, as deeds in a row: a round of actions, or the saving of their
// shards. The schedule actor asks for the next one, has it done by all ranks and hands in their
// votes; the program decides. Pure: no message, no wait, no clock. job.kind names it (ProgramOf).
//
//   P1. Next is called when nothing is open: at the start, and when the last deed is over.
//   P2. A round whose verdict has a commit is over when every rank has applied it (Committed), any
//       other with the verdict.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "actors/job_messages.h"
#include "actors/training_progress.h"
#include "proto/training.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// Every rank runs its list of this mode and votes. The round's number is the schedule actor's.
struct Round {
  proto::StepStart start{};
};
// Every rank writes its shards of progress.step, and rank 0 commits them.
struct Save {
  TrainingProgress progress{};
  int64_t steps_left = 0;
};
using Deed = std::variant<Round, Save>;

// What the job actor is told.
using ProgramNews = std::variant<StepCommitted, proto::EvalMetrics, TokensSampled>;

struct Verdict {
  std::optional<proto::Commit> commit{};
  std::optional<ProgramNews> news{};
};

class Program {
 public:
  virtual ~Program() = default;

  // Goes on from `progress`; `now_ns` as in the calls below.
  virtual void Begin(const TrainingProgress& progress, int64_t now_ns) = 0;
  // Nothing: the program is over.
  virtual std::optional<Deed> Next(int64_t now_ns) = 0;
  // What the votes of the round (by rank) come to; an error ends the job.
  virtual Result<Verdict> Decide(std::vector<proto::Vote> votes) = 0;
  // The commit is applied, `took_ns` after the round's start.
  virtual ProgramNews Committed(int64_t took_ns) = 0;
  virtual void Saved(int64_t now_ns) = 0;
  // Which of the plan's orders the next training steps run.
  virtual void Choose(size_t order) = 0;
  // It ends after the open deed, or after one last Save.
  virtual void Cancel(bool checkpoint) = 0;
  virtual int64_t last_step() const = 0;  // committed
};

}  // namespace troupe

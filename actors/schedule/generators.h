// Schedules by name. Called by the planner (coordinator) and by every rank, which build the same
// lists from the same spec. Pure.
// Sources: GPipe (Huang et al. 2019), PipeDream-flush = 1F1B (Narayanan et al. 2021).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "actors/schedule/schedule.h"

namespace troupe {

struct ScheduleSpec {
  std::string name = "1f1b";  // hyphens or underscores, any case; aliases accepted
  int num_ranks = 1;
  int num_microbatches = 1;
  int chunks_per_rank = 1;  // model chunks (stages) that each rank holds
};

// What `troupe schedule --list` prints. Formulas use p ranks, m microbatches, and f, b, w = time of
// Forward, BackwardInput, BackwardWeight of a rank's whole share.
struct ScheduleInfo {
  std::string_view name;
  std::string_view alias;       // "" where there is none
  std::string_view constraint;  // on p, m, chunks
  std::string_view bubble;      // makespan bubble as time
  std::string_view peak;        // activations per rank, in microbatches
};
std::span<const ScheduleInfo> KnownSchedules();

// The name as KnownSchedules() spells it: "AFAB" and "afab" give "gpipe".
Result<std::string> CanonicalScheduleName(std::string_view name);

Result<Schedule> Generate(const ScheduleSpec& spec);

// Every microbatch forward through `placement` (stage → rank), stage by stage; for evaluation and
// sampling. Works for any placement, since stage order is a topological order.
Schedule GenerateForwardOnly(int num_ranks, std::vector<Rank> placement, int num_microbatches);
// The same for the loop placement of `num_stages` over `num_ranks`.
Schedule GenerateForwardOnly(int num_ranks, int num_stages, int num_microbatches);

}  // namespace troupe

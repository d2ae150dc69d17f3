// Schedules by name. Called by the planner (coordinator) and by every rank, which build the same
// lists from the same spec. Pure. The papers stand at the heads of the families' files:
// loop_generators.h, v_generators.h, stable_pattern.h, dual_pipe_generators.h.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

struct ScheduleSpec {
  std::string name = "1f1b";  // any case, with or without hyphens and underscores; aliases accepted
  int num_ranks = 1;
  int num_microbatches = 1;  // a step, of both directions together
  // Model chunks (stages) that each rank holds per direction; 0: the schedule's own default.
  int chunks_per_rank = 0;
  // Interleaved schedules: how many microbatches a chunk takes before the next chunk's turn. More
  // hide the latency of hops (2p is plenty) and keep more activations. 0: one a rank.
  int group = 0;
};

enum class PlacementKind : uint8_t { kLoop, kV, kBidirectional };
std::string_view PlacementName(PlacementKind kind);  // "loop", "v", "bidirectional"

// What `troupe schedule --list` prints. Formulas use p ranks, rank r, m microbatches, v chunks a
// rank, groups of N, and f, b, w = time of Forward, BackwardInput, BackwardWeight of a rank's whole
// share. Where f alone stands for all times the formula is for f=b=w; free hops throughout.
struct ScheduleInfo {
  std::string_view name;
  std::array<std::string_view, 2> aliases;  // "" where there are fewer
  PlacementKind placement = PlacementKind::kLoop;
  int parameter_replicas = 1;
  int chunks_default = 1;  // per rank and direction
  int chunks_min = 1;
  int chunks_max = 1;       // 0: any number
  bool has_groups = false;  // ScheduleSpec::group has a meaning
  std::string_view constraint;
  std::string_view bubble;    // as time; makespan unless it says span
  std::string_view peak;      // most activations of a rank, in microbatches of its whole share
  std::string_view messages;  // between ranks, a microbatch, Forward and backward together
  std::string_view note{};    // where the order is not its paper's; "" where it is
};
std::span<const ScheduleInfo> KnownSchedules();

// The name as KnownSchedules() spells it: "AFAB" gives "gpipe", "ZBV" and "zb_v" give "zb-v".
Result<std::string> CanonicalScheduleName(std::string_view name);

// kInvalidSpec with the rule and a way out where the schedule cannot have this shape.
Result<Schedule> Generate(const ScheduleSpec& spec);

// Every microbatch forward through `placement` (stage → rank), for evaluation and sampling: groups
// of as many as there are ranks, each stage by stage. Works for any placement, since that is a
// topological order.
Schedule GenerateForwardOnly(int num_ranks, std::vector<PipelineRank> placement,
                             int num_microbatches);
// The same for the loop placement of `num_stages` over `num_ranks`.
Schedule GenerateForwardOnly(int num_ranks, int num_stages, int num_microbatches);

}  // namespace troupe

#include "actors/schedule/generators.h"

#include <algorithm>

#include "actors/schedule/dual_pipe_generators.h"
#include "actors/schedule/loop_generators.h"
#include "actors/schedule/stable_pattern.h"
#include "actors/schedule/v_generators.h"

namespace troupe {
namespace {

// Both functions get a spec whose name is canonical and whose chunks and group are set.
struct KnownSchedule {
  ScheduleInfo info{};
  void (*fill)(const ScheduleSpec&, Schedule&) = nullptr;
  std::string (*refuse)(const ScheduleSpec&) = nullptr;  // why the shape cannot be, or ""
};

constexpr std::string_view kAnyShape = "any p, any m";
constexpr std::string_view kGroupRule = "p <= N <= m, m mod N = 0 or >= p (or m < p)";

constexpr std::array<KnownSchedule, 13> kKnown = {{
    {{.name = "1f1b",
      .aliases = {"pipedream-flush"},
      .constraint = kAnyShape,
      .bubble = "(p-1)(f+b+w)",
      .peak = "min(m, p-r)",
      .messages = "2(p-1)"},
     FillOneForwardOneBackward},
    {{.name = "gpipe",
      .aliases = {"afab"},
      .constraint = kAnyShape,
      .bubble = "(p-1)(f+b+w)",
      .peak = "m",
      .messages = "2(p-1)"},
     FillGpipe},
    {{.name = "interleaved-1f1b",
      .aliases = {"interleaved", "1f1b-interleaved"},
      .chunks_default = 2,
      .chunks_min = 2,
      .chunks_max = 0,
      .has_groups = true,
      .constraint = kGroupRule,
      .bubble = "(p-1)(f+b+w)/v",
      .peak = "((v-1)N+2(p-1)+1)/v",
      .messages = "2(pv-1)"},
     FillInterleaved,
     RefuseInterleaved},
    {{.name = "looped-bfs",
      .aliases = {"breadth-first"},
      .chunks_default = 2,
      .chunks_max = 0,
      .constraint = kAnyShape,
      .bubble = "(p-1)(f+b+w)/v",
      .peak = "m",
      .messages = "2(pv-1)",
      .note = "backwards ascend, where the paper's descend: same times, one worker's bits"},
     FillLoopedBreadthFirst},
    {{.name = "zb-h1",
      .aliases = {"zb1p"},
      .constraint = "m >= p",
      .bubble = "(p-1)(f+b-w)",
      .peak = "p",
      .messages = "2(p-1)"},
     FillZeroBubbleH1,
     RefuseZeroBubbleH1},
    {{.name = "zb-h2",
      .aliases = {"zb2p"},
      .constraint = "m >= 2p-1",
      .bubble = "span (p-1)(f+b-2w), makespan (p-1)f more",
      .peak = "2p-1",
      .messages = "2(p-1)"},
     FillZeroBubbleH2,
     RefuseZeroBubbleH2},
    {{.name = "interleaved-zb",
      .aliases = {"interleaved-zero-bubble"},
      .chunks_default = 2,
      .chunks_max = 0,
      .has_groups = true,
      .constraint = kGroupRule,
      .bubble = "(p-1)(f+b-w)/v",
      .peak = "p",
      .messages = "2(pv-1)"},
     FillInterleavedZeroBubble,
     RefuseInterleaved},
    {{.name = "zb-v",
      .aliases = {"zbv-zero-bubble"},
      .placement = PlacementKind::kV,
      .chunks_default = 2,
      .chunks_min = 2,
      .chunks_max = 2,
      .constraint = "any p, any m; best from m = 2p-1",
      .bubble = "span 0, makespan (p-1)f/2",
      .peak = "p",
      .messages = "4(p-1)"},
     FillZeroBubbleV},
    {{.name = "v-half",
      .placement = PlacementKind::kV,
      .chunks_default = 2,
      .chunks_min = 2,
      .chunks_max = 2,
      .constraint = kAnyShape,
      .bubble = "(1.5p-3.5)f for p even, (1.5p-2)f for p odd",
      .peak = "floor((p+2)/2)",
      .messages = "4(p-1)"},
     FillVHalf},
    {{.name = "v-min",
      .placement = PlacementKind::kV,
      .chunks_default = 2,
      .chunks_min = 2,
      .chunks_max = 2,
      .constraint = "any p, any m; meant for f=b=w",
      .bubble = "(2p-2.5)f; (2p-3.5)f where p mod 3 = 0",
      .peak = "floor((p+4)/3)",
      .messages = "4(p-1)"},
     FillVMin},
    {{.name = "dualpipe",
      .placement = PlacementKind::kBidirectional,
      .parameter_replicas = 2,
      .constraint = "p even, m even, m >= 2p",
      .bubble = "(p/2-1)f; fused pairs (p/2-1)(F&B+b-2w)",
      .peak = "p+1",
      .messages = "2(p-1)"},
     FillDualPipe,
     RefuseDualPipe},
    {{.name = "dualpipe-v",
      .placement = PlacementKind::kV,
      .chunks_default = 2,
      .chunks_min = 2,
      .chunks_max = 2,
      .constraint = "m >= 2p",
      .bubble = "(p-1)f/2; fused pairs (p-1)(F&B+b-2w)/2",
      .peak = "p+1/2",
      .messages = "4(p-1)"},
     FillDualPipeV,
     RefuseDualPipeV},
    {{.name = "dynamic",
      .placement = PlacementKind::kV,
      .chunks_default = 2,
      .chunks_min = 2,
      .chunks_max = 2,
      .constraint = "any p, any m; executor: free-run within activation_limit (default 1.5p)",
      .bubble = "at least (p-1)f/2; what is ready runs, so it depends on the times",
      .peak = "the limit",
      .messages = "4(p-1)"},
     FillZeroBubbleV},
}};

// Lower case without hyphens and underscores, so that "ZBV", "zb-v" and "ZB_V" are one name.
std::string Normalised(std::string_view name) {
  std::string normal;
  for (const char c : name) {
    if (c != '_' && c != '-') {
      normal += (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  return normal;
}

bool IsNameOf(std::string_view normal, const ScheduleInfo& info) {
  return normal == Normalised(info.name) ||
         std::ranges::any_of(info.aliases, [normal](std::string_view alias) {
           return !alias.empty() && normal == Normalised(alias);
         });
}

Result<const KnownSchedule*> FindSchedule(std::string_view name) {
  const std::string normal = Normalised(name);
  std::string valid;
  for (const KnownSchedule& known : kKnown) {
    if (IsNameOf(normal, known.info)) {
      return &known;
    }
    valid += fmt::format("{}{}", valid.empty() ? "" : ", ", known.info.name);
    if (!known.info.aliases[0].empty()) {
      valid += fmt::format(" (= {})", known.info.aliases[0]);
    }
  }
  return MakeError(ErrorCode::kInvalidSpec, "schedule '{}' is not known; use one of {}", name,
                   valid);
}

// Why `spec` cannot be, by what the table says of the schedule; "" where it may.
std::string RefuseByTable(const ScheduleInfo& info, const ScheduleSpec& spec) {
  if (spec.num_ranks < 1 || spec.num_microbatches < 1) {
    return fmt::format("{} ranks and {} microbatches; both must be at least 1", spec.num_ranks,
                       spec.num_microbatches);
  }
  const int chunks = spec.chunks_per_rank;
  if (const int64_t stages = int64_t{spec.num_ranks} * chunks * info.parameter_replicas;
      stages > kStagesMax) {
    return fmt::format("{} ranks of {} model chunks make {} stages, more than {}; take fewer",
                       spec.num_ranks, chunks, stages, kStagesMax);
  }
  if (info.chunks_max == info.chunks_min && chunks != info.chunks_min) {
    return fmt::format(
        "it holds {0} model chunk{1} a rank, not {2}; set virtual_stages to {0} or leave it out",
        info.chunks_min, info.chunks_min == 1 ? "" : "s", chunks);
  }
  if (chunks < info.chunks_min) {
    return fmt::format(
        "it holds at least {0} model chunk{1} a rank, not {2}; set virtual_stages "
        "to {3} or leave it out",
        info.chunks_min, info.chunks_min == 1 ? "" : "s", chunks, info.chunks_default);
  }
  if (spec.group != 0 && !info.has_groups) {
    return "it takes no groups of microbatches; leave the group out";
  }
  return "";
}

std::vector<PipelineRank> PlacementOf(PlacementKind kind, int num_ranks, int num_chunks) {
  switch (kind) {
    case PlacementKind::kLoop:
      return LoopPlacement(num_ranks, num_ranks * num_chunks);
    case PlacementKind::kV:
      return VPlacement(num_ranks, num_ranks * num_chunks);
    case PlacementKind::kBidirectional:
      return BidirectionalPlacement(num_ranks);
  }
  return {};
}

}  // namespace

std::string_view PlacementName(PlacementKind kind) {
  switch (kind) {
    case PlacementKind::kLoop:
      return "loop";
    case PlacementKind::kV:
      return "v";
    case PlacementKind::kBidirectional:
      return "bidirectional";
  }
  return "placement";
}

std::span<const ScheduleInfo> KnownSchedules() {
  static const std::vector<ScheduleInfo> infos = [] {
    std::vector<ScheduleInfo> list;
    for (const KnownSchedule& known : kKnown) {
      list.push_back(known.info);
    }
    return list;
  }();
  return infos;
}

Result<std::string> CanonicalScheduleName(std::string_view name) {
  ASSIGN_OR_RETURN(const KnownSchedule* known, FindSchedule(name));
  return std::string(known->info.name);
}

Result<Schedule> Generate(const ScheduleSpec& given) {
  ASSIGN_OR_RETURN(const KnownSchedule* known, FindSchedule(given.name));
  const ScheduleInfo& info = known->info;
  ScheduleSpec spec = given;
  spec.name = info.name;
  spec.chunks_per_rank = given.chunks_per_rank == 0 ? info.chunks_default : given.chunks_per_rank;
  std::string why = RefuseByTable(info, spec);
  if (why.empty() && info.has_groups && spec.group == 0) {
    spec.group = std::min(spec.num_ranks, spec.num_microbatches);
  }
  if (why.empty() && known->refuse != nullptr) {
    why = known->refuse(spec);
  }
  if (!why.empty()) {
    return MakeError(ErrorCode::kInvalidSpec, "schedule {}: {}", info.name, why);
  }
  std::vector<PipelineRank> placement =
      PlacementOf(info.placement, spec.num_ranks, spec.chunks_per_rank);
  const auto num_stages = static_cast<int>(placement.size());
  Schedule schedule{.name = spec.name,
                    .num_ranks = spec.num_ranks,
                    .num_stages = num_stages,
                    .num_microbatches = spec.num_microbatches,
                    .num_directions = info.parameter_replicas,
                    .placement = std::move(placement),
                    .ranks = std::vector<std::vector<Action>>(spec.num_ranks)};
  known->fill(spec, schedule);
  return schedule;
}

Schedule GenerateForwardOnly(int num_ranks, std::vector<PipelineRank> placement,
                             int num_microbatches) {
  CHECK(num_ranks >= 1 && num_microbatches >= 1 && !placement.empty());
  const auto num_stages = static_cast<int>(placement.size());
  Schedule schedule{.name = "forward-only",
                    .num_ranks = num_ranks,
                    .num_stages = num_stages,
                    .num_microbatches = num_microbatches,
                    .forward_only = true,
                    .placement = std::move(placement),
                    .ranks = std::vector<std::vector<Action>>(num_ranks)};
  // A group of microbatches goes through a rank's chunks before the next group starts, so that
  // outputs for later chunks do not pile up.
  for (int first = 0; first < num_microbatches; first += num_ranks) {
    for (int stage = 0; stage < schedule.num_stages; ++stage) {
      std::vector<Action>& actions =
          schedule.ranks[static_cast<size_t>(schedule.placement[static_cast<size_t>(stage)].value)];
      for (int m = first; m < std::min(num_microbatches, first + num_ranks); ++m) {
        actions.push_back(
            {.stage = StageId(stage), .kind = ActionKind::kForward, .microbatch = MicrobatchId(m)});
      }
    }
  }
  return schedule;
}

Schedule GenerateForwardOnly(int num_ranks, int num_stages, int num_microbatches) {
  return GenerateForwardOnly(num_ranks, LoopPlacement(num_ranks, num_stages), num_microbatches);
}

}  // namespace troupe

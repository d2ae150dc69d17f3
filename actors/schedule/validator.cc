#include "actors/schedule/validator.h"

#include <algorithm>
#include <set>
#include <utility>

#include "actors/schedule/activations.h"
#include "actors/schedule/collective_check.h"
#include "actors/schedule/deadlock.h"
#include "actors/schedule/simulator.h"

namespace troupe {
namespace {

// What one rank's list has done so far for one (stage, microbatch).
struct Done {
  bool forward = false;
  bool input = false;   // I or B
  bool weight = false;  // B or the last part of W
  uint8_t parts = 0;
  uint8_t num_parts = 0;
};

class StructureCheck {
 public:
  explicit StructureCheck(const Schedule& schedule)
      : schedule_(schedule),
        done_(static_cast<size_t>(schedule.num_stages) * schedule.num_microbatches),
        collectives_(schedule) {}

  Status Run() {
    for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
      const std::vector<Action>& actions = schedule_.ranks[rank];
      pairs_.clear();
      for (size_t i = 0; i < actions.size(); ++i) {
        if (const std::string why = Reason(PipelineRank(rank), actions, i); !why.empty()) {
          return MakeError(ErrorCode::kInvalidSpec, "{}: {}",
                           CellName(schedule_, PipelineRank(rank), i), why);
        }
      }
    }
    return Complete();
  }

 private:
  Done& At(const Action& action) {
    return done_[static_cast<size_t>(action.stage.value) * schedule_.num_microbatches +
                 action.microbatch.value];
  }

  // Empty where the action may stand here.
  std::string Reason(PipelineRank rank, const std::vector<Action>& actions, size_t index) {
    const Action& action = actions[index];
    if (IsCommunication(action.kind)) {
      return "sends and receives follow from the compute actions; leave them out";
    }
    if (action.stage.value < 0 || action.stage.value >= schedule_.num_stages) {
      return fmt::format("no row runs stage {}; leave it out, or add the stage's compute actions",
                         action.stage);
    }
    if (schedule_.RankOf(action.stage) != rank) {
      return fmt::format("stage {} is placed on rank {}; keep each stage on one rank", action.stage,
                         schedule_.RankOf(action.stage));
    }
    if (std::string why = PairReason(actions, index); !why.empty()) {
      return why;
    }
    return IsCompute(action.kind) ? ComputeReason(action) : collectives_.Reason(action, index);
  }

  std::string PairReason(const std::vector<Action>& actions, size_t index) {
    const auto is_of = [&actions](size_t i, int32_t pair) {
      return i < actions.size() && actions[i].pair == pair;
    };
    const int32_t pair = actions[index].pair;
    if (pair == kNotPaired || (index > 0 && is_of(index - 1, pair))) {
      return "";  // judged at its first action
    }
    if (!pairs_.insert(pair).second || !is_of(index + 1, pair)) {
      return "its overlapped pair is torn apart; keep a pair together";
    }
    const ActionKind second = actions[index + 1].kind;
    const bool backward = second == ActionKind::kBackward || second == ActionKind::kBackwardInput;
    return actions[index].kind == ActionKind::kForward && backward && !is_of(index + 2, pair)
               ? ""
               : "an overlapped pair is one Forward and then one B or I";
  }

  std::string ComputeReason(const Action& action) {
    if (std::string why = MicrobatchReason(schedule_, action); !why.empty()) return why;
    if (schedule_.forward_only && action.kind != ActionKind::kForward) {
      return "a forward-only schedule has no backward";
    }
    if (!schedule_.HasBackward(action.stage) && action.kind != ActionKind::kForward) {
      return fmt::format("stage {} is only read by stage {}: it has no backward", action.stage,
                         schedule_.EdgeFrom(action.stage)->to);
    }
    Done& done = At(action);
    switch (action.kind) {
      case ActionKind::kForward:
        return std::exchange(done.forward, true) ? "this Forward stands here a second time" : "";
      case ActionKind::kBackwardInput:
      case ActionKind::kBackward:
        if (!done.forward) {
          return fmt::format("it stands before {}F{}, whose activations it needs", action.stage,
                             action.microbatch);
        }
        if (std::exchange(done.input, true)) {
          return "this microbatch's input gradient stands here a second time";
        }
        if (action.kind == ActionKind::kBackward) {
          MarkWeight(action, done);
        }
        return "";
      default:
        return WeightReason(action, done);
    }
  }

  std::string WeightReason(const Action& action, Done& done) {
    if (!done.input) {
      return fmt::format("it stands before {}I{}; weight gradients come after it", action.stage,
                         action.microbatch);
    }
    if (done.weight) {
      return "this microbatch's weight gradient stands here a second time";
    }
    if (action.num_parts < 1 || (done.num_parts != 0 && done.num_parts != action.num_parts)) {
      return fmt::format("its microbatch's weight gradient was cut into {} parts, not {}",
                         done.num_parts, action.num_parts);
    }
    if (action.part != done.parts) {
      return fmt::format("part {} comes next; keep the parts in ascending order", done.parts + 1);
    }
    done.num_parts = action.num_parts;
    if (++done.parts == action.num_parts) {
      MarkWeight(action, done);
    }
    return "";
  }

  void MarkWeight(const Action& action, Done& done) {
    done.weight = true;
    collectives_.MarkGradients(action);
  }

  Status Complete() const {
    for (int stage = 0; stage < schedule_.num_stages; ++stage) {
      const bool has_backward = schedule_.HasBackward(StageId(stage));
      const int first = schedule_.FirstMicrobatch(StageId(stage)).value;
      for (int m = first; m < first + schedule_.MicrobatchesPerDirection(); ++m) {
        const Done& done = done_[static_cast<size_t>(stage) * schedule_.num_microbatches + m];
        const std::string_view missing = !done.forward   ? "F"
                                         : !has_backward ? ""
                                         : !done.input   ? "B (or I and W)"
                                         : !done.weight  ? "W (all parts)"
                                                         : "";
        if (!missing.empty()) {
          return MakeError(
              ErrorCode::kInvalidSpec,
              "row {}: stage {} lacks {} of microbatch {}; every microbatch needs F and "
              "then B, or I and W",
              schedule_.placement[stage].value + 1, stage, missing, m);
        }
      }
    }
    return collectives_.Complete();
  }

  const Schedule& schedule_;
  std::vector<Done> done_;  // [stage][microbatch]
  CollectiveCheck collectives_;
  std::set<int32_t> pairs_;  // of the rank at hand, so far
};

Status CheckShape(const Schedule& s) {
  const auto refuse = [&s](std::string_view why) {
    return MakeError(ErrorCode::kInvalidSpec, "schedule {}: {}", s.name, why);
  };
  if (s.num_ranks < 1 || s.num_stages < 1 || s.num_microbatches < 1) {
    return refuse(fmt::format("{} ranks, {} stages, {} microbatches; each must be at least 1",
                              s.num_ranks, s.num_stages, s.num_microbatches));
  }
  if (static_cast<int>(s.ranks.size()) != s.num_ranks ||
      static_cast<int>(s.placement.size()) != s.num_stages) {
    return refuse(fmt::format("{} rows for {} ranks and {} placed stages of {}", s.ranks.size(),
                              s.num_ranks, s.placement.size(), s.num_stages));
  }
  if (s.num_directions < 1 || s.num_directions > 2 || s.num_stages % s.num_directions != 0 ||
      s.num_microbatches % s.num_directions != 0) {
    return refuse(fmt::format("{} stages and {} microbatches do not divide by {} directions",
                              s.num_stages, s.num_microbatches, s.num_directions));
  }
  for (int stage = 0; stage < s.num_stages; ++stage) {
    if (s.placement[stage].value < 0 || s.placement[stage].value >= s.num_ranks) {
      return refuse(fmt::format("stage {} is placed on rank {}, but there are {} ranks", stage,
                                s.placement[stage], s.num_ranks));
    }
  }
  if (s.num_directions > 1 && !s.edges.empty()) {
    return refuse("its stages are one chain in each direction, or they are fed by edges");
  }
  return {};
}

// That every action has one output, and each wait an end (schedule.h).
Status CheckEdges(const Schedule& s) {
  std::vector<int> from(static_cast<size_t>(s.num_stages), 0);
  std::vector<int> into(static_cast<size_t>(s.num_stages), 0);
  std::vector<int> gradients_into(static_cast<size_t>(s.num_stages), 0);
  for (const auto& [before, after, carries_gradient] : s.edges) {
    const auto refuse = [&](std::string_view why) {
      return MakeError(ErrorCode::kInvalidSpec, "schedule {}: stage {} feeds stage {}: {}", s.name,
                       before, after, why);
    };
    if (before.value < 0 || after.value >= s.num_stages || before >= after) {
      return refuse(fmt::format("a stage feeds a later one of {}", s.num_stages));
    }
    const auto to = static_cast<size_t>(after.value);
    if (++from[static_cast<size_t>(before.value)] > 1) return refuse("it feeds another one too");
    if (++into[to] > kStageInputsMax) {
      return refuse(fmt::format("so do {} others, which is the most", kStageInputsMax));
    }
    if (!carries_gradient) continue;
    if (++gradients_into[to] > 1) return refuse("its gradient goes back to another stage");
    if (!s.forward_only && !s.HasBackward(after)) {
      return refuse(
          "the gradient that it waits for is never there, for that stage has no backward");
    }
  }
  return {};
}

// Input and weight gradients each add up over a stage's microbatches; a Backward is both.
bool Ascending(const Schedule& schedule) {
  enum Sum : size_t { kForward, kInput, kWeight, kNumSums };
  std::vector<int> last(static_cast<size_t>(schedule.num_stages) * kNumSums, -1);
  const auto follows = [&last](const Action& action, Sum sum) {
    const size_t at = static_cast<size_t>(action.stage.value) * kNumSums + sum;
    return std::exchange(last[at], action.microbatch.value) <= action.microbatch.value;
  };
  for (const std::vector<Action>& actions : schedule.ranks) {
    for (const Action& action : actions) {
      if (!IsCompute(action.kind)) continue;
      const bool whole = action.kind == ActionKind::kBackward;
      const bool input = whole || action.kind == ActionKind::kBackwardInput;
      const bool weight = whole || action.kind == ActionKind::kBackwardWeight;
      if ((action.kind == ActionKind::kForward && !follows(action, kForward)) ||
          (input && !follows(action, kInput)) || (weight && !follows(action, kWeight))) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

Status ValidateStructure(const Schedule& schedule) {
  RETURN_IF_ERROR(CheckShape(schedule));
  RETURN_IF_ERROR(CheckEdges(schedule));
  return StructureCheck(schedule).Run();
}

Result<ScheduleReport> Validate(const Schedule& schedule, const ValidateOptions& options) {
  RETURN_IF_ERROR(ValidateStructure(schedule));
  // With lists in strict order, which message takes which slot does not depend on speed, so one run
  // with any times finds every deadlock.
  const CostModel unit{
      .stages = std::vector<StageCost>(
          schedule.num_stages, {.forward_ns = 1, .backward_input_ns = 1, .backward_weight_ns = 1})};
  auto run = Simulate(schedule, unit,
                      {.policy = {.pairs = options.pairs},
                       .slots_per_channel = options.slots_per_channel,
                       .keep_bars = false});
  if (!run.ok()) {
    return std::move(run).error();
  }
  ScheduleReport report;
  report.ascending = Ascending(schedule);
  report.parameter_replicas = schedule.num_directions;
  report.channels = ChannelsOf(schedule);
  int num_messages = 0;
  for (Channel& channel : report.channels) {
    num_messages += channel.num_messages;
    channel.slots = options.slots_per_channel > 0 ? options.slots_per_channel : channel.slots;
  }
  report.messages_per_microbatch = num_messages / schedule.num_microbatches;
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    report.peak_activations.push_back(
        PeakActivations(schedule, PipelineRank(rank), options.held_for_weight));
  }
  return report;
}

}  // namespace troupe

#include "actors/schedule/channels.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "actors/schedule/activations.h"

namespace troupe {
namespace {

using ChannelKey = std::tuple<PipelineRank, PipelineRank, InputKind>;

struct ChannelState {
  std::vector<int> consumed_at;  // positions in the receiver's list, ascending
  int produced = 0;
  int consumed = 0;  // consumptions known to be done where the sender's list has got to
  int most_in_flight = 0;
};

ChannelKey KeyOf(const Transfer& transfer) { return {transfer.from, transfer.to, transfer.kind}; }

// Where in its rank's list each output is produced.
class ProducerPositions {
 public:
  explicit ProducerPositions(const Schedule& schedule)
      : num_microbatches_(schedule.num_microbatches),
        positions_(size_t{2} * schedule.num_stages * schedule.num_microbatches, 0) {
    for (const std::vector<Action>& actions : schedule.ranks) {
      for (size_t i = 0; i < actions.size(); ++i) {
        if (const auto output = OutputOf(schedule, actions[i])) {
          positions_[Index(*output)] = static_cast<int>(i);
        }
      }
    }
  }
  int Of(const Transfer& transfer) const { return positions_[Index(transfer)]; }

 private:
  size_t Index(const Transfer& transfer) const {
    const size_t row = 2 * transfer.from_stage.value + (transfer.kind == InputKind::kGradient);
    return row * num_microbatches_ + transfer.microbatch.value;
  }

  int num_microbatches_;
  std::vector<int> positions_;
};

// Walks one sender's list: an input from rank q proves that q has done everything up to the input's
// producer, hence has consumed whatever that prefix reads.
void WalkSender(const Schedule& schedule, const ProducerPositions& producers,
                const std::vector<Action>& actions, std::map<ChannelKey, ChannelState>& channels) {
  // Receiver → length of its list's prefix that must be done by now.
  std::map<PipelineRank, int> done_by;
  for (const Action& action : actions) {
    for (const Transfer& input : InputsOf(schedule, action)) {
      if (!input.crosses_ranks()) continue;
      int& done = done_by[input.from];
      done = std::max(done, producers.Of(input) + 1);
    }
    const auto output = OutputOf(schedule, action);
    if (!output || !output->crosses_ranks()) {
      continue;
    }
    ChannelState& channel = channels[KeyOf(*output)];
    const int done = done_by[output->to];
    const int num_reads = static_cast<int>(channel.consumed_at.size());
    while (channel.consumed < num_reads && channel.consumed_at[channel.consumed] < done) {
      ++channel.consumed;
    }
    ++channel.produced;
    channel.most_in_flight = std::max(channel.most_in_flight, channel.produced - channel.consumed);
  }
}

void BoundByHeldActivations(const Schedule& schedule, const ExecutionPolicy& policy,
                            std::vector<Channel>& channels) {
  for (Channel& channel : channels) channel.slots = 0;
  for (int number = 0; number < schedule.num_stages; ++number) {
    const StageId stage(number);
    const std::optional<StageEdge> edge = schedule.EdgeFrom(stage);
    if (!edge) continue;
    const PipelineRank here = schedule.RankOf(stage);
    const PipelineRank next = schedule.RankOf(edge->to);
    for (Channel& channel : channels) {
      const bool activations =
          channel.kind == InputKind::kActivation && channel.from == here && channel.to == next;
      const bool gradients =
          channel.kind == InputKind::kGradient && channel.from == next && channel.to == here;
      if (activations || gradients) channel.slots += HeldByStage(schedule, policy, stage);
    }
  }
}

}  // namespace

int HeldByStage(const Schedule& schedule, const ExecutionPolicy& policy, StageId stage) {
  // What a stage without a backward has made, nothing of its own bounds.
  if (!schedule.HasBackward(stage)) return schedule.MicrobatchesPerDirection();
  const PipelineRank rank = schedule.RankOf(stage);
  const double cap = policy.mode == ExecutorMode::kFreeRun
                         ? policy.activation_limit
                         : PeakActivations(schedule, rank) + policy.activation_slack;
  constexpr double kRounding = 1e-9;
  const int held = static_cast<int>(cap / schedule.StageShare(stage) + kRounding);
  return std::min(held, schedule.MicrobatchesPerDirection());
}

bool ForwardsJump(const ExecutionPolicy& policy) {
  return policy.mode == ExecutorMode::kFreeRun ||
         (policy.mode == ExecutorMode::kGuided && policy.activation_slack > 0);
}

int HandOversOn(const Schedule& schedule, const ExecutionPolicy& policy, PipelineRank rank) {
  if (ForwardsJump(policy)) {
    int bound = 0;
    for (const StageId stage : schedule.StagesOf(rank)) {
      const std::optional<StageEdge> edge = schedule.EdgeFrom(stage);
      const bool folds = edge && schedule.RankOf(edge->to) == rank;
      if (folds) bound += 2 * HeldByStage(schedule, policy, stage);  // activations and gradients
    }
    return bound;
  }
  int lying = 0;
  int most = 0;
  for (const Action& action : schedule.ActionsOf(rank)) {
    // An action makes its output before it lets its input go.
    const auto output = OutputOf(schedule, action);
    lying += output && !output->crosses_ranks() ? 1 : 0;
    most = std::max(most, lying);
    for (const Transfer& input : InputsOf(schedule, action)) {
      lying -= input.crosses_ranks() ? 0 : 1;
    }
  }
  return most;
}

std::vector<Channel> ChannelsOf(const Schedule& schedule, const ExecutionPolicy& policy) {
  std::map<ChannelKey, ChannelState> channels;
  for (const std::vector<Action>& actions : schedule.ranks) {
    for (size_t i = 0; i < actions.size(); ++i) {
      for (const Transfer& input : InputsOf(schedule, actions[i])) {
        if (!input.crosses_ranks()) continue;
        channels[KeyOf(input)].consumed_at.push_back(static_cast<int>(i));
      }
    }
  }
  const ProducerPositions producers(schedule);
  for (const std::vector<Action>& actions : schedule.ranks) {
    WalkSender(schedule, producers, actions, channels);
  }
  std::vector<Channel> list;
  list.reserve(channels.size());
  for (const auto& [key, state] : channels) {
    const auto& [from, to, kind] = key;
    list.push_back({.from = from,
                    .to = to,
                    .kind = kind,
                    .num_messages = state.produced,
                    .slots = state.most_in_flight});
  }
  if (ForwardsJump(policy)) BoundByHeldActivations(schedule, policy, list);
  return list;
}

std::vector<Channel> WithMoreSlots(std::vector<Channel> channels,
                                   const std::vector<Channel>& others) {
  for (const Channel& other : others) {
    const auto like = std::ranges::find_if(channels, [&](const Channel& channel) {
      return channel.from == other.from && channel.to == other.to && channel.kind == other.kind;
    });
    if (like == channels.end()) {
      channels.push_back(other);
    } else {
      like->slots = std::max(like->slots, other.slots);
    }
  }
  return channels;
}

int SlotsFor(const std::vector<Channel>& channels, PipelineRank from, PipelineRank to,
             InputKind kind) {
  for (const Channel& channel : channels) {
    if (channel.from == from && channel.to == to && channel.kind == kind) {
      return channel.slots;
    }
  }
  return 0;
}

}  // namespace troupe

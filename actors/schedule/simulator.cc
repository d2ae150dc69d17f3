#include "actors/schedule/simulator.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

#include "actors/schedule/channels.h"
#include "actors/schedule/deadlock.h"
#include "actors/schedule/next_action.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

enum class EventKind : uint8_t { kDone, kArrival, kCredit };

struct Event {
  int64_t at_ns = 0;
  uint32_t order = 0;  // ties run in the order of their making
  EventKind kind = EventKind::kDone;
  InputKind input = InputKind::kActivation;  // kArrival
  int32_t subject = 0;                       // rank, or for kCredit the channel
  StageId stage{};                           // kArrival
  MicrobatchId microbatch{};                 // kArrival

  bool operator>(const Event& other) const {
    return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
  }
};

struct ChannelState {
  Channel channel{};
  int free_slots = 0;
  // Slots given back: times at which the sender learns of it, ascending.
  std::deque<int64_t> credits_at_ns{};
  std::deque<Transfer> parked{};
};

struct RankState {
  RankProgress progress;
  Action running{};
  std::vector<int> sends{};  // indices of channels out of this rank
  std::vector<int> reads{};  // and into it
  int64_t first_start_ns = std::numeric_limits<int64_t>::max();
  int64_t last_end_ns = 0;
};

class EventSimulation {
 public:
  EventSimulation(const Schedule& schedule, const CostModel& costs, const SimulateOptions& options);
  Result<Simulation> Run();

 private:
  void Push(Event event) {
    event.order = next_order_++;
    events_.push_back(event);
    std::push_heap(events_.begin(), events_.end(), std::greater<>());
  }
  Event Pop() {
    std::pop_heap(events_.begin(), events_.end(), std::greater<>());
    const Event event = events_.back();
    events_.pop_back();
    return event;
  }
  void TryStart(int rank);
  void OnDone(int rank);
  void OnArrival(const Event& event);
  void OnCredit(int channel);
  void Send(int channel, const Transfer& transfer);
  void SendParked(int channel);
  void ReturnSlot(const Transfer& read);
  int Find(const std::vector<int>& indices, Rank from, Rank to, InputKind kind) const;
  Error ExplainStop() const;
  Simulation Figures();

  const Schedule& schedule_;
  const CostModel& costs_;
  const SimulateOptions options_;
  std::vector<ChannelState> channels_;
  std::vector<RankState> ranks_;
  std::vector<Event> events_;  // a heap, earliest first
  uint32_t next_order_ = 0;
  int64_t now_ns_ = 0;
  int64_t work_ns_ = 0;
  Simulation result_;
};

EventSimulation::EventSimulation(const Schedule& schedule, const CostModel& costs,
                                 const SimulateOptions& options)
    : schedule_(schedule), costs_(costs), options_(options) {
  for (const Channel& channel : ChannelsOf(schedule)) {
    ChannelState& state = channels_.emplace_back();
    state.channel = channel;
    state.free_slots = options.slots_per_channel > 0 ? options.slots_per_channel : channel.slots;
  }
  std::vector<std::vector<SendLimit>> limits(schedule.num_ranks);
  if (options.output_buffers > 0) {
    for (const ChannelState& state : channels_) {
      limits[state.channel.from.value].push_back(
          {.to = state.channel.to,
           .kind = state.channel.kind,
           .limit = state.free_slots + options.output_buffers});
    }
  }
  size_t num_actions = 0;
  ranks_.reserve(schedule.num_ranks);
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    ranks_.push_back(
        {.progress = RankProgress(schedule, Rank(rank), DataArrival::kAtStart, limits[rank])});
    num_actions += schedule.ranks[rank].size();
  }
  for (size_t i = 0; i < channels_.size(); ++i) {
    ranks_[channels_[i].channel.from.value].sends.push_back(static_cast<int>(i));
    ranks_[channels_[i].channel.to.value].reads.push_back(static_cast<int>(i));
  }
  if (options.keep_bars) {
    result_.timeline.bars.reserve(num_actions);
  }
}

int EventSimulation::Find(const std::vector<int>& indices, Rank from, Rank to,
                          InputKind kind) const {
  for (const int index : indices) {
    const Channel& channel = channels_[index].channel;
    if (channel.from == from && channel.to == to && channel.kind == kind) {
      return index;
    }
  }
  CHECK(false, "no channel from rank {} to rank {}", from, to);
}

void EventSimulation::TryStart(int rank) {
  RankState& state = ranks_[rank];
  const Decision decision = NextAction(schedule_, Rank(rank), state.progress);
  const auto* action = std::get_if<Action>(&decision);
  if (action == nullptr) {
    return;
  }
  const int64_t end_ns = now_ns_ + costs_.CostNs(*action);
  state.progress.MarkStarted(*action);
  state.running = *action;
  if (IsCompute(action->kind)) {
    state.first_start_ns = std::min(state.first_start_ns, now_ns_);
    state.last_end_ns = end_ns;
    work_ns_ += end_ns - now_ns_;
  }
  ++result_.num_actions;
  if (options_.keep_bars) {
    result_.timeline.bars.push_back({.rank = Rank(rank),
                                     .action = *action,
                                     .start_ns = now_ns_,
                                     .end_ns = end_ns,
                                     .cpu_ns = end_ns - now_ns_});
  }
  Push({.at_ns = end_ns, .kind = EventKind::kDone, .subject = rank});
}

void EventSimulation::OnDone(int rank) {
  RankState& state = ranks_[rank];
  const Action action = state.running;
  state.progress.MarkDone(action);
  if (const auto input = InputOf(schedule_, action); input && input->crosses_ranks()) {
    ReturnSlot(*input);
  }
  if (const auto output = OutputOf(schedule_, action); output && output->crosses_ranks()) {
    state.progress.MarkProduced(output->to, output->kind);
    Send(Find(state.sends, output->from, output->to, output->kind), *output);
  }
  TryStart(rank);
}

void EventSimulation::Send(int channel, const Transfer& transfer) {
  ChannelState& state = channels_[channel];
  state.parked.push_back(transfer);
  SendParked(channel);
  result_.max_parked = std::max(result_.max_parked, static_cast<int>(state.parked.size()));
}

void EventSimulation::SendParked(int channel) {
  ChannelState& state = channels_[channel];
  while (!state.credits_at_ns.empty() && state.credits_at_ns.front() <= now_ns_) {
    state.credits_at_ns.pop_front();
    ++state.free_slots;
    ranks_[state.channel.from.value].progress.MarkConsumed(state.channel.to, state.channel.kind);
  }
  while (!state.parked.empty() && state.free_slots > 0) {
    const Transfer& transfer = state.parked.front();
    --state.free_slots;
    Push({.at_ns = now_ns_ + costs_.link_latency_ns,
          .kind = EventKind::kArrival,
          .input = transfer.kind,
          .subject = transfer.to.value,
          .stage = transfer.to_stage,
          .microbatch = transfer.microbatch});
    state.parked.pop_front();
  }
  if (!state.parked.empty() && !state.credits_at_ns.empty()) {
    Push({.at_ns = state.credits_at_ns.front(), .kind = EventKind::kCredit, .subject = channel});
  }
}

void EventSimulation::ReturnSlot(const Transfer& read) {
  const int channel = Find(ranks_[read.to.value].reads, read.from, read.to, read.kind);
  ChannelState& state = channels_[channel];
  const int64_t known_at_ns = now_ns_ + costs_.link_latency_ns;
  state.credits_at_ns.push_back(known_at_ns);
  // Without a waiting output nobody needs to wake up for the credit.
  if (!state.parked.empty() || options_.output_buffers > 0) {
    Push({.at_ns = known_at_ns, .kind = EventKind::kCredit, .subject = channel});
  }
}

void EventSimulation::OnCredit(int channel) {
  SendParked(channel);
  const int sender = channels_[channel].channel.from.value;
  if (!ranks_[sender].progress.running()) {
    TryStart(sender);
  }
}

void EventSimulation::OnArrival(const Event& event) {
  RankState& state = ranks_[event.subject];
  const bool expected = state.progress.MarkArrived(event.input, event.stage, event.microbatch);
  CHECK(expected, "stage {} got an input twice", event.stage);
  if (!state.progress.running()) {
    TryStart(event.subject);
  }
}

Error EventSimulation::ExplainStop() const {
  std::vector<std::optional<Blocked>> blocked(schedule_.num_ranks);
  for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
    const Decision decision = NextAction(schedule_, Rank(rank), ranks_[rank].progress);
    if (const auto* edge = std::get_if<Blocked>(&decision)) {
      blocked[rank] = *edge;
    }
  }
  std::vector<size_t> started;
  for (const RankState& state : ranks_) {
    started.push_back(state.progress.started());
  }
  return ExplainDeadlock(schedule_, blocked, started);
}

Simulation EventSimulation::Figures() {
  result_.timeline.num_ranks = schedule_.num_ranks;
  int64_t first_start_ns = std::numeric_limits<int64_t>::max();
  int64_t last_end_ns = 0;
  Idle& idle = result_.idle;
  for (const RankState& state : ranks_) {
    if (state.first_start_ns <= state.last_end_ns) {
      first_start_ns = std::min(first_start_ns, state.first_start_ns);
      last_end_ns = std::max(last_end_ns, state.last_end_ns);
      idle.span_ns = std::max(idle.span_ns, state.last_end_ns - state.first_start_ns);
    }
  }
  idle.makespan_ns = last_end_ns - std::min(first_start_ns, last_end_ns);
  idle.work_ns = work_ns_;
  idle.bubble_makespan = BubbleRate(work_ns_, idle.makespan_ns, schedule_.num_ranks);
  idle.bubble_span = BubbleRate(work_ns_, idle.span_ns, schedule_.num_ranks);
  result_.bubble_makespan_ns = idle.makespan_ns - work_ns_ / schedule_.num_ranks;
  result_.bubble_span_ns = idle.span_ns - work_ns_ / schedule_.num_ranks;
  for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
    result_.peak_activations.push_back(PeakActivations(schedule_, Rank(rank)));
  }
  return std::move(result_);
}

Result<Simulation> EventSimulation::Run() {
  for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
    TryStart(rank);
  }
  while (!events_.empty()) {
    const Event event = Pop();
    now_ns_ = event.at_ns;
    switch (event.kind) {
      case EventKind::kDone:
        OnDone(event.subject);
        break;
      case EventKind::kArrival:
        OnArrival(event);
        break;
      case EventKind::kCredit:
        OnCredit(event.subject);
        break;
    }
  }
  for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
    if (ranks_[rank].progress.started() < schedule_.ranks[rank].size()) {
      return ExplainStop();
    }
  }
  return Figures();
}

}  // namespace

CostModel CostModel::Uniform(const Schedule& schedule, const StageCost& whole_share,
                             int64_t link_latency_ns) {
  CostModel costs{.stages = {}, .link_latency_ns = link_latency_ns};
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    const double share = schedule.StageShare(StageId(stage));
    const auto part = [share](int64_t whole_ns) {
      return whole_ns < 0 ? whole_ns : std::llround(static_cast<double>(whole_ns) * share);
    };
    costs.stages.push_back({.forward_ns = part(whole_share.forward_ns),
                            .backward_input_ns = part(whole_share.backward_input_ns),
                            .backward_weight_ns = part(whole_share.backward_weight_ns),
                            .backward_ns = part(whole_share.backward_ns)});
  }
  return costs;
}

int64_t CostModel::CostNs(const Action& action) const {
  const StageCost& cost = stages[action.stage.value];
  switch (action.kind) {
    case ActionKind::kForward:
      return cost.forward_ns;
    case ActionKind::kBackwardInput:
      return cost.backward_input_ns;
    case ActionKind::kBackwardWeight:
      return cost.backward_weight_ns * (action.part + 1) / action.num_parts -
             cost.backward_weight_ns * action.part / action.num_parts;
    case ActionKind::kBackward:
      return cost.backward_ns >= 0 ? cost.backward_ns
                                   : cost.backward_input_ns + cost.backward_weight_ns;
    default:
      return 0;  // collectives of a stage are not modelled
  }
}

Result<Simulation> Simulate(const Schedule& schedule, const CostModel& costs,
                            const SimulateOptions& options) {
  CHECK(static_cast<int>(costs.stages.size()) == schedule.num_stages,
        "{} stage costs for {} stages", costs.stages.size(), schedule.num_stages);
  return EventSimulation(schedule, costs, options).Run();
}

}  // namespace troupe

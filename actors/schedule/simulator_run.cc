#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <utility>

#include "actors/schedule/deadlock.h"
#include "actors/schedule/next_action.h"
#include "actors/schedule/simulator_prepared.h"

namespace troupe {
namespace {

// All arrivals take one latency, so they come in the order of their sending: no heap is needed.
struct LinkArrival {
  int64_t at_ns = 0;
  OutputLink link{};
};
struct Credit {
  int64_t at_ns = 0;
  int32_t channel = 0;
};
// Of an action's segment of compute, or of its wait.
struct End {
  int64_t at_ns = 0;
  int32_t rank = 0;
  int32_t entry = -1;
  bool operator>(const End& other) const {
    if (at_ns != other.at_ns) return at_ns > other.at_ns;
    return rank != other.rank ? rank > other.rank : entry > other.entry;
  }
};

// An action that waits in its middle, from its start to its end.
struct PausedAction {
  int32_t entry = -1;
  int32_t segment = 0;  // the current or the next one
  int64_t length_ns = 0;
  ActionPauses pauses{};

  int64_t SegmentNs() const {
    const int64_t segments = pauses.count + 1;
    return length_ns * (segment + 1) / segments - length_ns * segment / segments;
  }
};

struct RankRun {
  RankProgress progress;
  double pair_factor = 1;               // of the overlapped pair under way
  std::vector<OutputLink> held_back{};  // outputs of a fused pair that has not ended
  InlineList<PausedAction, kOpenActionsMax> paused{};
  int32_t computing = -1;                        // an entry
  InlineList<int32_t, kOpenActionsMax> go_on{};  // entries that are over their waits
  int64_t first_start_ns = std::numeric_limits<int64_t>::max();
  int64_t last_end_ns = 0;
  bool touched = false;
  // Of the engine for collectives; the gathers by index of the rank's stages, where any takes time.
  int64_t collectives_end_ns = 0;
  std::vector<int64_t> gathers_end_ns{};
};

struct Slots {
  int free = 0;
  std::deque<OutputLink> parked{};
};

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

template <typename Prepared>
class Run {
 public:
  Run(const Prepared& prepared, const ActionTimes& times)
      : p_(prepared), times_(times), latency_ns_(times.link_latency_ns()) {
    ranks_.reserve(p_.lists.size());
    size_t num_entries = 0;
    for (const RankList& list : p_.lists) {
      ranks_.push_back({.progress = RankProgress(list)});
      num_entries += list.entries().size();
    }
    slots_.resize(p_.channels.size(), {.free = p_.options.slots_per_channel});
    if (p_.options.keep_bars) result_.timeline.bars.reserve(num_entries);
    // Arrivals are taken from the front by index: the vector is their history.
    arrivals_.reserve(num_entries);
  }

  Result<Simulation> ToTheEnd() {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) TryStart(static_cast<int32_t>(rank));
    for (now_ns_ = NextNs(); now_ns_ != kNever; now_ns_ = NextNs()) {
      TakeEvents();
      for (size_t i = 0; i < touched_.size(); ++i) {
        RankRun& rank = ranks_[static_cast<size_t>(touched_[i])];
        rank.touched = false;
        if (rank.computing < 0) GoOn(touched_[i]);
      }
      touched_.clear();
    }
    for (const RankRun& rank : ranks_) {
      if (rank.progress.num_started() < rank.progress.list().entries().size()) {
        return ExplainStop();
      }
    }
    return Figures();
  }

 private:
  int64_t NextNs() const {
    int64_t next_ns = ends_.empty() ? kNever : ends_.front().at_ns;
    if (arrived_ < arrivals_.size()) next_ns = std::min(next_ns, arrivals_[arrived_].at_ns);
    if (credited_ < credits_.size()) next_ns = std::min(next_ns, credits_[credited_].at_ns);
    return next_ns;
  }

  void TakeEvents() {
    while (!ends_.empty() && ends_.front().at_ns == now_ns_) {
      const End end = ends_.front();
      std::pop_heap(ends_.begin(), ends_.end(), std::greater<>());
      ends_.pop_back();
      RankRun& run = ranks_[static_cast<size_t>(end.rank)];
      if (end.entry == run.computing) {
        OnSegmentEnd(end.rank, run);
      } else if (EntryOf(run, end.entry).lane < 0) {
        run.progress.MarkDone(end.entry);
      } else {
        run.progress.MarkWaiting(end.entry, false);
        run.go_on.push_back(end.entry);
      }
      Touch(end.rank);
    }
    while (credited_ < credits_.size() && credits_[credited_].at_ns == now_ns_) {
      const int32_t channel = credits_[credited_++].channel;
      ++slots_[static_cast<size_t>(channel)].free;
      SendParked(channel);
    }
    while (arrived_ < arrivals_.size() && arrivals_[arrived_].at_ns == now_ns_) {
      const OutputLink link = arrivals_[arrived_++].link;
      ranks_[static_cast<size_t>(link.rank)].progress.MarkArrived(link.cell, link.bit);
      Touch(link.rank);
    }
  }

  void Touch(int32_t rank) {
    if (!std::exchange(ranks_[static_cast<size_t>(rank)].touched, true)) touched_.push_back(rank);
  }

  // The rank's device is free.
  void GoOn(int32_t rank) {
    RankRun& run = ranks_[static_cast<size_t>(rank)];
    if (run.go_on.empty()) return TryStart(rank);
    const int32_t entry = run.go_on.front();
    run.go_on.erase(run.go_on.begin());
    Compute(rank, entry, now_ns_,
            std::ranges::find(run.paused, entry, &PausedAction::entry)->SegmentNs());
  }

  static const RankList::Entry& EntryOf(const RankRun& run, int32_t entry) {
    return run.progress.list().entries()[static_cast<size_t>(entry)];
  }

  void TryStart(int32_t rank) {
    RankRun& run = ranks_[static_cast<size_t>(rank)];
    int32_t entry = NextEntry(run.progress);
    if (entry < 0) return;
    int64_t start_ns = now_ns_;
    if (p_.has_collectives) {
      entry = AfterCollectives(rank, run, entry);
      if (entry < 0) return;
      start_ns = GatheredNs(run, entry);
    }
    const Action& action = EntryOf(run, entry).action;
    int64_t length_ns = times_.Ns(action);
    if (times_.pair_factor() != 1 && action.pair != kNotPaired) {
      length_ns = InPair(run, entry, length_ns);
    }
    run.progress.MarkStarted(entry);
    ++result_.num_actions;
    if (times_.has_pauses()) {
      if (const ActionPauses pauses = times_.Pauses(action); pauses.count > 0) {
        run.paused.push_back({.entry = entry, .length_ns = length_ns, .pauses = pauses});
        length_ns = run.paused.back().SegmentNs();
      }
    }
    Compute(rank, entry, start_ns, length_ns);
  }

  // The whole action, or its next segment.
  void Compute(int32_t rank, int32_t entry, int64_t start_ns, int64_t length_ns) {
    RankRun& run = ranks_[static_cast<size_t>(rank)];
    const int64_t end_ns = start_ns + length_ns;
    run.computing = entry;
    run.first_start_ns = std::min(run.first_start_ns, start_ns);
    run.last_end_ns = end_ns;
    work_ns_ += length_ns;
    if (p_.options.keep_bars) KeepBar(rank, EntryOf(run, entry).action, start_ns, end_ns);
    PushEnd({end_ns, rank, entry});
  }

  // Starts the collectives from `entry` on; the compute action after them, or -1.
  int32_t AfterCollectives(int32_t rank, RankRun& run, int32_t entry) {
    for (; entry >= 0 && EntryOf(run, entry).lane < 0; entry = NextEntry(run.progress)) {
      Collect(rank, run, entry);
    }
    return entry;
  }

  // When the pass that is to start has its stage's parameters; weight gradients read none.
  int64_t GatheredNs(const RankRun& run, int32_t entry) const {
    const RankList::Entry& e = EntryOf(run, entry);
    const bool waits = !run.gathers_end_ns.empty() && e.action.kind != ActionKind::kBackwardWeight;
    return waits ? std::max(now_ns_, run.gathers_end_ns[static_cast<size_t>(e.stage)]) : now_ns_;
  }

  // On the engine beside compute. What takes no time has ended at once.
  [[gnu::cold]] void Collect(int32_t rank, RankRun& run, int32_t entry) {
    const RankList::Entry& e = EntryOf(run, entry);
    const int64_t length_ns = times_.Ns(e.action);
    const int64_t start_ns = length_ns > 0 ? std::max(now_ns_, run.collectives_end_ns) : now_ns_;
    const int64_t end_ns = start_ns + length_ns;
    run.progress.MarkStarted(entry);
    ++result_.num_actions;
    if (p_.options.keep_bars) KeepBar(rank, e.action, start_ns, end_ns);
    if (length_ns == 0) {
      run.progress.MarkDone(entry);
      return;
    }
    run.collectives_end_ns = end_ns;
    first_collective_ns_ = std::min(first_collective_ns_, start_ns);
    if (e.action.kind == ActionKind::kUnshard) {
      run.gathers_end_ns.resize(run.progress.list().stages().size(), 0);
      run.gathers_end_ns[static_cast<size_t>(e.stage)] = end_ns;
    }
    PushEnd({end_ns, rank, entry});
  }

  void KeepBar(int32_t rank, const Action& action, int64_t start_ns, int64_t end_ns) {
    result_.timeline.bars.push_back({.rank = PipelineRank(rank),
                                     .action = action,
                                     .start_ns = start_ns,
                                     .end_ns = end_ns,
                                     .cpu_ns = end_ns - start_ns});
  }

  void PushEnd(const End& end) {
    ends_.push_back(end);
    std::push_heap(ends_.begin(), ends_.end(), std::greater<>());
  }

  // The first action of a pair decides whether the two overlap: always where the pair is fused,
  // else where the next one could start too.
  int64_t InPair(RankRun& run, int32_t entry, int64_t length_ns) {
    const auto& entries = run.progress.list().entries();
    const auto at = static_cast<size_t>(entry);
    const bool continues = at > 0 && entries[at - 1].action.pair == entries[at].action.pair;
    if (!continues) {
      const bool overlaps = p_.options.policy.pairs == PairMode::kFused ||
                            (at + 1 < entries.size() && run.progress.HasInputs(entry + 1));
      run.pair_factor = overlaps ? times_.pair_factor() : 1;
    }
    return std::llround(static_cast<double>(length_ns) * run.pair_factor);
  }

  void OnSegmentEnd(int32_t rank, RankRun& run) {
    const int32_t entry = std::exchange(run.computing, -1);
    if (PausedAction* paused = std::ranges::find(run.paused, entry, &PausedAction::entry);
        paused != run.paused.end()) {
      if (paused->segment < paused->pauses.count) {
        ++paused->segment;
        run.progress.MarkWaiting(entry, true);
        return PushEnd({now_ns_ + paused->pauses.each_ns, rank, entry});
      }
      run.paused.erase(paused);
    }
    OnActionEnd(rank, run, static_cast<size_t>(entry), run.progress.MarkDone(entry));
  }

  void OnActionEnd(int32_t rank, RankRun& run, size_t entry, bool outputs_leave) {
    if (!p_.reads[static_cast<size_t>(rank)].empty()) {
      for (const int32_t channel : p_.reads[static_cast<size_t>(rank)][entry]) {
        if (channel >= 0) credits_.push_back({now_ns_ + latency_ns_, channel});
      }
    }
    const OutputLink& output = p_.outputs[static_cast<size_t>(rank)][entry];
    if (outputs_leave && run.held_back.empty()) {
      if (output.rank >= 0) Send(output);
      return;
    }
    if (output.rank >= 0) run.held_back.push_back(output);
    if (!outputs_leave) return;
    for (const OutputLink& held : run.held_back) Send(held);
    run.held_back.clear();
  }

  void Send(const OutputLink& output) {
    if (output.channel < 0) {
      arrivals_.push_back({now_ns_ + latency_ns_, output});
      return;
    }
    Slots& slots = slots_[static_cast<size_t>(output.channel)];
    slots.parked.push_back(output);
    SendParked(output.channel);
    result_.max_parked = std::max(result_.max_parked, static_cast<int>(slots.parked.size()));
  }

  void SendParked(int32_t channel) {
    Slots& slots = slots_[static_cast<size_t>(channel)];
    while (!slots.parked.empty() && slots.free > 0) {
      --slots.free;
      arrivals_.push_back({now_ns_ + latency_ns_, slots.parked.front()});
      slots.parked.pop_front();
    }
  }

  Error ExplainStop() const {
    std::vector<std::optional<Blocked>> blocked(ranks_.size());
    std::vector<size_t> heads;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      const Decision decision = NextAction(ranks_[rank].progress);
      if (const auto* edge = std::get_if<Blocked>(&decision)) blocked[rank] = *edge;
      heads.push_back(static_cast<size_t>(ranks_[rank].progress.head()));
    }
    return ExplainDeadlock(*p_.schedule, blocked, heads);
  }

  Simulation Figures() {
    const int num_ranks = p_.schedule->num_ranks;
    result_.timeline.num_ranks = num_ranks;
    int64_t first_start_ns = first_collective_ns_;
    int64_t last_end_ns = 0;
    Idle& idle = result_.idle;
    result_.peak_microbatches.resize(static_cast<size_t>(p_.schedule->num_stages));
    for (const RankRun& rank : ranks_) {
      result_.peak_activations.push_back(rank.progress.peak_held());
      const auto& stages = rank.progress.list().stages();
      for (size_t i = 0; i < stages.size(); ++i) {
        result_.peak_microbatches[static_cast<size_t>(stages[i].stage.value)] =
            rank.progress.peak_in_flight(i);
      }
      if (rank.first_start_ns > rank.last_end_ns) continue;
      const int64_t rank_end_ns = std::max(rank.last_end_ns, rank.collectives_end_ns);
      first_start_ns = std::min(first_start_ns, rank.first_start_ns);
      last_end_ns = std::max(last_end_ns, rank_end_ns);
      idle.span_ns = std::max(idle.span_ns, rank_end_ns - rank.first_start_ns);
    }
    idle.makespan_ns = last_end_ns - std::min(first_start_ns, last_end_ns);
    idle.work_ns = work_ns_;
    idle.bubble_makespan = BubbleRate(work_ns_, idle.makespan_ns, num_ranks);
    idle.bubble_span = BubbleRate(work_ns_, idle.span_ns, num_ranks);
    result_.bubble_makespan_ns = idle.makespan_ns - work_ns_ / num_ranks;
    result_.bubble_span_ns = idle.span_ns - work_ns_ / num_ranks;
    return std::move(result_);
  }

  const Prepared& p_;
  const ActionTimes& times_;
  const int64_t latency_ns_;
  std::vector<RankRun> ranks_{};
  std::vector<Slots> slots_{};
  std::vector<End> ends_{};  // a heap, earliest first
  std::vector<LinkArrival> arrivals_{};
  std::vector<Credit> credits_{};
  size_t arrived_ = 0;
  size_t credited_ = 0;
  std::vector<int32_t> touched_{};
  int64_t now_ns_ = 0;
  int64_t work_ns_ = 0;
  int64_t first_collective_ns_ = kNever;  // of those that take time
  Simulation result_{};
};

}  // namespace

Result<Simulation> Simulator::Run(const ActionTimes& times) const {
  return troupe::Run<Prepared>(*prepared_, times).ToTheEnd();
}

}  // namespace troupe

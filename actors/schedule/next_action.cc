#include "actors/schedule/next_action.h"

#include <algorithm>
#include <span>

namespace troupe {
namespace {

constexpr double kRounding = 1e-9;  // shares such as 1/3 do not add up to 1

const RankList::Entry& EntryOf(const RankProgress& progress, int32_t entry) {
  return progress.list().entries()[static_cast<size_t>(entry)];
}

// Why `entry`, whose inputs are not all here, cannot start.
Blocked BlockedAt(const RankProgress& progress, int32_t entry) {
  const RankList& list = progress.list();
  const Action& action = EntryOf(progress, entry).action;
  Blocked blocked{.reason = BlockReason::kOwnStage,
                  .waiting = action,
                  .owed_by = list.rank(),
                  .owed_stage = action.stage,
                  .microbatch = action.microbatch};
  // A fused pair waits for whatever one of its actions lacks.
  for (int32_t i = 0; i <= EntryOf(progress, entry).followers; ++i) {
    const RankList::Entry& e = EntryOf(progress, entry + i);
    if (e.cell < 0) {
      const bool waits = action.kind == ActionKind::kWaitReduceGrad;
      blocked.reason = waits ? BlockReason::kSums : BlockReason::kOwnStage;
      return blocked;
    }
    const uint8_t missing = e.needs & static_cast<uint8_t>(~progress.Bits(e.cell));
    if (missing == 0) continue;
    blocked.microbatch = e.action.microbatch;
    blocked.owed_stage = e.action.stage;
    if ((missing & (RankList::kForwardDone | RankList::kInputGradientDone)) != 0) {
      if (i == 0) return blocked;
      continue;  // an earlier action of the pair does it
    }
    if ((missing & RankList::kMessagesHere) != 0) {
      const InputList inputs = InputsOf(list.schedule(), e.action);
      const auto* const owed = std::ranges::find_if(inputs, [&](const Transfer& input) {
        return (missing & RankList::ArrivalBit(input.kind, input.input)) != 0;
      });
      blocked.reason = BlockReason::kInput;
      blocked.kind = owed->kind;
      blocked.owed_by = owed->from;
      blocked.owed_stage = owed->from_stage;
      return blocked;
    }
    blocked.reason = BlockReason::kData;
    blocked.kind = InputKind::kData;
    return blocked;
  }
  return blocked;
}

// Whether a Forward keeps the rank within its cap.
// Guided: it jumps the queue, and the list behind it goes on whatever is held, so what jumped must
// fit on top of the most that the list will hold from here on.
// Free-run: room stays for one microbatch in each deeper chunk and one of the other direction.
bool FitsMemory(const RankProgress& progress, const RankList::Entry& forward) {
  const RankList& list = progress.list();
  const RankList::Stage& stage = list.stages()[static_cast<size_t>(forward.stage)];
  double wanted = stage.share;
  if (list.policy().mode == ExecutorMode::kGuided) {
    wanted += list.PeakFrom(progress.head()) + progress.held_ahead();
  } else {
    wanted += progress.held() + stage.share * stage.deeper_chunks;
    if (list.schedule().num_directions > 1 && progress.InFlight(1 - stage.direction) == 0) {
      wanted += stage.share;
    }
  }
  return wanted <= list.activation_cap() + kRounding;
}

// The lowest place in the list among what may jump the queue and can; -1 where there is none.
int32_t JumpingEntry(const RankProgress& progress, bool only_weights) {
  const RankList& list = progress.list();
  int32_t best = -1;
  for (size_t lane = 0; lane < list.lanes().size(); ++lane) {
    const auto kind = static_cast<RankList::LaneKind>(lane % RankList::kLanesPerStage);
    if (only_weights && kind != RankList::kWeightLane) continue;
    const int32_t entry = progress.NextOf(static_cast<int32_t>(lane));
    if (entry < 0 || (best >= 0 && entry > best) || !progress.HasInputs(entry)) continue;
    const RankList::Entry& e = EntryOf(progress, entry);
    if (e.lane != static_cast<int32_t>(lane)) continue;  // a Backward in its second lane
    if (!progress.LanesAreFree(entry)) continue;
    const bool fused = list.policy().pairs == PairMode::kFused && e.action.pair != kNotPaired;
    if (fused || (kind == RankList::kForwardLane && !FitsMemory(progress, e))) continue;
    best = entry;
  }
  return best;
}

int Column(const RankList& list, const RankList::Entry& e) {
  return e.cell % list.microbatches_per_stage();
}

// Input gradients, the oldest microbatch first, of equals the one that more ranks wait for.
int32_t ReadyInputGradient(const RankProgress& progress) {
  const RankList& list = progress.list();
  int32_t best = -1;
  for (size_t stage = list.stages().size(); stage-- > 0;) {
    const auto lane = static_cast<int32_t>(stage * RankList::kLanesPerStage + RankList::kInputLane);
    const int32_t entry = progress.NextOf(lane);
    if (entry < 0 || !progress.HasInputs(entry)) continue;
    if (best < 0 ||
        Column(list, EntryOf(progress, entry)) < Column(list, EntryOf(progress, best))) {
      best = entry;
    }
  }
  return best;
}

// Forwards, the deepest chunk first, between directions the older microbatch; `blocked_by_memory`
// receives one that is ready but has no room.
int32_t ReadyForward(const RankProgress& progress, int32_t& blocked_by_memory) {
  const RankList& list = progress.list();
  int32_t best = -1;
  for (size_t stage = list.stages().size(); stage-- > 0;) {
    const auto lane =
        static_cast<int32_t>(stage * RankList::kLanesPerStage + RankList::kForwardLane);
    const int32_t entry = progress.NextOf(lane);
    if (entry < 0 || !progress.HasInputs(entry)) continue;
    const RankList::Entry& e = EntryOf(progress, entry);
    if (!FitsMemory(progress, e)) {
      blocked_by_memory = entry;
      continue;
    }
    if (best < 0) {
      best = entry;
      continue;
    }
    const RankList::Entry& other = EntryOf(progress, best);
    const bool same_direction =
        list.stages()[static_cast<size_t>(other.stage)].direction == list.stages()[stage].direction;
    if (!same_direction && Column(list, e) < Column(list, other)) best = entry;
  }
  return best;
}

// Why nothing of a free-running rank is ready: the oldest backward that is under way, or else the
// next Forward.
Blocked FreeRunBlocked(const RankProgress& progress) {
  int32_t blocked_by_memory = -1;
  ReadyForward(progress, blocked_by_memory);
  const RankList& list = progress.list();
  int32_t waits = -1;
  for (const RankList::LaneKind lane : {RankList::kInputLane, RankList::kForwardLane}) {
    for (size_t stage = 0; stage < list.stages().size() && waits < 0; ++stage) {
      const int32_t entry =
          progress.NextOf(static_cast<int32_t>(stage * RankList::kLanesPerStage + lane));
      if (entry < 0) continue;
      const bool under_way =
          (progress.Bits(EntryOf(progress, entry).cell) & RankList::kForwardDone) != 0;
      if (lane == RankList::kForwardLane || under_way) waits = entry;
    }
  }
  CHECK(waits >= 0, "rank {} has work left but nothing to wait for", list.rank());
  Blocked blocked = BlockedAt(progress, waits);
  if (blocked_by_memory >= 0) {
    blocked.reason = BlockReason::kMemory;
    blocked.waiting = EntryOf(progress, blocked_by_memory).action;
  }
  return blocked;
}

int32_t ReadyWeight(const RankProgress& progress) {
  const int stage = progress.OldestWeight();
  if (stage < 0) return -1;
  return progress.NextOf(stage * RankList::kLanesPerStage + RankList::kWeightLane);
}

int32_t FreeRunEntry(const RankProgress& progress) {
  if (const int32_t entry = ReadyInputGradient(progress); entry >= 0) return entry;
  int32_t blocked_by_memory = -1;
  if (const int32_t entry = ReadyForward(progress, blocked_by_memory); entry >= 0) return entry;
  return ReadyWeight(progress);
}

// Whether the head is the rank's own matter though it follows: no pass, in a mode with a list.
bool HeadIsItsOwn(const RankProgress& progress) {
  return progress.list().policy().mode != ExecutorMode::kFreeRun &&
         !ReadsWeights(EntryOf(progress, progress.head()).action.kind);
}

// Of a rank that follows: what was chosen, once it can start; until then its weight gradients.
int32_t FollowedEntry(const RankProgress& progress) {
  const int32_t head = progress.head();
  if (HeadIsItsOwn(progress)) {
    if (progress.HasInputs(head)) return head;
    if (EntryOf(progress, head).lane < 0) return -1;  // nothing overtakes the wait for a sum
  }
  const bool is_free = progress.list().policy().mode == ExecutorMode::kFreeRun;
  const int32_t weight =
      is_free ? ReadyWeight(progress) : JumpingEntry(progress, /*only_weights=*/true);
  const int32_t chosen = progress.Chosen();
  if (chosen < 0 || !progress.HasInputs(chosen)) return weight;
  const RankList::Entry& e = EntryOf(progress, chosen);
  const bool in_turn = !is_free && chosen == head;
  const bool fits =
      e.action.kind != ActionKind::kForward || in_turn || FitsMemory(progress, e) || weight < 0;
  return fits ? chosen : weight;
}

// Why a rank that follows starts nothing.
Blocked FollowerBlocked(const RankProgress& progress) {
  const int32_t head = progress.head();
  if (HeadIsItsOwn(progress)) return BlockedAt(progress, head);
  if (const int32_t chosen = progress.Chosen(); chosen >= 0) return BlockedAt(progress, chosen);
  const Action& waiting = EntryOf(progress, head).action;
  return {.reason = BlockReason::kChoice,
          .waiting = waiting,
          .owed_by = progress.list().rank(),
          .owed_stage = waiting.stage,
          .microbatch = waiting.microbatch};
}

// While every open action waits: the other action of its pair, else a weight gradient where the
// mode lets it leave its place; -1 where there is none.
int32_t EntryMeanwhile(const RankProgress& progress) {
  const RankList& list = progress.list();
  const auto size = static_cast<int32_t>(list.entries().size());
  const int32_t head = progress.head();
  if (progress.computes() ||
      progress.open().size() >= static_cast<size_t>(list.policy().open_actions)) {
    return -1;
  }
  if (list.policy().mode == ExecutorMode::kFreeRun) {
    const int32_t entry = ReadyWeight(progress);
    return entry >= 0 && progress.LanesAreFree(entry) ? entry : -1;
  }
  const auto pair_of = [&](int32_t entry) { return EntryOf(progress, entry).action.pair; };
  const bool of_open_pair =
      head < size && pair_of(head) != kNotPaired &&
      std::ranges::any_of(progress.open(), [&](const RankProgress::Open& open) {
        return pair_of(open.entry) == pair_of(head);
      });
  const bool may_start = !progress.follows() || progress.Chosen() == head;
  if (of_open_pair && may_start && progress.HasInputs(head) && progress.LanesAreFree(head)) {
    return head;
  }
  if (list.policy().mode == ExecutorMode::kStrict) return -1;
  if (head < size && EntryOf(progress, head).lane < 0) return -1;  // nothing overtakes a wait
  return JumpingEntry(progress, /*only_weights=*/true);
}

}  // namespace

int32_t NextEntry(const RankProgress& progress) {
  const RankList& list = progress.list();
  if (!progress.open().empty()) return EntryMeanwhile(progress);
  const int32_t head = progress.head();
  if (static_cast<size_t>(head) == list.entries().size()) return -1;
  if (progress.follows()) return FollowedEntry(progress);
  if (list.policy().mode == ExecutorMode::kFreeRun) return FreeRunEntry(progress);
  if (progress.HasInputs(head)) return head;
  if (list.policy().mode == ExecutorMode::kStrict) return -1;
  if (EntryOf(progress, head).lane < 0) return -1;  // nothing overtakes the wait for a sum
  return JumpingEntry(progress, /*only_weights=*/list.policy().activation_slack <= 0);
}

Decision NextAction(const RankProgress& progress) {
  if (const int32_t entry = NextEntry(progress); entry >= 0) {
    return Start{entry, EntryOf(progress, entry).action};
  }
  const RankList& list = progress.list();
  const auto size = static_cast<int32_t>(list.entries().size());
  const int32_t head = progress.head();
  const int32_t next = std::max(progress.Chosen(), head);  // what starts, a chosen pass or the head
  const bool ends_beside =
      head == size ? !progress.beside().empty() : progress.WaitsForReshard(EntryOf(progress, next));
  if (!progress.open().empty() || ends_beside) {
    const Action& waiting = EntryOf(progress, std::min(head, size - 1)).action;
    return Blocked{.reason = BlockReason::kRunning,
                   .waiting = waiting,
                   .owed_by = list.rank(),
                   .owed_stage = waiting.stage,
                   .microbatch = waiting.microbatch};
  }
  if (head == size) return Finished{};
  if (progress.follows()) return FollowerBlocked(progress);
  if (list.policy().mode == ExecutorMode::kFreeRun) return FreeRunBlocked(progress);
  return BlockedAt(progress, head);
}

const Action* NextOverWeights(const RankProgress& progress) {
  const RankList& list = progress.list();
  if (list.policy().mode != ExecutorMode::kStrict) return nullptr;
  const std::span entries(list.entries());
  for (const RankList::Entry& e : entries.subspan(static_cast<size_t>(progress.head()))) {
    if (ReadsWeights(e.action.kind)) return &e.action;
  }
  return nullptr;
}

std::string Describe(const Blocked& blocked) {
  std::string waiting = ToString(blocked.waiting);
  switch (blocked.reason) {
    case BlockReason::kRunning:
      return fmt::format("{} waits for the action that rank {} runs", waiting, blocked.owed_by);
    case BlockReason::kInput:
      return fmt::format("{} waits for the {} of microbatch {} from stage {} (rank {})", waiting,
                         InputKindName(blocked.kind), blocked.microbatch, blocked.owed_stage,
                         blocked.owed_by);
    case BlockReason::kData:
      return fmt::format("{} waits for the data of microbatch {} on rank {}", waiting,
                         blocked.microbatch, blocked.owed_by);
    case BlockReason::kOwnStage:
      return fmt::format("{} waits for an earlier action of stage {} that rank {} lists later",
                         waiting, blocked.owed_stage, blocked.owed_by);
    case BlockReason::kSums:
      return fmt::format("{} waits for the sums of stage {}'s gradients", waiting,
                         blocked.owed_stage);
    case BlockReason::kMemory:
      return fmt::format(
          "{} waits for memory until the gradient of microbatch {} comes from stage {} (rank {})",
          waiting, blocked.microbatch, blocked.owed_stage, blocked.owed_by);
    case BlockReason::kChoice:
      return fmt::format("rank {} waits for the first of its group to choose what starts next",
                         blocked.owed_by);
  }
  return waiting;
}

}  // namespace troupe

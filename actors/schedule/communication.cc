#include "actors/schedule/communication.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "actors/schedule/deadlock.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

Action SendOf(const Transfer& output) {
  return {.stage = output.from_stage,
          .kind = output.kind == InputKind::kActivation ? ActionKind::kSendForward
                                                        : ActionKind::kSendBackward,
          .microbatch = output.microbatch};
}

Action ReceiveOf(const Transfer& input) {
  return {.stage = input.to_stage,
          .kind = input.kind == InputKind::kActivation ? ActionKind::kRecvForward
                                                       : ActionKind::kRecvBackward,
          .microbatch = input.microbatch};
}

// What the wait belongs to: a send of the same stage and microbatch.
ActionKind WaitsFor(ActionKind wait) {
  return wait == ActionKind::kWaitSendForward ? ActionKind::kSendForward
                                              : ActionKind::kSendBackward;
}

bool IsWait(ActionKind kind) {
  return kind == ActionKind::kWaitSendForward || kind == ActionKind::kWaitSendBackward;
}

Action WaitAfter(const Action& action, ActionKind wait) {
  return {.stage = action.stage, .kind = wait, .microbatch = action.microbatch};
}

class Lowering {
 public:
  Lowering(const Schedule& schedule, Waits waits)
      : schedule_(schedule),
        waits_(waits),
        next_(schedule.num_ranks, 0),
        produced_(size_t{2} * schedule.num_stages * schedule.num_microbatches, false),
        lists_(schedule.num_ranks) {}

  Result<std::vector<std::vector<Action>>> Run() {
    for (bool progress = true; progress;) {
      progress = false;
      for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
        progress = TakeCell(PipelineRank(rank)) || progress;
      }
    }
    for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
      if (next_[rank] < schedule_.ranks[rank].size()) {
        return MakeError(ErrorCode::kInvalidSpec,
                         "{}: no order of sends and receives gets past it, for an overlapped pair "
                         "waits there for both its inputs; write the file without them",
                         CellName(schedule_, PipelineRank(rank), next_[rank]));
      }
      ListLastWaits(PipelineRank(rank));
    }
    return std::move(lists_);
  }

 private:
  size_t Index(const Transfer& transfer) const {
    const size_t row = 2 * transfer.from_stage.value + (transfer.kind == InputKind::kGradient);
    return row * schedule_.num_microbatches + transfer.microbatch.value;
  }

  // Appends the rank's next action, or pair, with its sends; false where it is not ready.
  bool TakeCell(PipelineRank rank) {
    const std::vector<Action>& actions = schedule_.ActionsOf(rank);
    const size_t first = next_[rank.value];
    size_t end = first;
    do {
      if (end == actions.size()) {
        return false;
      }
      const InputList inputs = InputsOf(schedule_, actions[end]);
      if (!std::ranges::all_of(inputs,
                               [&](const Transfer& t) -> bool { return produced_[Index(t)]; })) {
        return false;
      }
      ++end;
    } while (end < actions.size() && actions[end].pair != kNotPaired &&
             actions[end].pair == actions[first].pair);
    next_[rank.value] = end;
    std::vector<Action>& list = lists_[rank.value];
    list.insert(list.end(), actions.begin() + first, actions.begin() + end);
    for (size_t i = first; i < end; ++i) {
      SendOutput(actions[i]);
    }
    for (size_t i = first; waits_ == Waits::kListed && i < end; ++i) {
      ListWait(rank, actions[i]);
    }
    return true;
  }

  void SendOutput(const Action& action) {
    const auto output = OutputOf(schedule_, action);
    if (!output) {
      return;
    }
    produced_[Index(*output)] = true;
    if (output->crosses_ranks()) {
      lists_[output->from.value].push_back(SendOf(*output));
      lists_[output->to.value].push_back(ReceiveOf(*output));
    }
  }

  bool HasWaitForSums(StageId stage) const {
    return std::ranges::any_of(schedule_.ActionsOf(schedule_.RankOf(stage)),
                               [stage](const Action& a) {
                                 return a.stage == stage && a.kind == ActionKind::kWaitReduceGrad;
                               });
  }

  // A backward proves that its Forward's output was read; a reduction ends at once.
  void ListWait(PipelineRank rank, const Action& action) {
    const bool backward =
        action.kind == ActionKind::kBackward || action.kind == ActionKind::kBackwardInput;
    const std::optional<StageEdge> edge = schedule_.EdgeFrom(action.stage);
    const bool sent = backward && edge && schedule_.RankOf(edge->to) != rank;
    if (sent) {
      lists_[rank.value].push_back(WaitAfter(action, ActionKind::kWaitSendForward));
    } else if (action.kind == ActionKind::kReduceGrad && !action.of_microbatch &&
               !HasWaitForSums(action.stage)) {
      lists_[rank.value].push_back(WaitAfter(action, ActionKind::kWaitReduceGrad));
    }
  }

  // For the sends that no backward of this rank proves to be over.
  void ListLastWaits(PipelineRank rank) {
    std::vector<Action>& list = lists_[rank.value];
    const size_t end = waits_ == Waits::kListed ? list.size() : 0;
    for (size_t i = 0; i < end; ++i) {
      if (list[i].kind == ActionKind::kSendBackward) {
        list.push_back(WaitAfter(list[i], ActionKind::kWaitSendBackward));
      } else if (list[i].kind == ActionKind::kSendForward && schedule_.forward_only) {
        list.push_back(WaitAfter(list[i], ActionKind::kWaitSendForward));
      }
    }
  }

  const Schedule& schedule_;
  Waits waits_;
  std::vector<size_t> next_;    // per rank, into its list
  std::vector<bool> produced_;  // [stage, kind][microbatch]
  std::vector<std::vector<Action>> lists_;
};

// The sends and receives of one list, by what they carry.
class CommunicationOfRank {
 public:
  CommunicationOfRank(const Schedule& schedule, PipelineRank rank, const std::vector<Action>& list)
      : schedule_(schedule), rank_(rank), list_(list) {}

  std::optional<Misplaced> FindMisplaced() {
    if (auto misplaced = FindMisplacedWait()) {
      return misplaced;
    }
    for (size_t i = 0; i < list_.size(); ++i) {
      if (IsCommunication(list_[i].kind) && !IsWait(list_[i].kind) &&
          !positions_.emplace(KeyOf(list_[i]), i).second) {
        return At(i, "it stands here a second time; leave one out");
      }
    }
    for (size_t i = 0; i < list_.size(); ++i) {
      if (auto misplaced = FindMisplacedOf(i)) {
        return misplaced;
      }
    }
    if (positions_.empty()) {
      return std::nullopt;
    }
    const auto first = std::ranges::min_element(
        positions_, {}, [](const auto& key_and_position) { return key_and_position.second; });
    return At(first->second, "no compute action of this row needs it; leave it out");
  }

 private:
  using Key = std::tuple<ActionKind, StageId, MicrobatchId>;
  static Key KeyOf(const Action& action) { return {action.kind, action.stage, action.microbatch}; }

  Misplaced At(size_t index, std::string why) const {
    return {.rank = rank_, .index = index, .why = std::move(why)};
  }

  std::optional<Misplaced> FindMisplacedWait() const {
    std::set<Key> pending;  // sends without their wait so far
    for (size_t i = 0; i < list_.size(); ++i) {
      const Action& action = list_[i];
      if (IsWait(action.kind)) {
        const Key key{WaitsFor(action.kind), action.stage, action.microbatch};
        if (pending.erase(key) == 0) {
          return At(i, fmt::format("no {} of its stage and microbatch stands before it; leave it "
                                   "out",
                                   KindLetters(WaitsFor(action.kind))));
        }
      } else {
        pending.insert(KeyOf(action));
      }
    }
    return std::nullopt;
  }

  // The send and the receive that belong to a compute action; takes them off `positions_`.
  std::optional<Misplaced> FindMisplacedOf(size_t index) {
    for (const Transfer& input : InputsOf(schedule_, list_[index])) {
      if (!input.crosses_ranks()) continue;
      const Action receive = ReceiveOf(input);
      const auto found = positions_.find(KeyOf(receive));
      if (found == positions_.end() || found->second > index) {
        return At(index, fmt::format("its input comes from rank {}, but {} does not stand before "
                                     "it; add it, or leave out all sends and receives",
                                     input.from, ToString(receive)));
      }
      positions_.erase(found);
    }
    if (const auto output = OutputOf(schedule_, list_[index]); output && output->crosses_ranks()) {
      const Action send = SendOf(*output);
      const auto found = positions_.find(KeyOf(send));
      if (found == positions_.end() || found->second < index) {
        return At(index, fmt::format("its output goes to rank {}, but {} does not stand after it; "
                                     "add it, or leave out all sends and receives",
                                     output->to, ToString(send)));
      }
      positions_.erase(found);
    }
    return std::nullopt;
  }

  const Schedule& schedule_;
  PipelineRank rank_;
  const std::vector<Action>& list_;
  std::map<Key, size_t> positions_;
};

}  // namespace

Result<std::vector<std::vector<Action>>> WithCommunication(const Schedule& schedule, Waits waits) {
  RETURN_IF_ERROR(ValidateStructure(schedule));
  if (!schedule.edges.empty()) {  // a receive names the stage that reads, not which of its inputs
    return MakeError(ErrorCode::kInvalidSpec,
                     "schedule {}: its stages are no chain, which sends and receives cannot say",
                     schedule.name);
  }
  return Lowering(schedule, waits).Run();
}

std::optional<Misplaced> FindMisplacedCommunication(const Schedule& schedule,
                                                    const std::vector<std::vector<Action>>& lists) {
  for (size_t rank = 0; rank < lists.size(); ++rank) {
    CommunicationOfRank communication(schedule, PipelineRank(static_cast<int>(rank)), lists[rank]);
    if (auto misplaced = communication.FindMisplaced()) {
      return misplaced;
    }
  }
  return std::nullopt;
}

}  // namespace troupe

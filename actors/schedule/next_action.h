// Which action a rank starts next: the one decision of a schedule, shared by the executor actor and
// the simulator. A pure function of (schedule, rank, progress), O(1) a call; mode is strict: the
// head of the list starts when its input is here, and nothing overtakes it.
// Thread: a RankProgress belongs to one executor (or to the simulator) and needs no lock.
//
// Calls of an executor:
//   RankProgress progress(schedule, rank);
//   on an input:       progress.MarkArrived(kind, stage, microbatch); then decide
//   on a completion:   progress.MarkDone(action); send OutputOf(schedule, action); then decide
//   decide:            NextAction(...) → Action: progress.MarkStarted(action), launch it
//                                      → Blocked: keep as the wait record
//                                      → Finished: the rank's list is done
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

// Whether tokens and labels are there from the start, or come by MarkArrived(kData, …) for the
// first and the last stage.
enum class DataArrival : uint8_t { kAtStart, kMarked };

// At most `limit` outputs of one kind to one rank may be outstanding. In the simulator an output is
// until the receiver has consumed it, and the limit its slots plus the sender's own buffers; in the
// executor until the transport has let go of its buffer, and the limit those buffers.
struct SendLimit {
  Rank to{};
  InputKind kind = InputKind::kActivation;
  int limit = 0;
};

//   I1. One action runs at a time; actions start in the list's order.
//   I2. An input arrives once, for a stage of this rank and a microbatch of that stage.
//   I3. Hand-over between two stages of this rank is an arrival at the moment of MarkDone.
//   I4. Outstanding outputs of a limited channel stay within its limit.
class RankProgress {
 public:
  RankProgress(const Schedule& schedule, Rank rank, DataArrival data = DataArrival::kAtStart,
               const std::vector<SendLimit>& send_limits = {});

  // False where the input is a duplicate or not one this rank waits for; nothing changes then.
  [[nodiscard]] bool MarkArrived(InputKind kind, StageId stage, MicrobatchId microbatch);
  void MarkStarted(const Action& action);
  void MarkDone(const Action& action);
  // One output went onto this channel, and one is outstanding no more. Needed, and counted, for
  // channels with a limit only.
  void MarkProduced(Rank to, InputKind kind);
  void MarkConsumed(Rank to, InputKind kind);

  size_t started() const { return started_; }  // actions started: the index of the list's head
  bool running() const { return running_; }

  // What the decision reads; O(1) each (a rank holds a handful of stages).
  bool HasArrived(InputKind kind, StageId stage, MicrobatchId microbatch) const;
  bool ForwardDone(StageId stage, MicrobatchId microbatch) const;
  bool InputGradientDone(StageId stage, MicrobatchId microbatch) const;
  bool AllGradientsDone(StageId stage) const;  // every microbatch's weight gradient
  bool HasSendCredit(Rank to, InputKind kind) const;
  bool limits_sends() const { return !limited_.empty(); }

 private:
  struct LocalStage {
    StageId stage{};
    int first_microbatch = 0;
    int previous_local = -1;  // index of the neighbour in stages_ where it is on this rank
    int next_local = -1;
    bool is_first = false;
    bool is_last = false;
    int weight_gradients_done = 0;
  };
  struct LimitedChannel {
    SendLimit limit{};
    int outstanding = 0;
  };

  int LocalIndex(StageId stage) const;                          // -1 where the stage is elsewhere
  int CellIndex(StageId stage, MicrobatchId microbatch) const;  // -1 where it is not of this rank
  bool Has(StageId stage, MicrobatchId microbatch, uint8_t bit) const;
  void HandOver(int to_local, int column, uint8_t bit, const Action& action);

  int microbatches_per_stage_;
  std::vector<LocalStage> stages_;
  std::vector<uint8_t> cells_;  // [local stage][microbatch]: bits of what arrived and what is done
  std::vector<LimitedChannel> limited_;
  size_t started_ = 0;
  bool running_ = false;
};

enum class BlockReason : uint8_t {
  kRunning,     // an earlier action of this rank has not finished
  kInput,       // an activation or gradient of another stage is owed
  kData,        // tokens or labels are owed
  kOwnStage,    // an earlier action of the same stage must come first (a list that is out of order)
  kSendCredit,  // too many of this rank's outputs are outstanding
};

// A blocked edge: who waits, for what, owed by whom. The executor adds step and since-when.
struct Blocked {
  BlockReason reason = BlockReason::kRunning;
  Action waiting{};  // the head of the list (for kRunning: the head after it)
  InputKind kind = InputKind::kActivation;  // of the owed or the refused message
  Rank owed_by{};        // who must act; the rank itself for kRunning, kData and kOwnStage
  StageId owed_stage{};  // the stage that produces what is owed
  MicrobatchId microbatch{};
};
struct Finished {};

using Decision = std::variant<Action, Blocked, Finished>;

Decision NextAction(const Schedule& schedule, Rank rank, const RankProgress& progress);

// "2F3 waits for the activation of microbatch 3 from stage 1 (rank 1)".
std::string Describe(const Blocked& blocked);

}  // namespace troupe

// KvRing: how a pass over a layer exchanges blocks of keys and values, and their gradients, with
// its neighbours in the context-parallel group. actors/ring_attention_actor.h is the one there is;
// tests and measurements have others.
//
// Rank r of N. Keys and values of rank r's own tokens leave it with hop 1 and go from each rank to
// the next, N - 1 hops: with hop h comes the block of rank (r - h) mod N. The gradient of a block
// follows it one step behind and takes N hops, the last of which brings it home.
//
// Thread: the scheduler's.
//   V1. A pass expects its hops in order, each before the block is computed with which it travels:
//       at most two of a kind are expected, or here and not yet let go.
//   V2. All ranks of the group run their passes of one lane in one order; a pass ends with every
//       hop let go.
//   V3. Arrivals and departures live until they have happened, or until the ring has ended: whoever
//       destroys a task that waits ends the ring first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "actors/plan/trace_window.h"
#include "runtime/actor/stream_wait.h"
#include "runtime/base/clock.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

// Passes of different lanes may be open at once on a rank: a Forward, and a backward.
enum class KvPhase : uint8_t { kForward, kRecompute, kBackward };
inline constexpr int kNumKvPhases = 3;
inline constexpr int kNumKvLanes = 2;
constexpr int LaneOf(KvPhase phase) { return phase == KvPhase::kForward ? 0 : 1; }
constexpr std::string_view PhaseName(KvPhase phase) {
  if (phase == KvPhase::kForward) return "forward";
  return phase == KvPhase::kRecompute ? "recomputation" : "backward";
}

enum class KvKind : uint8_t { kKeysValues, kGradients };

// One hop of a pass over a layer, as its receiver and its sender name it.
struct KvHop {
  KvKind kind = KvKind::kKeysValues;
  KvPhase phase = KvPhase::kForward;
  int64_t step = -1;
  int32_t microbatch = -1;  // as actions number it; -1: one that is not trained on
  int32_t layer = 0;        // of the model
  int32_t hop = 1;          // from 1
  int32_t origin = 0;       // whose tokens the block is of: its place in the group

  bool operator==(const KvHop&) const = default;
};

struct KvArrival {
  std::span<std::byte> block{};  // in its slot; the pass's, to change too, until it is let go
  Status status{};               // written before `here` is set, as `block` is
  StreamEvent here{};
};
struct KvDeparture {
  Status status{};
  StreamEvent gone{};  // nobody reads the block any more
};

class KvRing {
 public:
  virtual ~KvRing() = default;

  virtual int num_ranks() const = 0;
  virtual int index() const = 0;  // of this rank
  // What hops and the waits for them are measured by; any thread.
  virtual const Clock& clock() const = 0;

  // The previous rank's block of this hop. `num_bytes`: that it must have.
  virtual void Expect(const KvHop& hop, int64_t num_bytes, KvArrival& arrival) = 0;
  // To the next rank, whose hop it is. The block stays as it is until it is gone.
  virtual void Send(const KvHop& hop, std::span<const std::byte> block, KvDeparture& departure) = 0;
  // The block that came with this hop is no longer needed. `idle_ns`: how long the stream stood
  // idle for it.
  virtual void Let(const KvHop& hop, int64_t idle_ns) = 0;
};

// What a rank's attention did in training steps, counted where it happens. Written on the stream;
// read when nothing runs.
struct AttentionWork {
  // By phase and hop (0: the rank's own block): visible (query, key) pairs of all sequences, layers
  // and microbatches; heads are not counted.
  std::array<std::vector<int64_t>, kNumKvPhases> pairs{};
  // The steps whose blocks leave spans (block_span.h) where they go round, and who they are of.
  TraceWindow trace{};
  Rank self{};
  std::vector<Rank> ranks{};  // of the group
};

}  // namespace troupe

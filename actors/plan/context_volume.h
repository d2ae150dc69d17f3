// What ranks that share sequences (axis cp) do for one another in a training step: what each sends,
// and how much of attention each computes. Predicted from the plan. Pure.
//
// N ranks; b sequences of a microbatch, T tokens of them on a rank; q query and k key channels, w
// those of a rank's heads under Ulysses (q / N and their keys and values); e bytes of a number in
// the compute dtype, m in the master's (float32: 4). KV = 2 T k e: a rank's keys and values; dKV =
// 2 T k m: their gradients. A rank sends of a layer and microbatch
//
//                                Forward, and computed again    backward
//   ring        kv_hop           (N - 1) of KV                  (N - 1) of KV
//               kv_gradient_hop                                 N of dKV
//   all_gather  all-gather       1: (N - 1) KV                  1: (N - 1) KV
//               reduce-scatter                                  1: (N - 1) dKV
//   ulysses     all-to-all       2 b: (N - 1) T e (w + q / N)   3 b: (N - 1) T e (w + 2 q / N)
//               all-gather       with documents b: 4 (N - 1) T  likewise
//
// A hop's block goes to the next rank, so every rank sends as much, whatever its positions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "actors/plan/communication_volume.h"

namespace troupe {

inline constexpr std::string_view kKvHop = "kv_hop";
inline constexpr std::string_view kKvGradientHop = "kv_gradient_hop";

// Slots of a ring's channel, where blocks arrive: one is worked on while the next comes. Keys and
// values have a channel for each lane (a Forward and a backward may be open at once), gradients
// one.
inline constexpr int kKvSlots = 2;
inline constexpr int kContextLanes = 2;

// What a hop carries: keys and values of a rank's tokens in a microbatch, or their gradients.
int64_t KvBlockBytes(const JobPlan& plan);
int64_t KvGradientBlockBytes(const JobPlan& plan);

// Rows of axis cp; none where no sequence is shared.
std::vector<CommunicationVolume> ContextVolumeOf(const JobPlan& plan, Rank rank);
// Of the slots through which all that goes, whole pages: of a ring where blocks arrive (they leave
// from where they lie), else of a group for each lane.
int64_t ContextSlotBytes(const JobPlan& plan);

// Visible (query, key) pairs that a rank computes in a step, by hop: with hop h the keys of rank
// (index - h) mod N, with 0 its own; all of them with 0 where it has whole sequences (ulysses), of
// its heads. Of all layers, microbatches and sequences; heads are not counted. Where sequences pack
// documents, what it would be if each were one: the most.
struct AttentionPairs {
  std::vector<int64_t> forward{};
  std::vector<int64_t> recompute{};  // empty: nothing is computed again
  std::vector<int64_t> backward{};

  bool operator==(const AttentionPairs&) const = default;
};
AttentionPairs AttentionPairsOf(const JobPlan& plan, Rank rank);

// Fewest positions of a rank (c) with which a hop takes no longer than the computation of the block
// before it, as all ranks compute F operations and send B bytes a second. With the share s of a
// block's pairs that is visible (1 of contiguous positions, else 1 / 2), H heads of d channels:
//
//   forward    4 H d c^2 s / F  >=  2 c k e / B
//   backward  10 H d c^2 s / F  >=  2 c k (e + m) / B
struct HidingChunk {
  int64_t forward = 0;
  int64_t backward = 0;
};
HidingChunk HidingChunkOf(const JobPlan& plan, double flops_per_second, double bytes_per_second);

}  // namespace troupe

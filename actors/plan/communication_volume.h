// What a rank sends to others in one training step: predicted from the plan, and in the same form
// what was measured. Bytes are those of tensors alone, without envelopes. Pure.
//
//   pp  activation, gradient   messages between the ranks of a pipeline: a boundary tensor each
//   pp  all-reduce             of gradients that two ranks of a pipeline share: the two uses of a
//                              tied weight, the copies of two directions
//   cp  kv_hop, … all-to-all   of keys and values, and their gradients: context_volume.h
//   dp  all-reduce             of the gradients of a stage, and with ZeRO of those that persist
//   dp  reduce, broadcast      as a chain instead (ReductionAlgorithm::kChain)
//   dp  reduce-scatter         with ZeRO: of the gradients of each row of shards
//   dp  all-gather             ZeRO-1 and 2: of the weights made of them, once a step
//   dp  shard                  ZeRO-3: a rank's run of a row to each other rank that gathers it; of
//                              empty runs none
//
// Along dp lie all ranks with the same weights: those that share sequences (cp), too.
// Where R replicas have the same shard of S bytes, the reduce-scatter is among all members, each of
// which sums its share, and an all-gather of shares among the replicas follows: Psi - S / R, then
// (R - 1) S / R. Along rings it is among the N owners, and an all-reduce among the replicas
// follows: Psi - S, then 2 S (R - 1) / R: together as much.
//
// Gradients that are reduced every microbatch are the pieces of each (gradient_piece.h).
// Of a stage with P bytes of weights (and as many of gradients) and k microbatches, N ranks send in
// units of P (N - 1) / N on average: with ZeRO-1 2; with ZeRO-2 k + 1; with ZeRO-3 3 k, without
// resharding 2 k where each Forward's backward runs before the next Forward, with gradients reduced
// once 2 k + 1. Less what the backwards of the embedding and the head do not gather, more a second
// use of a tied weight.
//
// An all-reduce of S bytes in parts among n ranks sends 2 S (n - 1) in all, and each rank its own
// part n - 2 times and the whole once, along a ring the whole twice but its own part and the next
// one's (base/all_reduce_parts.h). A chain sends S from each rank but the last, and S from each but
// the first.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "actors/plan/gradient_reduction.h"
#include "actors/plan/mesh.h"

namespace troupe {

struct JobPlan;

struct CommunicationVolume {
  Axis axis = Axis::kPp;            // along which the others lie
  std::string_view operation = {};  // a literal: "activation", "all-reduce"
  int64_t count = 0;                // of messages, or of operations of a group
  int64_t bytes = 0;                // that the rank sends
  int64_t bytes_per_hop = 0;        // of a ring's hops: of each

  bool operator==(const CommunicationVolume&) const = default;
};

// How often the units of a stage are gathered in a training step (ZeRO-3), each by all passes of
// one kind: Forwards, and backwards that read weights (Backward and BackwardInput). A unit that is
// kept from a Forward to its backward is gathered by no pass in between, nor is any between UNSHARD
// and RESHARD of its stage.
struct UnitGathers {
  int64_t forward = 0;
  int64_t backward = 0;
  int64_t entries = 0;  // by UNSHARD: each row of the stage once
  bool operator==(const UnitGathers&) const = default;
};
// `actions`: the list of the stage's rank.
UnitGathers GathersOf(std::span<const Action> actions, StageId stage, bool reshard_after_forward);

// Along which the ranks of the reduction's group lie.
Axis AxisOf(const GradientReduction& reduction);

// Adds to the row of the same axis and operation; nothing where there is nothing to add.
void AddVolume(std::vector<CommunicationVolume>& rows, const CommunicationVolume& more);

// A row for each axis and operation that the rank has a part in. The plan's other orders send the
// same, but for gathers without resharding.
std::vector<CommunicationVolume> CommunicationOf(const JobPlan& plan, Rank rank);

}  // namespace troupe

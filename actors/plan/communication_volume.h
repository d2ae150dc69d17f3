// What a rank sends to others in one training step: predicted from the plan, and in the same form
// what was measured. Bytes are those of tensors alone, without envelopes. Pure.
//
//   pp  activation, gradient   messages between the ranks of a pipeline: a boundary tensor each
//   pp  all-reduce             of gradients that two ranks of a pipeline share: the two uses of a
//                              tied weight, the copies of two directions
//   dp  all-reduce             of the gradients of a stage
//   dp  reduce-scatter,        with ZeRO-1 instead: of the gradients of each row of shards, and of
//       all-gather             the weights made of them
//
// An all-reduce of S bytes in parts among n ranks sends 2 S (n - 1) in all, and each rank its own
// part n - 2 times and the whole once (base/all_reduce_parts.h).
#pragma once

#include <cstdint>
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

  bool operator==(const CommunicationVolume&) const = default;
};

// Along which the ranks of the reduction's group lie.
Axis AxisOf(const GradientReduction& reduction);

// Adds to the row of the same axis and operation; nothing where there is nothing to add.
void AddVolume(std::vector<CommunicationVolume>& rows, const CommunicationVolume& more);

// A row for each axis and operation that the rank has a part in. The plan's other orders send the
// same.
std::vector<CommunicationVolume> CommunicationOf(const JobPlan& plan, Rank rank);

}  // namespace troupe

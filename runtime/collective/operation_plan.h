// How an operation is done by direct messages: what each member sends to each other, what it sums
// itself, what it receives. Pure, and the same decision at every member.
//
//   all-reduce       every member owns a part (base/all_reduce_parts.h): it receives that part from
//                    all, sums it, and sends the sum to all. A small one: everybody receives and
//                    sums everything.
//   reduce-scatter   the first half of it; all-gather, broadcast and shift are copies.
//   reduce           the root owns everything.
//
// Bytes sent by a member of n, of S bytes: all-reduce 2 (n-1)/n S, reduce-scatter and all-gather
// (n-1)/n S, as a ring's, in one hop each instead of n-1.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/all_reduce_parts.h"
#include "runtime/collective/group.h"

namespace troupe {

struct OperationPlan {
  std::vector<ElementRun> sum_to{};     // of the input, for each member to sum
  ElementRun summed{};                  // of the input: what this member sums, from all members
  int64_t sum_first = 0;                // where in the output the sum begins
  std::vector<ElementRun> copy_to{};    // for each member, of the input or of the output's sum
  bool copies_sum = false;              // copy_to is of the output, and ready as the sum is
  std::vector<ElementRun> copy_from{};  // of the output, from each member
};

// Of a reduce-scatter: each member's run of the input.
std::vector<ElementRun> PartsOf(const GroupOperation& operation, int size);

OperationPlan PlanOperation(const GroupOperation& operation, int index, int size,
                            int64_t element_bytes);

// What the member sends to itself: copied from input to output, where they are not one already.
void CopyOwnPart(const GroupOperation& operation, const OperationPlan& plan, int index,
                 int64_t element_bytes);

}  // namespace troupe

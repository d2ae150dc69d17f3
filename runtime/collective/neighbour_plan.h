// A sum that goes from neighbour to neighbour (SumAlgorithm), block by block: what this member
// takes from the one behind it and sends to the one ahead. Pure, and agreed by all members.
//
//   ring    the sum of a part goes through all members to its owner, each adding its own elements
//           on its way; of an all-reduce the whole sum goes from the owner through all once more.
//           With member (b, x) the x-th of host b (GroupSpec::hosts): from (b, x) to (b, x + 1),
//           and after the m members of a host from (b, x) to (b + 1, x + 1); so a part crosses
//           between hosts as seldom as it can. Of one host, or of unequal ones: from i to i + 1.
//   chain   the sum of everything goes from member 0 up to the last, and whole down to 0.
//
// Elements sent by a member of n, of a whole of S: along a ring S less its own part in a
// reduce-scatter, and again S less that of one neighbour in an all-reduce
// (base/all_reduce_parts.h); along a chain S up, but by the last, and S down, but by member 0.
//
//   N1. Members send in the order of these lists, whichever neighbour a block is for: by round of
//       blocks, and in it by hop. Take the least entry, by (round, hop), that any member has not
//       sent. What it passes on is less, so it was sent and received. And of what its member sent
//       before, the one ahead holds one block at most, that of the hop before: the next entry of
//       any other is less than the least, so it was sent. So two slots of each peer are enough,
//       also where parts are empty and their entries are skipped.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/all_reduce_parts.h"
#include "runtime/collective/group.h"

namespace troupe {

struct NeighbourBlock {
  ElementRun run{};  // of the operation's input
  int from = -1;     // the member that it comes from; -1: it begins here
  int to = -1;       // the member that it goes to; -1: it ends here
};

struct NeighbourPlan {
  std::vector<NeighbourBlock> sums{};    // one that ends here is whole with the own elements
  std::vector<NeighbourBlock> copies{};  // one that begins here is the next that became whole
  int64_t output_first = 0;              // the element of the input where the output begins
};

// Whether an operation of such a group goes so, and not directly.
bool GoesByNeighbours(GroupOperationKind kind, SumAlgorithm algorithm);

// Of the group's member `index`. Blocks are of `block_elements` at most. Two members or more.
NeighbourPlan PlanNeighbours(const GroupOperation& operation, const GroupSpec& spec, int index,
                             int64_t block_elements);

}  // namespace troupe

// How the members of a group divide an all-reduce, by direct messages or along a ring: what each of
// them has the whole sum of first, and so what each sends. The runtime exchanges by it
// (collective/operation_plan.h), and the plan counts by it. Pure.
#pragma once

#include <cstdint>
#include <vector>

namespace troupe {

// Elements [first, first + count).
struct ElementRun {
  int64_t first = 0;
  int64_t count = 0;
  bool operator==(const ElementRun&) const = default;
};

struct AllReduceParts {
  int64_t count = 0;  // elements of the whole
  // Everybody sums everything, in one exchange, and sends no sums: quicker where all is small.
  bool everywhere = false;
  std::vector<ElementRun> summed{};  // by each member; else they cover the whole, each element once

  // By that member: its elements to those who sum them, then its sum to everybody. In parts, all
  // members together send 2 (n - 1) count.
  int64_t ElementsSentBy(int member) const;
  // The same along a ring: every part but its own, then every whole sum but its next neighbour's
  // (where members are on several hosts, but one other's: collective/neighbour_plan.h).
  int64_t ElementsSentInRingBy(int member) const;
};

// Parts begin at whole cache lines; the last ones may be short or empty.
AllReduceParts DivideAllReduce(int64_t count, int64_t element_bytes, int num_members);
// Along a ring, of any size: never everywhere.
AllReduceParts DivideRing(int64_t count, int num_members);

}  // namespace troupe

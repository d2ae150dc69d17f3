// How the members of a group divide an all-reduce of direct messages: what each of them sums, and
// so what each sends. The runtime exchanges by it (collective/operation_plan.h), and the plan
// counts by it. Pure.
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
};

// Parts begin at whole cache lines; the last ones may be short or empty.
AllReduceParts DivideAllReduce(int64_t count, int64_t element_bytes, int num_members);

}  // namespace troupe

#include "runtime/base/all_reduce_parts.h"

#include <algorithm>
#include <cstddef>

namespace troupe {
namespace {

// Up to this size one exchange of everything is quicker than two of parts.
constexpr int64_t kSumEverywhereBytes = 16 << 10;
// Parts begin at such multiples, so that no two members write one cache line.
constexpr int64_t kPartElements = 64;

ElementRun PartOf(int64_t count, int index, int size) {
  const int64_t each = (count + size - 1) / size;
  const int64_t stride = (each + kPartElements - 1) / kPartElements * kPartElements;
  const int64_t first = std::min(count, stride * index);
  return {first, std::min(count, first + stride) - first};
}

}  // namespace

int64_t AllReduceParts::ElementsSentBy(int member) const {
  const auto others = static_cast<int64_t>(summed.size()) - 1;
  if (everywhere) return others * count;
  const int64_t own = summed[static_cast<size_t>(member)].count;
  return (count - own) + others * own;
}

int64_t AllReduceParts::ElementsSentInRingBy(int member) const {
  const auto own = static_cast<size_t>(member);
  return 2 * count - summed[own].count - summed[(own + 1) % summed.size()].count;
}

AllReduceParts DivideAllReduce(int64_t count, int64_t element_bytes, int num_members) {
  if (count * element_bytes > kSumEverywhereBytes) return DivideRing(count, num_members);
  return {.count = count,
          .everywhere = true,
          .summed = std::vector(static_cast<size_t>(num_members), ElementRun{0, count})};
}

AllReduceParts DivideRing(int64_t count, int num_members) {
  AllReduceParts parts{.count = count};
  for (int member = 0; member < num_members; ++member) {
    parts.summed.push_back(PartOf(count, member, num_members));
  }
  return parts;
}

}  // namespace troupe

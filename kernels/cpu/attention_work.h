// What attention's plain loops and its fast bodies share: the scale, where a sequence's ranges
// begin, and what is said of a workspace that is too small.
#pragma once

#include <cmath>
#include <string>

#include "kernels/attention.h"
#include "kernels/cpu/workspace.h"

namespace troupe {

template <typename Real>
Real AttentionScale(const AttentionShape& shape) {
  return static_cast<Real>(
      shape.scale != 0.0 ? shape.scale : 1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
}

// kRanges: the index of the range of the first query of sequence `b`.
inline int64_t FirstRangeOf(const AttentionShape& shape, int64_t b) {
  const bool alike = static_cast<int64_t>(shape.first_key.size()) == shape.query_len;
  return alike ? 0 : b * shape.query_len;
}

inline std::string Described(const char* op, const AttentionShape& s) {
  return std::string(op) + " of " + std::to_string(s.num_sequences) + " sequences, " +
         std::to_string(s.query_len) + " queries, " + std::to_string(s.key_len) + " keys, " +
         std::to_string(s.num_heads) + " query heads, " + std::to_string(s.num_kv_heads) +
         " key heads of " + std::to_string(s.head_dim);
}

// `count` elements of the workspace of `op`.
template <typename Real>
Real* AttentionScratchOf(const Exec& exec, const char* op, const AttentionShape& shape,
                         int64_t count) {
  CheckWorkspace(exec.workspace, count * static_cast<int64_t>(sizeof(Real)),
                 [&] { return Described(op, shape); });
  return reinterpret_cast<Real*>(exec.workspace.data());
}

}  // namespace troupe

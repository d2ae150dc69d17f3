// The squared norm of a gradient as one fixed sum, whatever the sharding. The elements of a
// parameter are cut into leaves of 1,024; a leaf's squares are summed in float64 in a fixed order;
// leaves are joined by a fixed binary tree: a tree over n > 1 leaves splits at the largest power of
// two below n. A shard is a run of whole leaves; it votes the roots of the largest complete
// subtrees in its run, and whoever holds all votes rebuilds the same root, bit for bit.
#pragma once

#include <span>
#include <vector>

#include "kernels/exec.h"

namespace troupe {

inline constexpr int64_t kNormLeafElements = 1024;

// Number of leaves of `num_elements` elements; the last may be short.
int64_t NumNormLeaves(int64_t num_elements);

// leaves[i] = sum of squares of elements [1024 i, 1024 (i+1)) of the flat dense view `grad`, which
// begins on a leaf's border and may be bfloat16: its squares are exact in float64. leaves.size() is
// NumNormLeaves(grad.num_elements()).
void SquaredNormLeaves(const Exec& exec, std::span<double> leaves, ConstTensorView grad);

// A subtree: the sum over leaves [first_leaf, first_leaf + num_leaves) of its parameter.
struct NormNode {
  int64_t first_leaf = 0;
  int64_t num_leaves = 0;
  double sum = 0.0;
};

// The largest subtrees of the tree over `total_leaves` that lie inside the run starting at
// `first_leaf`, in ascending order. A run over the whole parameter gives one node, the root.
std::vector<NormNode> SquaredNormNodes(int64_t total_leaves, int64_t first_leaf,
                                       std::span<const double> leaves);

// The tree's shape: the leaves of the left subtree of a tree over `num_leaves` > 1.
int64_t LeftNormLeaves(int64_t num_leaves);

}  // namespace troupe

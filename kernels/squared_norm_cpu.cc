#include <algorithm>
#include <bit>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"
#include "kernels/squared_norm.h"

namespace troupe {
namespace {

// A leaf is summed in this many interleaved lanes (lane l takes elements l, l + 16, ...), which are
// then halved onto each other: the order that vectors of any width can follow bit for bit.
constexpr int64_t kLanes = 16;

double LeafSpecification(const ConstTensorView& grad, int64_t first, int64_t count) {
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) {
    const double value = Read<double>(grad, 0, first + i);
    lanes[i % kLanes] += value * value;
  }
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

double SumOf(std::span<const double> leaves) {
  if (leaves.size() == 1) return leaves[0];
  const auto left = static_cast<size_t>(LeftNormLeaves(static_cast<int64_t>(leaves.size())));
  return SumOf(leaves.first(left)) + SumOf(leaves.subspan(left));
}

// Appends the largest subtrees of the tree over [first, first + count) inside the run.
void CollectNodes(int64_t first, int64_t count, int64_t run_first, std::span<const double> run,
                  std::vector<NormNode>& nodes) {
  const int64_t run_end = run_first + static_cast<int64_t>(run.size());
  if (first >= run_end || first + count <= run_first) return;
  if (first >= run_first && first + count <= run_end) {
    const auto part =
        run.subspan(static_cast<size_t>(first - run_first), static_cast<size_t>(count));
    nodes.push_back({first, count, SumOf(part)});
    return;
  }
  const int64_t left = LeftNormLeaves(count);
  CollectNodes(first, left, run_first, run, nodes);
  CollectNodes(first + left, count - left, run_first, run, nodes);
}

}  // namespace

int64_t NumNormLeaves(int64_t num_elements) {
  return (num_elements + kNormLeafElements - 1) / kNormLeafElements;
}

void SquaredNormLeaves(const Exec& exec, std::span<double> leaves, ConstTensorView grad) {
  CheckOnCpu(exec);
  const int64_t num_elements = grad.num_elements();
  KERNEL_CHECK(grad.is_dense(), "the gradient is dense");
  KERNEL_CHECK(static_cast<int64_t>(leaves.size()) == NumNormLeaves(num_elements),
               "one sum for each leaf");
  const VectorBodies* fast = FastBodies(exec, grad.dtype());
  for (int64_t leaf = 0; leaf < NumNormLeaves(num_elements); ++leaf) {
    const int64_t first = leaf * kNormLeafElements;
    const int64_t count = std::min(kNormLeafElements, num_elements - first);
    leaves[static_cast<size_t>(leaf)] = fast != nullptr
                                            ? fast->norm_leaf(RowsOf(grad), first, count)
                                            : LeafSpecification(grad, first, count);
  }
}

std::vector<NormNode> SquaredNormNodes(int64_t total_leaves, int64_t first_leaf,
                                       std::span<const double> leaves) {
  KERNEL_CHECK(first_leaf >= 0 && first_leaf + static_cast<int64_t>(leaves.size()) <= total_leaves,
               "the run of leaves lies outside the parameter");
  std::vector<NormNode> nodes;
  if (!leaves.empty()) CollectNodes(0, total_leaves, first_leaf, leaves, nodes);
  return nodes;
}

int64_t LeftNormLeaves(int64_t num_leaves) {
  return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(num_leaves - 1)));
}

}  // namespace troupe

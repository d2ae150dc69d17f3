#include "runtime/collective/operation_plan.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"

namespace troupe {
namespace {

// One run for each member, packed in their order.
std::vector<ElementRun> Packed(std::span<const int64_t> counts, int64_t total, int size) {
  std::vector<ElementRun> runs;
  int64_t first = 0;
  for (int member = 0; member < size; ++member) {
    const int64_t count = counts.empty() ? total / size : counts[static_cast<size_t>(member)];
    runs.push_back({first, count});
    first += count;
  }
  CHECK(first == total, "the parts of an operation are {} elements and not {}", first, total);
  return runs;
}

void PlanAllReduce(AllReduceParts parts, int index, OperationPlan* plan) {
  plan->copies_sum = !parts.everywhere;
  plan->summed = parts.summed[static_cast<size_t>(index)];
  plan->sum_first = plan->summed.first;
  if (!parts.everywhere) {
    plan->copy_from = parts.summed;
    std::ranges::fill(plan->copy_to, plan->summed);
    plan->copy_from[static_cast<size_t>(index)] = plan->copy_to[static_cast<size_t>(index)] = {};
  }
  plan->sum_to = std::move(parts.summed);
}

}  // namespace

std::vector<ElementRun> PartsOf(const GroupOperation& operation, int size) {
  if (!operation.parts.empty()) return {operation.parts.begin(), operation.parts.end()};
  return Packed(operation.send_counts, operation.input.count, size);
}

OperationPlan PlanOperation(const GroupOperation& operation, int index, int size,
                            int64_t element_bytes) {
  OperationPlan plan;
  const auto members = static_cast<size_t>(size);
  const auto self = static_cast<size_t>(index);
  plan.sum_to.resize(members);
  plan.copy_to.resize(members);
  plan.copy_from.resize(members);
  const ElementRun whole_input{0, operation.input.count};
  const ElementRun whole_output{0, operation.output.count};
  const auto root = static_cast<size_t>(operation.peer);
  switch (operation.kind) {
    case GroupOperationKind::kAllReduce:
      PlanAllReduce(DivideAllReduce(operation.input.count, element_bytes, size), index, &plan);
      break;
    case GroupOperationKind::kReduceScatter:
      plan.sum_to = PartsOf(operation, size);
      plan.summed = plan.sum_to[self];
      break;
    case GroupOperationKind::kAllGather:
      std::ranges::fill(plan.copy_to, whole_input);
      plan.copy_from = Packed(operation.receive_counts, operation.output.count, size);
      break;
    case GroupOperationKind::kAllToAll:
      plan.copy_to = Packed(operation.send_counts, operation.input.count, size);
      plan.copy_from = Packed(operation.receive_counts, operation.output.count, size);
      break;
    case GroupOperationKind::kBroadcast:
      if (self != root) {
        plan.copy_from[root] = whole_output;
      } else {
        std::ranges::fill(plan.copy_to, whole_input);
        plan.copy_to[self] = {};  // in place
      }
      break;
    case GroupOperationKind::kReduce:
      plan.sum_to[root] = whole_input;
      if (self == root) plan.summed = whole_input;
      break;
    case GroupOperationKind::kShift: {
      const int distance = (operation.peer % size + size) % size;
      plan.copy_to[static_cast<size_t>((index + distance) % size)] = whole_input;
      plan.copy_from[static_cast<size_t>((index - distance + size) % size)] = whole_output;
      break;
    }
    case GroupOperationKind::kBarrier:
      break;
  }
  return plan;
}

void CopyOwnPart(const GroupOperation& operation, const OperationPlan& plan, int index,
                 int64_t element_bytes) {
  const ElementRun from = plan.copy_to[static_cast<size_t>(index)];
  const ElementRun to = plan.copy_from[static_cast<size_t>(index)];
  if (from.count == 0) return;
  const auto* source =
      static_cast<const std::byte*>(operation.input.data) + from.first * element_bytes;
  auto* target = static_cast<std::byte*>(operation.output.data) + to.first * element_bytes;
  if (source == target) return;
  std::memcpy(target, source, static_cast<size_t>(from.count * element_bytes));
}

}  // namespace troupe

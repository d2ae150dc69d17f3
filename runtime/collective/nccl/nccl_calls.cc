#include "runtime/collective/nccl/nccl_calls.h"

#include <cstddef>

namespace troupe {
namespace {

// Whether the runs are `total` elements in equal parts, one after the other.
bool AreEqualParts(const std::vector<ElementRun>& runs, int64_t total) {
  const int64_t count = runs[0].count;
  for (size_t member = 0; member < runs.size(); ++member) {
    if (runs[member] != ElementRun{static_cast<int64_t>(member) * count, count}) return false;
  }
  return total == count * std::ssize(runs);
}

// The memory of an operation, by element.
struct OperationMemory {
  const GroupOperation& operation;
  int64_t element_bytes = 0;

  const void* Input(int64_t first) const {
    return static_cast<const std::byte*>(operation.input.data) + first * element_bytes;
  }
  void* Output(int64_t first) const {
    return static_cast<std::byte*>(operation.output.data) + first * element_bytes;
  }
};

std::vector<NcclCall> ReduceScatterCalls(const OperationMemory& memory, const OperationPlan& plan,
                                         int index) {
  const GroupOperation& operation = memory.operation;
  if (operation.parts.empty() && AreEqualParts(plan.sum_to, operation.input.count)) {
    return {{NcclCallKind::kReduceScatter, memory.Input(0), memory.Output(0), plan.summed.count}};
  }
  std::vector<NcclCall> calls;
  for (size_t member = 0; member < plan.sum_to.size(); ++member) {
    const ElementRun part = plan.sum_to[member];
    if (part.count == 0) continue;
    const int root = static_cast<int>(member);
    calls.push_back({NcclCallKind::kReduce, memory.Input(part.first),
                     root == index ? memory.Output(plan.sum_first) : nullptr, part.count, root});
  }
  return calls;
}

std::vector<NcclCall> AllGatherCalls(const OperationMemory& memory, const OperationPlan& plan,
                                     int index) {
  const GroupOperation& operation = memory.operation;
  if (AreEqualParts(plan.copy_from, operation.output.count)) {
    return {{NcclCallKind::kAllGather, memory.Input(0), memory.Output(0), operation.input.count}};
  }
  std::vector<NcclCall> calls;
  for (size_t member = 0; member < plan.copy_from.size(); ++member) {
    const ElementRun part = plan.copy_from[member];
    if (part.count == 0) continue;
    const int root = static_cast<int>(member);
    calls.push_back({NcclCallKind::kBroadcast, root == index ? memory.Input(0) : nullptr,
                     memory.Output(part.first), part.count, root});
  }
  return calls;
}

// Between each two members in the order of members, a member and itself included.
std::vector<NcclCall> CopyCalls(const OperationMemory& memory, const OperationPlan& plan) {
  std::vector<NcclCall> calls;
  for (size_t member = 0; member < plan.copy_to.size(); ++member) {
    const ElementRun out = plan.copy_to[member];
    const ElementRun in = plan.copy_from[member];
    const int peer = static_cast<int>(member);
    if (out.count > 0) {
      calls.push_back({NcclCallKind::kSend, memory.Input(out.first), nullptr, out.count, peer});
    }
    if (in.count > 0) {
      calls.push_back({NcclCallKind::kReceive, nullptr, memory.Output(in.first), in.count, peer});
    }
  }
  return calls;
}

}  // namespace

std::vector<NcclCall> NcclCallsOf(const GroupOperation& operation, const OperationPlan& plan,
                                  int index, int64_t element_bytes) {
  const OperationMemory memory{operation, element_bytes};
  std::vector<NcclCall> calls;
  switch (operation.kind) {
    case GroupOperationKind::kAllReduce:
      calls = {
          {NcclCallKind::kAllReduce, memory.Input(0), memory.Output(0), operation.input.count}};
      break;
    case GroupOperationKind::kReduceScatter:
      calls = ReduceScatterCalls(memory, plan, index);
      break;
    case GroupOperationKind::kAllGather:
      calls = AllGatherCalls(memory, plan, index);
      break;
    case GroupOperationKind::kBroadcast:
      calls = {{NcclCallKind::kBroadcast, operation.peer == index ? memory.Input(0) : nullptr,
                memory.Output(0), operation.input.count, operation.peer}};
      break;
    case GroupOperationKind::kReduce:
      calls = {{NcclCallKind::kReduce, memory.Input(0),
                operation.peer == index ? memory.Output(0) : nullptr, operation.input.count,
                operation.peer}};
      break;
    case GroupOperationKind::kAllToAll:
    case GroupOperationKind::kShift:
      return CopyCalls(memory, plan);
    case GroupOperationKind::kBarrier:
      break;
  }
  std::erase_if(calls, [](const NcclCall& call) { return call.count == 0; });
  return calls;
}

int64_t ElementsSent(const GroupOperation& operation, const OperationPlan& plan, int index) {
  if (operation.kind == GroupOperationKind::kAllReduce) {
    const int size = static_cast<int>(plan.sum_to.size());
    return DivideRing(operation.input.count, size).ElementsSentInRingBy(index);
  }
  int64_t count = 0;
  for (size_t member = 0; member < plan.sum_to.size(); ++member) {
    if (static_cast<int>(member) == index) continue;
    count += plan.sum_to[member].count + plan.copy_to[member].count;
  }
  return count;
}

}  // namespace troupe

// Which calls of NCCL one operation of a group is, at one member. Pure: the same at every machine,
// with NCCL or without.
//
//   all-reduce, broadcast, reduce      the call of that name
//   reduce-scatter, all-gather         the call of that name where counts are equal; else a reduce
//                                      to, or a broadcast from, each member that has a part. Runs
//                                      (GroupOperation::parts) are always reduces: where they lie,
//                                      each member decides by itself
//   all-to-all, shift                  a send and a receive for each two members that exchange any
//   barrier                            none: the members meet over the bootstrap group
//   (nccl_group.h)
//
// Several calls of one operation go between ncclGroupStart and ncclGroupEnd.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/collective/group.h"
#include "runtime/collective/operation_plan.h"

namespace troupe {

enum class NcclCallKind : uint8_t {
  kAllReduce,
  kReduceScatter,  // count: of each part, as in all-gather
  kAllGather,
  kBroadcast,
  kReduce,
  kSend,
  kReceive,
};

struct NcclCall {
  NcclCallKind kind = NcclCallKind::kAllReduce;
  const void* send = nullptr;  // device memory; null where the call reads none here
  void* receive = nullptr;     // likewise, where it writes none here
  int64_t count = 0;           // elements
  int peer = 0;                // root, destination or source: the member's index
  bool operator==(const NcclCall&) const = default;
};

// Empty where nothing moves. `plan` is that of the operation at member `index` (PlanOperation).
std::vector<NcclCall> NcclCallsOf(const GroupOperation& operation, const OperationPlan& plan,
                                  int index, int64_t element_bytes);

// Elements that the operation takes to other members. NCCL does not say what it sends, so an
// all-reduce is counted as a ring's, of any size, and all else as a direct exchange's.
int64_t ElementsSent(const GroupOperation& operation, const OperationPlan& plan, int index);

}  // namespace troupe

// What the members of an NCCL group tell each other over their bootstrap group, and what must
// agree: NCCL itself would wait for ever, or leave wrong numbers. Pure.
//
//   once             NcclMember: versions are equal, and members that share a GPU may do so
//   each operation   BegunOperation, one for each two members: the same operation (G1), and the
//                    elements that one sends are those that the other expects, by the same calls
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "runtime/base/result.h"
#include "runtime/collective/group.h"
#include "runtime/collective/operation_plan.h"

namespace troupe {

// As NCCL writes its versions since 2.9: major * 10000 + minor * 100 + patch.
using NcclVersion = int32_t;
std::string NcclVersionText(NcclVersion version);  // "2.30.3"

// The first that lets two ranks use one GPU, where NCCL_MULTI_RANK_GPU_ENABLE=1 is set.
inline constexpr NcclVersion kSharedGpuVersion = 23003;

// Fixed size: it travels as bytes between workers of one build.
struct NcclMember {
  NcclVersion version = 0;
  int32_t may_share_gpu = 0;  // 1: NCCL_MULTI_RANK_GPU_ENABLE is 1 there
  char host[48] = {};         // of this boot of its host
  char gpu[24] = {};          // PCI bus id, "0000:41:00.0"
};

// An error that names the first two members that cannot be in one communicator, and why.
Status CheckNcclMembers(std::span<const NcclMember> members, const GroupSpec& spec);

// "group dp: rank 3: …", for an error that all members will read.
Error AtMember(const GroupSpec& spec, Error error);

struct BegunOperation {
  int64_t kind = 0;
  int64_t dtype = 0;
  int64_t peer = 0;
  int64_t total = 0;    // OperationSignature's
  int64_t sends = 0;    // elements from who says this to the member that reads it
  int64_t expects = 0;  // and from that member
  int64_t by_runs = 0;  // 1: a reduce-scatter of runs (parts), which are other calls than counts'
};

// What member `index` says to `member` of an operation that it begins.
BegunOperation BegunFor(int member, int index, const GroupOperation& operation,
                        const OperationPlan& plan);
// What another member said, of whatever bytes.
OperationSignature SignatureSaid(const BegunOperation& begun);

// Where what `mine` and `theirs` expect of each other differs: "rank 0 sends 3 elements, and rank 1
// expects 4"; or how they give the parts.
std::optional<std::string> CountDifference(const BegunOperation& mine, Rank self,
                                           const BegunOperation& theirs, Rank other);

}  // namespace troupe

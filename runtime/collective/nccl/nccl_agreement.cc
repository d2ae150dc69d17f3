#include "runtime/collective/nccl/nccl_agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe {
namespace {

template <size_t N>
std::string_view TextIn(const char (&field)[N]) {
  return {field, strnlen(field, N)};
}

Status CheckSharedGpu(const NcclMember& one, const NcclMember& other, Rank first, Rank second) {
  if (TextIn(one.host) != TextIn(other.host) || TextIn(one.gpu) != TextIn(other.gpu)) return {};
  if (one.version < kSharedGpuVersion) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "ranks {} and {} share GPU {}, for which NCCL {} or later is needed, and this "
                     "is {}; use a GPU for each rank or a newer NCCL",
                     first, second, TextIn(one.gpu), NcclVersionText(kSharedGpuVersion),
                     NcclVersionText(one.version));
  }
  if (one.may_share_gpu == 0 || other.may_share_gpu == 0) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "ranks {} and {} share GPU {}, which NCCL does only where "
                     "NCCL_MULTI_RANK_GPU_ENABLE=1 is set",
                     first, second, TextIn(one.gpu));
  }
  return {};
}

}  // namespace

std::string NcclVersionText(NcclVersion version) {
  const bool is_old = version < 10000;  // before 2.9: 2708
  const NcclVersion major = is_old ? 1000 : 10000;
  return fmt::format("{}.{}.{}", version / major, version % major / 100, version % 100);
}

Status CheckNcclMembers(std::span<const NcclMember> members, const GroupSpec& spec) {
  for (size_t other = 0; other < members.size(); ++other) {
    if (members[other].version != members[0].version) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "group {}: rank {} has NCCL {} and rank {} has {}; all members need one "
                       "version",
                       spec.name, spec.ranks[0], NcclVersionText(members[0].version),
                       spec.ranks[other], NcclVersionText(members[other].version));
    }
    for (size_t one = 0; one < other; ++one) {
      const Status shared =
          CheckSharedGpu(members[one], members[other], spec.ranks[one], spec.ranks[other]);
      if (!shared.ok()) return Context("group " + spec.name, shared.error());
    }
  }
  return {};
}

Error AtMember(const GroupSpec& spec, Error error) {
  return Context(fmt::format("group {}: rank {}", spec.name, spec.self), std::move(error));
}

BegunOperation BegunFor(int member, int index, const GroupOperation& operation,
                        const OperationPlan& plan) {
  const OperationSignature signature = SignatureOf(operation);
  const auto to = static_cast<size_t>(member);
  BegunOperation begun{.kind = static_cast<int64_t>(signature.kind),
                       .dtype = signature.dtype,
                       .peer = signature.peer,
                       .total = signature.total,
                       .by_runs = operation.parts.empty() ? 0 : 1};
  if (member == index) return begun;
  begun.sends = plan.sum_to[to].count + plan.copy_to[to].count;
  begun.expects = plan.summed.count + plan.copy_from[to].count;
  return begun;
}

OperationSignature SignatureSaid(const BegunOperation& begun) {
  return {.kind = static_cast<GroupOperationKind>(begun.kind),
          .dtype = static_cast<uint8_t>(begun.dtype),
          .peer = static_cast<int32_t>(begun.peer),
          .total = begun.total};
}

std::optional<std::string> CountDifference(const BegunOperation& mine, Rank self,
                                           const BegunOperation& theirs, Rank other) {
  if (mine.sends != theirs.expects) {
    return fmt::format("rank {} sends {} elements, and rank {} expects {}", self, mine.sends, other,
                       theirs.expects);
  }
  if (theirs.sends != mine.expects) {
    return fmt::format("rank {} sends {} elements, and rank {} expects {}", other, theirs.sends,
                       self, mine.expects);
  }
  if (mine.by_runs != theirs.by_runs) {
    const bool is_mine = mine.by_runs != 0;
    return fmt::format("rank {} gives runs, and rank {} counts", is_mine ? self : other,
                       is_mine ? other : self);
  }
  return std::nullopt;
}

}  // namespace troupe

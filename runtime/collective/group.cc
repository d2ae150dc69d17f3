#include "runtime/collective/group.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "runtime/collective/operation_plan.h"

namespace troupe {

std::string_view GroupOperationName(GroupOperationKind kind) {
  switch (kind) {
    case GroupOperationKind::kAllReduce:
      return "all-reduce";
    case GroupOperationKind::kReduceScatter:
      return "reduce-scatter";
    case GroupOperationKind::kAllGather:
      return "all-gather";
    case GroupOperationKind::kAllToAll:
      return "all-to-all";
    case GroupOperationKind::kBroadcast:
      return "broadcast";
    case GroupOperationKind::kReduce:
      return "reduce";
    case GroupOperationKind::kShift:
      return "shift";
    case GroupOperationKind::kBarrier:
      return "barrier";
  }
  return "?";
}

OperationSignature SignatureOf(const GroupOperation& operation) {
  OperationSignature signature{
      .kind = operation.kind, .dtype = operation.dtype(), .peer = operation.peer};
  switch (operation.kind) {
    case GroupOperationKind::kAllReduce:
    case GroupOperationKind::kReduceScatter:
    case GroupOperationKind::kBroadcast:
    case GroupOperationKind::kReduce:
      signature.total = operation.input.count;
      break;
    case GroupOperationKind::kAllGather:
      signature.total = operation.output.count;
      break;
    case GroupOperationKind::kAllToAll:
    case GroupOperationKind::kShift:
    case GroupOperationKind::kBarrier:
      break;
  }
  return signature;
}

Group::Group(GroupSpec spec, std::span<const ElementType> elements)
    : spec_(std::move(spec)), elements_(elements) {
  std::vector<Rank> ascending = spec_.ranks;
  std::ranges::sort(ascending);
  CHECK(std::ranges::adjacent_find(ascending) == ascending.end(), "group {}: a rank is in it twice",
        spec_.name);
  CHECK(spec_.hosts.empty() || spec_.hosts.size() == spec_.ranks.size(),
        "group {}: {} hosts for {} members", spec_.name, spec_.hosts.size(), spec_.ranks.size());
  const auto self = std::ranges::find(spec_.ranks, spec_.self);
  CHECK(self != spec_.ranks.end(), "group {}: rank {} is no member", spec_.name, spec_.self);
  index_ = static_cast<int>(self - spec_.ranks.begin());
}

const ElementType& Group::ElementOf(uint8_t dtype) const {
  const auto found = std::ranges::find(elements_, dtype, &ElementType::dtype);
  CHECK(found != elements_.end(), "group {}: dtype {} is none of its element types", spec_.name,
        dtype);
  return *found;
}

int64_t Group::ElementBytes(const GroupOperation& operation) const {
  if (operation.kind == GroupOperationKind::kBarrier) return 1;
  return ElementOf(operation.dtype()).num_bytes;
}

std::string Group::Text(const OperationSignature& signature) const {
  std::string text(GroupOperationName(signature.kind));
  if (signature.kind == GroupOperationKind::kBarrier) return text;
  const auto type = std::ranges::find(elements_, signature.dtype, &ElementType::dtype);
  text += " of ";
  if (signature.total > 0) text += fmt::format("{} ", signature.total);
  text +=
      type != elements_.end() ? std::string(type->name) : fmt::format("dtype {}", signature.dtype);
  const auto root = static_cast<size_t>(signature.peer);
  switch (signature.kind) {
    case GroupOperationKind::kBroadcast:
    case GroupOperationKind::kReduce:
      if (root < spec_.ranks.size()) text += fmt::format(" with root rank {}", spec_.ranks[root]);
      return text;
    case GroupOperationKind::kShift:
      return fmt::format("{} by {}", text, signature.peer);
    default:
      return text;
  }
}

std::string Group::RecordText(uint64_t sequence, const OperationSignature& signature,
                              const GroupPurpose& purpose) const {
  if (!purpose.stands_for.empty()) return std::string(purpose.stands_for);
  const std::string_view name = GroupOperationName(signature.kind);
  return fmt::format("{}{}group {}: {} {}{}", purpose.activity,
                     purpose.activity.empty() ? "" : ", ", spec_.name, name, sequence,
                     Text(signature).substr(name.size()));
}

Error Group::Difference(uint64_t sequence, const OperationSignature& mine, int from,
                        const OperationSignature& theirs) const {
  const bool mine_first = index() < from;
  const Rank other = spec_.ranks[static_cast<size_t>(from)];
  return MakeError(
      ErrorCode::kFailed,
      "group {}: operation {} is {} at rank {} and {} at rank {}; all members must begin the same "
      "operations in the same order",
      spec_.name, sequence, Text(mine_first ? mine : theirs), mine_first ? spec_.self : other,
      Text(mine_first ? theirs : mine), mine_first ? other : spec_.self);
}

void Group::Break(Error error) {
  CHECK(false, "group {} cannot be broken from outside: {}", spec_.name, error.message);
}

namespace {

bool PartsFit(std::span<const ElementRun> parts, size_t self, int64_t input, int64_t output) {
  const ElementRun own = parts[self];
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto [first, count] = parts[i];
    if (first < 0 || count < 0 || count > input || first > input - count) return false;
    const bool apart = first + count <= own.first || own.first + own.count <= first;
    if (i != self && count > 0 && own.count > 0 && !apart) return false;
  }
  return own.count == output;
}

}  // namespace

// What is wrong here is wrong in this process: a caller's mistake.
void Group::Check(const GroupOperation& operation) const {
  const auto members = static_cast<size_t>(size());
  const auto self = static_cast<size_t>(index_);
  const int64_t in = operation.input.count;
  const int64_t out = operation.output.count;
  const auto& sends = operation.send_counts;
  const auto& receives = operation.receive_counts;
  bool fits = in >= 0 && out >= 0;
  fits &= out == 0 || operation.input.dtype == operation.output.dtype;
  switch (operation.kind) {
    case GroupOperationKind::kReduceScatter:
      if (!operation.parts.empty()) {
        fits &= operation.parts.size() == members && PartsFit(operation.parts, self, in, out);
        break;
      }
      fits &= sends.empty() ? in == out * size() : sends.size() == members && sends[self] == out;
      break;
    case GroupOperationKind::kAllGather:
      fits &= receives.empty() ? out == in * size()
                               : receives.size() == members && receives[self] == in;
      break;
    case GroupOperationKind::kAllToAll:
      fits &=
          sends.size() == members && receives.size() == members && sends[self] == receives[self];
      break;
    case GroupOperationKind::kBroadcast:
    case GroupOperationKind::kReduce:
      fits &= operation.peer >= 0 && operation.peer < size();
      fits &= operation.peer != index_ || in == out;
      break;
    case GroupOperationKind::kAllReduce:
    case GroupOperationKind::kShift:
    case GroupOperationKind::kBarrier:
      break;
  }
  CHECK(fits, "group {}: {} does not fit its {} elements of input and {} of output", spec_.name,
        Text(SignatureOf(operation)), in, out);
}

Task<Status> Group::Start(GroupOperation operation) {
  Check(operation);
  return size() == 1 ? Alone(operation) : Run(operation);
}

Task<Status> Group::Alone(GroupOperation operation) {
  if (operation.kind == GroupOperationKind::kBarrier) co_return Status{};
  const int64_t num_bytes = ElementOf(operation.dtype()).num_bytes;
  OperationPlan plan = PlanOperation(operation, 0, 1, num_bytes);
  if (plan.summed.count > 0) {  // a sum of one
    plan.copy_to[0] = plan.summed;
    plan.copy_from[0] = {plan.sum_first, plan.summed.count};
  }
  CopyOwnPart(operation, plan, 0, num_bytes);
  co_return Status{};
}

Task<Status> Group::AllReduce(Elements data, GroupPurpose purpose) {
  return Start(
      {.kind = GroupOperationKind::kAllReduce, .input = data, .output = data, .purpose = purpose});
}

Task<Status> Group::ReduceScatter(ConstElements input, Elements output,
                                  std::span<const int64_t> counts, GroupPurpose purpose) {
  return Start({.kind = GroupOperationKind::kReduceScatter,
                .input = input,
                .output = output,
                .send_counts = counts,
                .purpose = purpose});
}

Task<Status> Group::ReduceScatter(ConstElements input, Elements output,
                                  std::span<const ElementRun> parts, GroupPurpose purpose) {
  CHECK(parts.size() == spec_.ranks.size(), "group {}: {} parts for {} members", spec_.name,
        parts.size(), size());
  return Start({.kind = GroupOperationKind::kReduceScatter,
                .input = input,
                .output = output,
                .parts = parts,
                .purpose = purpose});
}

Task<Status> Group::AllGather(ConstElements input, Elements output, std::span<const int64_t> counts,
                              GroupPurpose purpose) {
  return Start({.kind = GroupOperationKind::kAllGather,
                .input = input,
                .output = output,
                .receive_counts = counts,
                .purpose = purpose});
}

Task<Status> Group::AllToAll(ConstElements input, std::span<const int64_t> send_counts,
                             Elements output, std::span<const int64_t> receive_counts,
                             GroupPurpose purpose) {
  return Start({.kind = GroupOperationKind::kAllToAll,
                .input = input,
                .output = output,
                .send_counts = send_counts,
                .receive_counts = receive_counts,
                .purpose = purpose});
}

Task<Status> Group::Broadcast(Elements data, int root, GroupPurpose purpose) {
  return Start({.kind = GroupOperationKind::kBroadcast,
                .input = data,
                .output = data,
                .peer = root,
                .purpose = purpose});
}

Task<Status> Group::Reduce(ConstElements input, Elements output, int root, GroupPurpose purpose) {
  return Start({.kind = GroupOperationKind::kReduce,
                .input = input,
                .output = output,
                .peer = root,
                .purpose = purpose});
}

Task<Status> Group::Shift(ConstElements input, Elements output, int distance,
                          GroupPurpose purpose) {
  return Start({.kind = GroupOperationKind::kShift,
                .input = input,
                .output = output,
                .peer = distance,
                .purpose = purpose});
}

Task<Status> Group::Barrier(GroupPurpose purpose) {
  return Start({.kind = GroupOperationKind::kBarrier, .purpose = purpose});
}

}  // namespace troupe

#include "actors/collective_measurement.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/ordered_sum.h"

namespace troupe {
namespace {

using enum GroupOperationKind;

constexpr GroupOperationKind kMeasurable[] = {kAllReduce, kReduceScatter, kAllGather,
                                              kAllToAll,  kBroadcast,     kReduce};
constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16,
                             DType::kFloat64, DType::kInt32,    DType::kInt64};

// What stands at `index` of a member's input (M1). Without a period that exchanged blocks could
// hide in: the low bits of a product have one, so its high bits are mixed in and multiplied up
// again.
int TermOf(int member, int64_t index) {
  const auto position = static_cast<uint64_t>(index);
  auto mixed = static_cast<uint32_t>(position) * 2'654'435'761u +
               static_cast<uint32_t>(position >> 32) * 3'266'489'917u +
               static_cast<uint32_t>(member) * 2'246'822'519u;
  mixed ^= mixed >> 15;
  mixed *= 0x2c1b3c6du;
  return static_cast<int>(mixed >> 30);
}

// visit(T{}) for the C++ type of the dtype.
template <typename Visit>
auto WithElement(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::kFloat32:
      return visit(float{});
    case DType::kBFloat16:
      return visit(bfloat16{});
    case DType::kFloat16:
      return visit(float16{});
    case DType::kFloat64:
      return visit(double{});
    case DType::kInt32:
      return visit(int32_t{});
    case DType::kInt64:
      break;
  }
  return visit(int64_t{});
}

// data[i] = value_at(i)
template <typename ValueAt>
void Write(Elements elements, ValueAt value_at) {
  WithElement(static_cast<DType>(elements.dtype), [&](auto type) {
    using T = decltype(type);
    auto* data = static_cast<T*>(elements.data);
    for (int64_t i = 0; i < elements.count; ++i) data[i] = T(static_cast<float>(value_at(i)));
  });
}

bool RunsInPlace(GroupOperationKind kind) { return kind != kAllToAll; }
bool RunsOutOfPlace(GroupOperationKind kind) { return kind != kAllReduce && kind != kBroadcast; }
bool InParts(GroupOperationKind kind) {
  return kind == kReduceScatter || kind == kAllGather || kind == kAllToAll;
}

}  // namespace

std::optional<GroupOperationKind> MeasurableOperation(std::string_view name) {
  const auto found = std::ranges::find(kMeasurable, name, GroupOperationName);
  return found == std::end(kMeasurable) ? std::nullopt : std::optional(*found);
}

std::optional<DType> MeasurableDType(std::string_view name) {
  const auto found =
      std::ranges::find_if(kDTypes, [name](DType dtype) { return name == DTypeName(dtype); });
  return found == std::end(kDTypes) ? std::nullopt : std::optional(*found);
}

Result<std::unique_ptr<CollectiveMeasurement>> CollectiveMeasurement::Make(
    Group& group, const MeasuredOperation& what, MemoryLedger& ledger, Clock& clock) {
  const bool in_form = what.in_place ? RunsInPlace(what.kind) : RunsOutOfPlace(what.kind);
  const bool divides = what.count > 0 && (!InParts(what.kind) || what.count % group.size() == 0);
  if (!in_form || !divides || group.size() > kMeasuredMembersMax || what.warmup < 0 ||
      what.iterations < 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{} of {} elements, {} place, {} times among {} members is not measured",
                     GroupOperationName(what.kind), what.count, what.in_place ? "in" : "out of",
                     what.iterations, group.size());
  }
  try {
    auto made = std::unique_ptr<CollectiveMeasurement>(
        new CollectiveMeasurement(group, what, ledger, clock));
    for (const Buffer* buffer : {&made->memory_, &made->separate_input_}) {
      if (what.private_buffers || buffer->empty() || ledger.SharedAt(buffer->bytes())) continue;
      return MakeError(ErrorCode::kResourceExhausted,
                       "rank {}: the system shares no buffer of {} bytes; give a smaller "
                       "--max-bytes, or --buffers private",
                       group.spec().self, buffer->num_bytes());
    }
    return made;
  } catch (const BufferTooLarge& error) {
    return MakeError(
        ErrorCode::kResourceExhausted,
        "rank {}: there is no room for a buffer of {} bytes; give a smaller --max-bytes",
        group.spec().self, error.num_bytes());
  }
}

CollectiveMeasurement::CollectiveMeasurement(Group& group, const MeasuredOperation& what,
                                             MemoryLedger& ledger, Clock& clock)
    : group_(group), what_(what), clock_(clock) {
  const int64_t width = DTypeBytes(what.dtype);
  const auto dtype = static_cast<uint8_t>(what.dtype);
  const auto elements_of = [&](Buffer& buffer, int64_t count) {
    const int64_t num_bytes = count * width;
    buffer = what.private_buffers ? Buffer(ledger, MemoryTag::kGrads, num_bytes)
                                  : Buffer::Shared(ledger, MemoryTag::kGrads, num_bytes);
    return Elements{dtype, buffer.data(), count};
  };
  const int64_t input_count = what.kind == kAllGather ? part() : what.count;
  const int64_t output_count = what.kind == kReduceScatter ? part() : what.count;
  part_counts_.assign(static_cast<size_t>(group.size()), part());
  if (!what.in_place) {
    input_ = elements_of(separate_input_, input_count);
    output_ = elements_of(memory_, output_count);
    return;
  }
  const Elements whole = elements_of(memory_, what.count);
  const Elements own{dtype, memory_.data() + group.index() * part() * width, part()};
  input_ = what.kind == kAllGather ? own : whole;
  output_ = what.kind == kReduceScatter ? own : whole;
}

Task<Status> CollectiveMeasurement::Operate() {
  constexpr int kRoot = 0;
  switch (what_.kind) {
    case kReduceScatter:
      return group_.ReduceScatter(input_, output_);
    case kAllGather:
      return group_.AllGather(input_, output_);
    case kAllToAll:
      return group_.AllToAll(input_, part_counts_, output_, part_counts_);
    case kBroadcast:
      return group_.Broadcast(output_, kRoot);
    case kReduce:
      return group_.Reduce(input_, output_, kRoot);
    default:
      return group_.AllReduce(output_);
  }
}

Task<Status> CollectiveMeasurement::Run() {
  for (int i = 0; i < what_.warmup; ++i) CO_RETURN_IF_ERROR(co_await Operate());
  CO_RETURN_IF_ERROR(co_await group_.Barrier());
  const int64_t start_ns = clock_.NowNs();
  for (int i = 0; i < what_.iterations; ++i) CO_RETURN_IF_ERROR(co_await Operate());
  CO_RETURN_IF_ERROR(co_await group_.Barrier());
  mean_us_ = static_cast<double>(clock_.NowNs() - start_ns) / 1000 / what_.iterations;
  Fill();
  CO_RETURN_IF_ERROR(co_await Operate());
  num_wrong_ = CountWrong();
  co_return Status{};
}

// The input's elements; all others are what no result has.
void CollectiveMeasurement::Fill() {
  const int self = group_.index();
  Write(output_, [](int64_t) { return -1; });
  if (what_.kind == kBroadcast && self != 0) return;
  const int64_t first = what_.kind == kAllGather ? self * part() : 0;
  const Elements input{input_.dtype, const_cast<void*>(input_.data), input_.count};  // our memory
  Write(input, [&](int64_t i) { return TermOf(self, first + i); });
}

int CollectiveMeasurement::ExpectedAt(int64_t index) const {
  const int self = group_.index();
  switch (what_.kind) {
    case kBroadcast:
      return TermOf(0, index);
    case kAllGather:
      return TermOf(static_cast<int>(index / part()), index);
    case kAllToAll:
      return TermOf(static_cast<int>(index / part()), self * part() + index % part());
    default:
      break;
  }
  const int64_t first = what_.kind == kReduceScatter ? self * part() : 0;
  int sum = 0;
  for (int member = 0; member < group_.size(); ++member) sum += TermOf(member, first + index);
  return sum;
}

int64_t CollectiveMeasurement::CountWrong() const {
  if (what_.kind == kReduce && group_.index() != 0) return 0;
  return WithElement(what_.dtype, [&](auto type) {
    const auto* data = static_cast<const decltype(type)*>(output_.data);
    int64_t num_wrong = 0;
    for (int64_t i = 0; i < output_.count; ++i) {
      num_wrong += static_cast<float>(data[i]) != static_cast<float>(ExpectedAt(i));
    }
    return num_wrong;
  });
}

}  // namespace troupe

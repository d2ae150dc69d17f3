#include "actors/model/gradient_sum.h"

#include <cstring>

#include "kernels/elementwise.h"
#include "runtime/base/check.h"

namespace troupe {

namespace {

Buffer Zeroed(const GradientSum::Options& options, MemoryLedger& ledger) {
  const int64_t num_bytes = options.num_elements * DTypeBytes(options.dtype);
  if (options.lent) return Buffer::Shared(ledger, MemoryTag::kGrads, num_bytes);
  return {ledger, MemoryTag::kGrads, num_bytes};
}

}  // namespace

GradientSum::GradientSum(const Options& options, MemoryLedger& ledger)
    : options_(options),
      group_size_(options.num_microbatches / options.groups),
      total_(Zeroed(options, ledger)),
      group_(ledger, MemoryTag::kGrads,
             options.groups > 1 ? options.num_elements * DTypeBytes(options.dtype) : 0) {
  CHECK(options.groups >= 1 && options.num_microbatches % options.groups == 0);
}

int GradientSum::AddAccumulator(int64_t first_element, int64_t num_elements) {
  CHECK(first_element >= 0 && first_element + num_elements <= options_.num_elements);
  accumulators_.push_back({first_element, num_elements, 0});
  return static_cast<int>(accumulators_.size()) - 1;
}

TensorView GradientSum::In(const Buffer& buffer, const Accumulator& accumulator) const {
  auto* bytes = const_cast<std::byte*>(buffer.data()) +
                accumulator.first_element * DTypeBytes(options_.dtype);
  return {bytes, options_.dtype, {accumulator.num_elements}};
}

TensorView GradientSum::Target(const Exec& exec, int accumulator, int32_t microbatch) {
  CHECK(!finished_, "a gradient of microbatch {} came after the step's sum", microbatch);
  Accumulator& to = accumulators_[static_cast<size_t>(accumulator)];
  if (options_.groups == 1) return In(total_, to);
  const int32_t group = microbatch / group_size_;
  CHECK(group >= to.group, "microbatch {} after one of group {}", microbatch, to.group);  // G1
  if (group > to.group) {
    CloseGroup(exec, to);
    to.group = group;
  }
  return In(group_, to);
}

void GradientSum::CloseGroup(const Exec& exec, Accumulator& accumulator) {
  const TensorView group = In(group_, accumulator);
  Accumulate(exec, In(total_, accumulator), group);
  FillZero(exec, group);
}

void GradientSum::Finish(const Exec& exec) {
  if (finished_) return;
  finished_ = true;
  if (options_.groups == 1) return;
  for (Accumulator& accumulator : accumulators_) CloseGroup(exec, accumulator);
}

void GradientSum::Reset(const Exec&) {
  finished_ = false;
  std::memset(total_.data(), 0, static_cast<size_t>(total_.num_bytes()));
  if (!group_.empty()) std::memset(group_.data(), 0, static_cast<size_t>(group_.num_bytes()));
  for (Accumulator& accumulator : accumulators_) accumulator.group = 0;
}

TensorView GradientSum::Sum(int64_t first_element, int64_t num_elements) const {
  return In(total_, {first_element, num_elements, 0});
}

}  // namespace troupe

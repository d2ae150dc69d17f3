#include "actors/model/unit_weights.h"

#include <utility>

#include "kernels/elementwise.h"
#include "runtime/base/check.h"

namespace troupe {

UnitWeights::UnitWeights(Options options, StageParameters& masters, MemoryLedger& ledger)
    : options_(std::move(options)), masters_(masters), ledger_(ledger) {}

int UnitWeights::AddProduct(const MatmulShape& shape, int first_parameter, int num_parameters) {
  CHECK(state_ == WeightsState::kAbsent, "a product joins {} late", options_.name);
  const int64_t layout = 2 * (shape.in << 31 | shape.out);
  products_.push_back({.shape = shape,
                       .first_parameter = first_parameter,
                       .num_parameters = num_parameters,
                       .forward = {.layout = layout + 1},
                       .input_grad = {.layout = layout + 2}});
  return static_cast<int>(products_.size()) - 1;
}

void UnitWeights::Gather() {
  CHECK(state_ == WeightsState::kAbsent, "{} is gathered twice", options_.name);
  state_ = WeightsState::kGathering;
  int64_t num_elements = 0;
  const bool copies = masters_.gathered() || masters_.master() != options_.compute;
  for (const int index : options_.own_parameters) {
    num_elements += masters_.Of(index).spec->num_elements();
  }
  if (copies) {
    const MemoryTag tag = masters_.gathered() ? MemoryTag::kComm : MemoryTag::kParams;
    const int64_t num_bytes = num_elements * DTypeBytes(options_.compute);
    computes_ = options_.gathered != nullptr ? options_.gathered->Take(tag, num_bytes)
                : options_.lent              ? Buffer::Shared(ledger_, tag, num_bytes)
                                             : Buffer::Unfilled(ledger_, tag, num_bytes);
  }
  std::byte* next = computes_.data();
  for (const int index : options_.own_parameters) {
    const StageParameter& p = masters_.Of(index);
    masters_.SetCompute(index, copies ? Shaped(next, options_.compute, *p.spec) : p.whole);
    if (copies) next += p.spec->num_elements() * DTypeBytes(options_.compute);
  }
}

void UnitWeights::Ready(const Exec& exec) {
  if (state_ == WeightsState::kAbsent) Gather();
  for (const int index : options_.own_parameters) {
    const StageParameter& p = masters_.Of(index);
    if (!p.whole.empty() && !computes_.empty()) Cast(exec, p.compute.Flat(), p.whole.Flat());
  }
  state_ = WeightsState::kReady;
  Repack(exec);  // W3
}

void UnitWeights::Repack(const Exec& exec) {
  if (state_ != WeightsState::kReady || options_.gathered != nullptr) return;
  for (Product& product : products_) {
    Pack(exec, product, WeightUse::kForward, product.forward);
    Pack(exec, product, WeightUse::kInputGrad, product.input_grad);
  }
}

void UnitWeights::Pack(const Exec& exec, const Product& product, WeightUse use, Copy& copy) {
  const ConstTensorView weight = Matrix(product.first_parameter, product.num_parameters);
  const int64_t num_bytes = PackedWeightBytes(product.shape, use);
  if (num_bytes == 0 || exec.specification) {
    copy.packed = weight;
    copy.packed.use = use;
    return;
  }
  if (copy.memory.empty()) {
    copy.memory = options_.gathered != nullptr
                      ? options_.gathered->Take(MemoryTag::kWorkspace, num_bytes, copy.layout)
                      : Buffer(ledger_, MemoryTag::kWorkspace, num_bytes);
  }
  copy.packed = PackWeight(exec, product.shape, use, weight, copy.memory.bytes());
}

void UnitWeights::Drop() {
  for (const int index : options_.own_parameters) {
    CHECK(masters_.gathered() || !masters_.Of(index).whole.empty(),
          "{} is made of shards of other ranks", options_.name);
  }
  for (Product& product : products_) {
    for (Copy* copy : {&product.forward, &product.input_grad}) {
      copy->packed = {};
      if (options_.gathered != nullptr) {
        options_.gathered->Return(std::move(copy->memory), copy->layout);
      }
      copy->memory = {};
    }
  }
  for (const int index : options_.own_parameters) masters_.SetCompute(index, {});
  if (options_.gathered != nullptr) options_.gathered->Return(std::move(computes_));
  computes_ = {};
  state_ = WeightsState::kAbsent;
}

void UnitWeights::CheckReady() const {
  CHECK(state_ == WeightsState::kReady, "a pass over {}, whose weights are {}", options_.name,
        state_ == WeightsState::kAbsent ? "absent" : "still gathering");
}

ConstTensorView UnitWeights::Compute(int place, int num_parameters) const {
  CheckReady();
  return Matrix(place, num_parameters);
}

const PackedWeight& UnitWeights::Packed(const Exec& exec, int product, WeightUse use) {
  CheckReady();
  Product& of = products_[static_cast<size_t>(product)];
  Copy& copy = use == WeightUse::kForward ? of.forward : of.input_grad;
  if (copy.packed.weight.empty()) Pack(exec, of, use, copy);
  return copy.packed;
}

ConstTensorView UnitWeights::Matrix(int place, int num_parameters) const {
  const auto of = [&](int at) -> const StageParameter& {
    return masters_.Of(options_.parameters[static_cast<size_t>(at)]);
  };
  const TensorView first = of(place).compute;
  CHECK(!first.empty(), "{} reads {}, which another unit keeps and which is absent", options_.name,
        of(place).spec->name);
  if (num_parameters == 1) return first;
  const std::byte* next = static_cast<const std::byte*>(first.data());
  int64_t rows = 0;
  for (int i = place; i < place + num_parameters; ++i) {
    const TensorView view = of(i).compute;
    CHECK(view.data() == next && view.row_elements() == first.row_elements(),
          "{} is no matrix with its neighbours", of(i).spec->name);
    next += view.num_bytes();
    rows += view.rows();
  }
  return {first.data(), first.dtype(), {rows, first.row_elements()}};
}

}  // namespace troupe

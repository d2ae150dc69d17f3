#include "actors/model/stage_parameters.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

TensorView Shaped(void* data, DType dtype, const ParameterSpec& spec) {
  if (spec.one_dimensional) return {data, dtype, {spec.rows}};
  return {data, dtype, {spec.rows, spec.columns}};
}

std::byte* At(const Buffer& buffer, int64_t element, DType dtype) {
  return const_cast<std::byte*>(buffer.data()) + element * DTypeBytes(dtype);
}

template <typename Real>
void FillInitial(const TensorView& weight, const ParameterInitializer& value) {
  Real* elements = weight.as<Real>();
  for (int64_t i = 0; i < weight.num_elements(); ++i) elements[i] = static_cast<Real>(value(i));
}

}  // namespace

StageParameters::StageParameters(const Options& options, const ParameterTable& table,
                                 const StageLayout& layout, MemoryLedger& ledger)
    : options_(options) {
  const std::vector<int> owned = OwnedParametersOf(table, layout);
  for (const int index : ParametersOf(table, layout)) {
    by_index_[index] = parameters_.size();
    parameters_.push_back({.index = index,
                           .spec = &table[index],
                           .owned = options.owner && std::ranges::binary_search(owned, index),
                           .first_element = num_elements_});
    num_elements_ += table[index].num_elements();
  }
  const int64_t master_bytes = num_elements_ * DTypeBytes(options.master);
  masters_ = Buffer(ledger, MemoryTag::kParams, master_bytes);
  if (options.compute != options.master) {
    computes_ = Buffer(ledger, MemoryTag::kParams, num_elements_ * DTypeBytes(options.compute));
  }
  moments_ = Buffer(ledger, MemoryTag::kOptimizer, 2 * master_bytes);
  for (StageParameter& p : parameters_) {
    p.weight = In(masters_, options.master, p);
    p.m = In(moments_, options.master, p);
    p.v = Shaped(At(moments_, num_elements_ + p.first_element, options.master), options.master,
                 *p.spec);
  }
}

TensorView StageParameters::In(const Buffer& buffer, DType dtype,
                               const StageParameter& parameter) const {
  return Shaped(At(buffer, parameter.first_element, dtype), dtype, *parameter.spec);
}

const StageParameter& StageParameters::Of(int table_index) const {
  const auto found = by_index_.find(table_index);
  CHECK(found != by_index_.end(), "parameter {} is of another stage", table_index);
  return parameters_[found->second];
}

void StageParameters::Initialize(uint64_t seed) {
  for (const StageParameter& p : parameters_) {
    const ParameterInitializer value(seed, *p.spec, options_.initializer_range);
    if (options_.master == DType::kFloat64) {
      FillInitial<double>(p.weight, value);
    } else {
      FillInitial<float>(p.weight, value);
    }
  }
}

ConstTensorView StageParameters::Compute(int table_index, int num_parameters) const {
  const StageParameter& first = Of(table_index);
  const Buffer& buffer = computes_.empty() ? masters_ : computes_;
  if (num_parameters == 1) return In(buffer, options_.compute, first);
  int64_t rows = 0;
  for (int i = 0; i < num_parameters; ++i) {
    const StageParameter& p = Of(table_index + i);
    CHECK(p.spec->columns == first.spec->columns);
    rows += p.spec->rows;
  }
  return {At(buffer, first.first_element, options_.compute),
          options_.compute,
          {rows, first.spec->columns}};
}

void StageParameters::Update(const Exec& exec, const AdamWOptions& options, const StageParameter& p,
                             ConstTensorView gradient) {
  AdamWOptions of_parameter = options;
  if (!p.spec->decay) of_parameter.weight_decay = 0;
  AdamWArgs args{
      .param = p.weight.Flat(), .m = p.m.Flat(), .v = p.v.Flat(), .grad = gradient, .compute = {}};
  if (!computes_.empty()) args.compute = In(computes_, options_.compute, p).Flat();
  AdamW(exec, of_parameter, args);
}

void StageParameters::RoundMasters(const Exec& exec) {
  if (computes_.empty()) return;
  Cast(exec, TensorView(computes_.data(), options_.compute, {num_elements_}),
       ConstTensorView(masters_.data(), options_.master, {num_elements_}));
}

}  // namespace troupe

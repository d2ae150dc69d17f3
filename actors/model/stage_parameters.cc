#include "actors/model/stage_parameters.h"

#include <algorithm>

#include "kernels/squared_norm.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

static_assert(kShardLeafElements == kNormLeafElements);

template <typename Real>
void FillInitial(const StageParameter& p, const ParameterInitializer& value) {
  Real* elements = p.weight.Flat().as<Real>();
  for (int64_t i = 0; i < p.weight.num_elements(); ++i) {
    elements[i] = static_cast<Real>(value(GlobalElement(*p.spec, p.shard, i)));
  }
}

}  // namespace

TensorView Shaped(void* data, DType dtype, const ParameterSpec& spec) {
  if (spec.one_dimensional) return {data, dtype, {spec.rows}};
  return {data, dtype, {spec.rows, spec.columns}};
}

StageParameters::StageParameters(const Options& options, const ParameterTable& table,
                                 const StageLayout& layout, MemoryLedger& ledger)
    : options_(options) {
  const std::vector<int> owned = OwnedParametersOf(table, layout);
  for (const ParameterShard& shard : ShardsOf(table, ParametersOf(table, layout), options.shards)) {
    const int index = shard.parameter;
    by_index_[index] = parameters_.size();
    parameters_.push_back({.index = index,
                           .spec = &table[index],
                           .owned = options.owner && std::ranges::binary_search(owned, index),
                           .shard = shard,
                           .first_element = num_elements_});
    num_elements_ += shard.num_elements;
  }
  const int64_t master_bytes = num_elements_ * DTypeBytes(options.master);
  masters_ = Buffer(ledger, MemoryTag::kParams, master_bytes);
  moments_ = Buffer(ledger, MemoryTag::kOptimizer, 2 * master_bytes);
  for (StageParameter& p : parameters_) {
    const auto in = [&](Buffer& buffer, int64_t first) -> TensorView {
      std::byte* data = buffer.data() + (first + p.first_element) * DTypeBytes(options.master);
      if (p.shard.is_whole()) return Shaped(data, options.master, *p.spec);
      return {data, options.master, {p.shard.num_elements}};
    };
    p.weight = in(masters_, 0);
    p.m = in(moments_, 0);
    p.v = in(moments_, num_elements_);
  }
}

size_t StageParameters::At(int table_index) const {
  const auto found = by_index_.find(table_index);
  CHECK(found != by_index_.end(), "parameter {} is of another stage", table_index);
  return found->second;
}

const StageParameter& StageParameters::Of(int table_index) const {
  return parameters_[At(table_index)];
}

void StageParameters::SetCompute(int table_index, TensorView compute) {
  parameters_[At(table_index)].compute = compute;
}

void StageParameters::Initialize(uint64_t seed) {
  for (const StageParameter& p : parameters_) {
    const ParameterInitializer value(seed, *p.spec, options_.initializer_range);
    if (options_.master == DType::kFloat64) {
      FillInitial<double>(p, value);
    } else {
      FillInitial<float>(p, value);
    }
  }
}

void StageParameters::Update(const Exec& exec, const AdamWOptions& options, const StageParameter& p,
                             ConstTensorView gradient) {
  AdamWOptions of_parameter = options;
  if (!p.spec->decay) of_parameter.weight_decay = 0;
  AdamWArgs args{
      .param = p.weight.Flat(), .m = p.m.Flat(), .v = p.v.Flat(), .grad = gradient, .compute = {}};
  if (!p.compute.empty() && p.compute.dtype() != options_.master) args.compute = p.compute.Flat();
  AdamW(exec, of_parameter, args);
}

void AddNormNodes(const Exec& exec, const StageParameter& p, ConstTensorView gradient,
                  std::vector<proto::NormNode>& votes) {
  std::vector<double> leaves(static_cast<size_t>(NumNormLeaves(gradient.num_elements())));
  SquaredNormLeaves(exec, leaves, gradient);
  for (const NormNode& node :
       SquaredNormNodes(p.shard.cut_leaves(), p.shard.first_leaf(), leaves)) {
    proto::NormNode& vote = votes.emplace_back();
    vote.set_parameter(p.index);
    vote.set_first_leaf(node.first_leaf);
    vote.set_num_leaves(node.num_leaves);
    vote.set_sum(node.sum);
  }
}

}  // namespace troupe

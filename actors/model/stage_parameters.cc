#include "actors/model/stage_parameters.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "kernels/elementwise.h"
#include "kernels/squared_norm.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

static_assert(kShardLeafElements == kNormLeafElements);

template <typename Real>
void FillInitial(const ParameterInitializer& value, TensorView whole) {
  Real* elements = whole.Flat().as<Real>();
  for (int64_t i = 0; i < whole.num_elements(); ++i) elements[i] = static_cast<Real>(value(i));
}

// Of a whole tensor.
TensorView RunOf(const TensorView& whole, const ParameterShard& shard) {
  auto* data = static_cast<std::byte*>(whole.data());
  return {
      data + shard.first_element * DTypeBytes(whole.dtype()), whole.dtype(), {shard.num_elements}};
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
  for (const ParameterRow& row : ShardRowsOf(table, layout, options.shards)) {
    AddRow(table, row, owned);
  }
  PlaceBuffers(ledger);
}

void StageParameters::AddRow(const ParameterTable& table, const ParameterRow& of,
                             std::span<const int> owned) {
  ShardRow row{.parameters = of.parameters,
               .first_element = num_elements_,
               .counts = OwnerElements(table, of, options_.shards),
               .persists = of.persists};
  const auto own = row.counts.begin() + options_.shards.owner;
  row.own_first = of.persists ? 0 : std::accumulate(row.counts.begin(), own, int64_t{0});
  row.own_count = *own;
  for (const ParameterShard& shard : ShardsOf(table, of, options_.shards)) {
    const int index = shard.parameter;
    CHECK(shard.cut.axis < 0, "{} is cut: no layout does that so far", table[index].name);
    by_index_[index] = parameters_.size();
    parameters_.push_back(
        {.index = index,
         .spec = &table[index],
         .owned = shard.is_first_copy && std::ranges::binary_search(owned, index),
         .exported = options_.exporter && std::ranges::binary_search(owned, index),
         .shard = shard,
         .first_element = num_elements_});
    num_elements_ += table[index].num_elements();
  }
  row.num_elements = num_elements_ - row.first_element;
  row.own_place = owned_elements_;
  owned_elements_ += row.own_count;
  rows_.push_back(std::move(row));
}

void StageParameters::PlaceBuffers(MemoryLedger& ledger) {
  const int64_t width = DTypeBytes(options_.master);
  const bool whole =
      !options_.gathered && (options_.whole_masters || options_.shards.num_owners == 1);
  const int64_t master_bytes = (whole ? num_elements_ : owned_elements_) * width;
  const bool lent = whole && options_.shards.num_owners > 1;  // read in place after an update
  masters_ = lent ? Buffer::Shared(ledger, MemoryTag::kParams, master_bytes)
                  : Buffer(ledger, MemoryTag::kParams, master_bytes);
  moments_ = Buffer(ledger, MemoryTag::kOptimizer, 2 * owned_elements_ * width);
  const bool copies = options_.gathered && options_.compute != options_.master;
  const int64_t copy_width = copies ? DTypeBytes(options_.compute) : 0;
  copies_ = Buffer(ledger, MemoryTag::kParams, owned_elements_ * copy_width);
  int64_t next = 0;  // of the shards in a row
  for (StageParameter& p : parameters_) {
    const auto own = [&](Buffer& buffer, int64_t first) -> TensorView {
      std::byte* data = buffer.data() + (first + next) * width;
      if (p.shard.is_whole()) return Shaped(data, options_.master, *p.spec);
      return {data, options_.master, {p.shard.num_elements}};
    };
    if (whole)
      p.whole = Shaped(masters_.data() + p.first_element * width, options_.master, *p.spec);
    if (p.shard.is_whole() && whole) {
      p.weight = p.whole;
    } else {
      p.weight = whole ? RunOf(p.whole, p.shard) : own(masters_, 0);
    }
    p.m = own(moments_, 0);
    p.v = own(moments_, owned_elements_);
    if (copies) {
      p.copy = {copies_.data() + next * copy_width, options_.compute, {p.shard.num_elements}};
    }
    next += p.shard.num_elements;
  }
  for (const ShardRow& row : rows_) {
    if (row.persists) LetPersist(row);
  }
}

void StageParameters::LetPersist(const ShardRow& row) {
  for (const int index : row.parameters) {
    StageParameter& p = parameters_[At(index)];
    p.whole = p.weight;
    if (!options_.gathered) continue;
    p.compute = p.copy.empty() ? p.whole : Shaped(p.copy.data(), options_.compute, *p.spec);
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
  const Status filled = Fill([&](const StageParameter& p, TensorView whole) {
    const ParameterInitializer value(seed, *p.spec, options_.initializer_range);
    if (options_.master == DType::kFloat64) {
      FillInitial<double>(value, whole);
    } else {
      FillInitial<float>(value, whole);
    }
    return Status{};
  });
  CHECK(filled.ok());
}

Status StageParameters::Fill(
    const std::function<Status(const StageParameter& parameter, TensorView whole)>& fill) {
  std::vector<std::byte> room;
  for (const StageParameter& p : parameters_) {
    if (!p.whole.empty()) {
      RETURN_IF_ERROR(fill(p, p.whole));
      const bool copied = !p.compute.empty() && p.compute.dtype() != options_.master;
      if (copied) Cast({}, p.compute.Flat(), p.whole.Flat());
      continue;
    }
    room.resize(static_cast<size_t>(p.spec->num_elements() * DTypeBytes(options_.master)));
    const TensorView whole = Shaped(room.data(), options_.master, *p.spec);
    RETURN_IF_ERROR(fill(p, whole));
    if (p.shard.num_elements > 0) {
      const TensorView run = RunOf(whole, p.shard);
      std::memcpy(p.weight.data(), run.data(), static_cast<size_t>(run.num_bytes()));
    }
    if (options_.gathered) {
      if (!p.copy.empty()) Cast({}, p.copy, p.weight.Flat());
      continue;
    }
    CHECK(!p.compute.empty(), "{} has no place for its copy", p.spec->name);
    Cast({}, p.compute.Flat(), whole.Flat());
  }
  return {};
}

std::span<std::byte> StageParameters::ComputeRow(const ShardRow& row) const {
  const TensorView first = Of(row.parameters.front()).compute;
  const TensorView last = Of(row.parameters.back()).compute;
  auto* data = static_cast<std::byte*>(first.data());
  const int64_t num_bytes = row.num_elements * DTypeBytes(first.dtype());
  CHECK(static_cast<std::byte*>(last.data()) + last.num_bytes() == data + num_bytes,
        "the copies of {} and its neighbours are no run", Of(row.parameters.front()).spec->name);
  return {data, static_cast<size_t>(num_bytes)};
}

std::span<const std::byte> StageParameters::OwnRun(const ShardRow& row) const {
  CHECK(options_.gathered, "nobody gathers from a stage that has its weights whole");
  const Buffer& runs = copies_.empty() ? masters_ : copies_;
  const DType dtype = copies_.empty() ? options_.master : options_.compute;
  return runs.bytes().subspan(static_cast<size_t>(row.own_place * DTypeBytes(dtype)),
                              static_cast<size_t>(row.own_count * DTypeBytes(dtype)));
}

void StageParameters::Update(const Exec& exec, const AdamWOptions& options, const StageParameter& p,
                             ConstTensorView gradient) {
  if (p.shard.num_elements == 0) return;
  AdamWOptions of_parameter = options;
  if (!p.spec->decay) of_parameter.weight_decay = 0;
  AdamWArgs args{
      .param = p.weight.Flat(), .m = p.m.Flat(), .v = p.v.Flat(), .grad = gradient, .compute = {}};
  if (options_.gathered) {
    args.compute = p.copy;
  } else if (!p.compute.empty() && p.compute.dtype() != options_.master) {
    args.compute = RunOf(p.compute, p.shard);
  }
  AdamW(exec, of_parameter, args);
}

void AddNormNodes(const Exec& exec, const StageParameter& p, ConstTensorView gradient,
                  std::vector<proto::NormNode>& votes) {
  if (p.shard.num_elements == 0) return;
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

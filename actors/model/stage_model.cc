#include "actors/model/stage_model.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "actors/plan/kernel_memory.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

DType MasterOf(DType dtype) { return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

// What the plan says, or what the kernels say of this CPU where that is more.
int64_t KernelBytes(const StageModelOptions& options) {
  const StageShape& shape = options.shape;
  const int threads = shape.num_threads;
  const int64_t tokens = shape.batch.tokens_per_microbatch();
  int64_t most = KernelScratchBytes(shape, ThisVectorIsa());
  for (const int unit : UnitsOf(shape.model, shape.layout)) {
    const LayerSpec& spec = shape.model.unit(unit);
    for (const LayerProduct& product : spec.products) {
      const MatmulShape matmul{RowsOf(product, tokens), product.in, product.out, options.dtype};
      most = std::max(most, MatmulWorkspaceBytes(matmul, threads));
    }
    if (!spec.attention) continue;
    most = std::max(most, AttentionWorkspaceBytes(ShapeOf(*spec.attention, shape.batch), threads));
  }
  return most;
}

}  // namespace

StageModel::StageModel(const StageModelOptions& options, const ParameterTable& table,
                       MemoryLedger& ledger)
    : options_(options),
      table_(table),
      ledger_(ledger),
      num_tokens_(options.shape.batch.tokens_per_microbatch()),
      stash_layout_(StashLayoutOf(options.shape)),
      work_layout_(WorkspaceLayoutOf(options.shape, KernelBytes(options))),
      master_(MasterOf(options.dtype)),
      parameters_({.compute = options.dtype,
                   .master = master_,
                   .initializer_range = options.shape.model.config.initializer_range,
                   .owner = options.owner},
                  table, options.shape.layout, ledger),
      gradients_({.num_elements = GradientElements(table, options.shape.layout),
                  .dtype = master_,
                  .num_microbatches = options.shape.batch.num_microbatches,
                  .groups = options.shape.batch.gradient_groups},
                 ledger),
      workspace_(ledger, MemoryTag::kWorkspace, work_layout_.num_bytes) {
  CHECK(options.shape.widths.compute_bytes == DTypeBytes(options.dtype));
  exec_.specification = options.specification;
  exec_.num_threads = options.shape.num_threads;
  exec_.workspace = workspace_.bytes().subspan(static_cast<size_t>(work_layout_.kernels));
  BuildUnits();
  WriteConstants();
}

UnitSite StageModel::SiteOf(size_t position, int unit) {
  return {.spec = options_.shape.model.unit(unit),
          .config = options_.shape.model.config,
          .batch = options_.shape.batch,
          .stash = stash_layout_.units[position],
          .workspace = work_layout_.units[position],
          .dtype = options_.dtype,
          .master = master_,
          .table_indices = table_.OfUnit(unit),
          .weights = parameters_,
          .gradients = gradients_,
          .ledger = ledger_};
}

void StageModel::BuildUnits() {
  const ModelSpec& model = options_.shape.model;
  const std::vector<int> units = UnitsOf(model, options_.shape.layout);
  std::set<int> used;
  for (size_t i = 0; i < units.size(); ++i) {
    UnitSite site = SiteOf(i, units[i]);
    for (const int index : site.table_indices) {
      int64_t first_element = parameters_.Of(index).first_element;
      if (!used.insert(index).second) {
        // A second use sums into elements of its own, beyond the parameters'.
        CHECK(tied_first_element_ < 0, "only the embedding is used twice");
        first_element = tied_first_element_ = parameters_.num_elements();
      }
      site.gradient_elements.push_back(first_element);
    }
    if (units[i] == model.embedding_unit()) {
      embedding_.emplace(site);
      embedding_gradient_ = site.Half("dy");
    } else if (units[i] == model.head_unit()) {
      head_.emplace(site);
    } else {
      layers_.push_back(options_.new_layer(site));
      layer_gradients_.push_back(site.Half("dy"));
      spare_gradient_ = site.Workspace("dx");
      if (site.workspace.Has("positions")) positions_ = site.Workspace("positions");
    }
  }
  for (size_t i = layers_.size(); i-- > 0;) {
    for (int part = 0; part < layers_[i]->num_weight_parts(); ++part) {
      weight_parts_.push_back({i, part});
    }
  }
}

void StageModel::WriteConstants() {
  std::set<int> kinds;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const size_t layer = static_cast<size_t>(options_.shape.layout.first_layer) + i;
    if (kinds.insert(options_.shape.model.layers[layer]).second) {
      layers_[i]->WriteConstants(workspace_.data());
    }
  }
  if (!positions_) return;
  const std::vector<int32_t> of_batch = PositionsOf(options_.shape.batch);
  const TensorView positions = positions_->In(workspace_.data());
  std::memcpy(positions.data(), of_batch.data(), static_cast<size_t>(positions.num_bytes()));
}

void StageModel::WeightsChanged() {
  parameters_.RoundMasters(exec_);
  PackAll();
}

void StageModel::PackAll() {
  for (const auto& layer : layers_) layer->Pack(exec_);
  if (head_) head_->Pack(exec_);
}

int64_t StageModel::boundary_bytes() const {
  return num_tokens_ * options_.shape.model.config.hidden_size * DTypeBytes(options_.dtype);
}

TensorView StageModel::Boundary(Buffer& output) const {
  return {output.data(), options_.dtype, {num_tokens_, options_.shape.model.config.hidden_size}};
}

// ---- stashes --------------------------------------------------------------------------------

StageModel::Stash StageModel::TakeStash(int32_t microbatch) {
  Stash stash;
  if (free_stashes_.empty()) {
    stash.memory = Buffer(ledger_, MemoryTag::kActivations, stash_layout_.num_bytes);
  } else {
    stash = std::move(free_stashes_.back());
    free_stashes_.pop_back();
  }
  stash.microbatch = microbatch;
  stash.parts_done = 0;
  return stash;
}

void StageModel::ReturnStash(Stash stash) { free_stashes_.push_back(std::move(stash)); }

StageModel::Stash& StageModel::StashOf(int32_t microbatch) {
  const auto found = stashes_.find(microbatch);
  CHECK(found != stashes_.end(), "backward of microbatch {} before its forward", microbatch);
  return found->second;
}

Pass StageModel::PassOf(Stash& stash, bool whole) {
  Pass pass{.exec = exec_,
            .microbatch = stash.microbatch,
            .stash = stash.memory.data(),
            .workspace = workspace_.data(),
            .whole = whole};
  if (positions_) pass.positions = positions_->In(pass.workspace);
  if (embedding_) pass.tokens = embedding_->Tokens(pass.stash);
  if (head_) pass.labels = head_->Labels(pass.stash);
  return pass;
}

// ---- forward --------------------------------------------------------------------------------

void StageModel::TakeTokens(const Pass& pass, std::span<const int32_t> tokens) {
  if (!embedding_ && !head_) return;
  const int64_t seq_len = options_.shape.batch.seq_len;
  const int64_t sequences = options_.shape.batch.micro_batch_size;
  CHECK(static_cast<int64_t>(tokens.size()) == sequences * (seq_len + 1),
        "a microbatch has {} tokens instead of {} rows of {}", tokens.size(), sequences,
        seq_len + 1);
  for (int64_t s = 0; s < sequences; ++s) {
    const size_t row_bytes = static_cast<size_t>(seq_len) * sizeof(int32_t);
    const int32_t* row = tokens.data() + s * (seq_len + 1);
    const auto copy = [&](const TensorView& to, const int32_t* from) {
      std::memcpy(to.as<int32_t>() + s * seq_len, from, row_bytes);
    };
    if (embedding_) copy(embedding_->Tokens(pass.stash), row);
    if (head_) copy(head_->Labels(pass.stash), row + 1);
  }
}

Buffer StageModel::RunLayers(const Pass& pass, std::span<const std::byte> input) {
  const ResidualStart start = layers_.front()->Input(pass);
  if (embedding_) {
    embedding_->Forward(pass, start.x);
  } else {
    CHECK(static_cast<int64_t>(input.size()) == boundary_bytes());
    std::memcpy(start.x.data(), input.data(), input.size());
  }
  EnterResidual(pass.exec, start);
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]->Forward(pass);
    if (i + 1 < layers_.size()) {
      PassResidual(pass.exec, layers_[i]->Output(pass), layers_[i + 1]->Input(pass));
    }
  }
  const ResidualEnd end = layers_.back()->Output(pass);
  if (head_) {
    PassResidual(pass.exec, end, head_->Input(pass));
    return {};
  }
  Buffer output = NewBoundary();
  LeaveResidual(pass.exec, end, Boundary(output));
  return output;
}

StageModel::ForwardResult StageModel::RunForward(const Pass& pass, std::span<const std::byte> input,
                                                 std::span<const int32_t> tokens,
                                                 bool with_gradients) {
  TakeTokens(pass, tokens);
  ForwardResult result{.output = RunLayers(pass, input)};
  if (head_) {
    const LossSum loss = head_->Forward(pass, with_gradients);
    result.loss_sum = loss.nll;
    result.num_tokens = loss.num_tokens;
  }
  return result;
}

StageModel::ForwardResult StageModel::Forward(int32_t microbatch, std::span<const std::byte> input,
                                              std::span<const int32_t> tokens) {
  CHECK(!stashes_.contains(microbatch), "microbatch {} is already under way", microbatch);
  Stash& stash = stashes_[microbatch] = TakeStash(microbatch);
  return RunForward(PassOf(stash), input, tokens, /*with_gradients=*/true);
}

StageModel::ForwardResult StageModel::Evaluate(std::span<const std::byte> input,
                                               std::span<const int32_t> tokens) {
  Stash stash = TakeStash(-1);
  ForwardResult result = RunForward(PassOf(stash), input, tokens, /*with_gradients=*/false);
  ReturnStash(std::move(stash));
  return result;
}

// ---- backward -------------------------------------------------------------------------------

void StageModel::EnterBackward(const Pass& pass, std::span<const std::byte> gradient,
                               TensorView dy) {
  if (head_) return head_->BackwardInput(pass, dy);
  CHECK(static_cast<int64_t>(gradient.size()) == boundary_bytes());
  std::memcpy(dy.data(), gradient.data(), gradient.size());
}

// Layer by layer, both halves while the layer's gradients are in cache.
Buffer StageModel::Backward(int32_t microbatch, std::span<const std::byte> gradient) {
  Stash& stash = StashOf(microbatch);
  const Pass pass = PassOf(stash, /*whole=*/true);
  Buffer output;
  if (!embedding_) output = NewBoundary();
  TensorView dy = layer_gradients_.back().In(pass);
  TensorView dx = spare_gradient_.In(pass.workspace);
  EnterBackward(pass, gradient, dy);
  for (size_t i = layers_.size(); i-- > 0;) {
    const Layer& layer = *layers_[i];
    layer.BackwardInput(pass, dy, i == 0 && !embedding_ ? Boundary(output) : dx);
    for (int part = 0; part < layer.num_weight_parts(); ++part) {
      layer.BackwardWeight(pass, part, dy);
    }
    std::swap(dy, dx);
  }
  if (embedding_) embedding_->BackwardWeight(pass, dy);
  ReturnStash(std::move(stash));
  stashes_.erase(microbatch);
  return output;
}

Buffer StageModel::BackwardInput(int32_t microbatch, std::span<const std::byte> gradient) {
  CHECK(options_.shape.halves, "the stage was laid out for whole backwards");
  const Pass pass = PassOf(StashOf(microbatch));
  Buffer output;
  if (!embedding_) output = NewBoundary();
  EnterBackward(pass, gradient, layer_gradients_.back().In(pass));
  for (size_t i = layers_.size(); i-- > 0;) {
    const TensorView dx = i > 0        ? layer_gradients_[i - 1].In(pass)
                          : embedding_ ? embedding_gradient_.In(pass)
                                       : Boundary(output);
    layers_[i]->BackwardInput(pass, layer_gradients_[i].In(pass), dx);
  }
  return output;
}

void StageModel::BackwardWeight(int32_t microbatch, int32_t part, int32_t num_parts) {
  CHECK(options_.shape.halves, "the stage was laid out for whole backwards");
  CHECK(part >= 0 && part < num_parts, "part {} of {}", part, num_parts);
  Stash& stash = StashOf(microbatch);
  const Pass pass = PassOf(stash);
  const int of_layers = static_cast<int>(weight_parts_.size());
  const int total = of_layers + (embedding_ ? 1 : 0);
  for (int i = total * part / num_parts; i < total * (part + 1) / num_parts; ++i) {
    if (i == of_layers) {
      embedding_->BackwardWeight(pass, embedding_gradient_.In(pass));
      continue;
    }
    const WeightPart& of = weight_parts_[static_cast<size_t>(i)];
    layers_[of.layer]->BackwardWeight(pass, of.part, layer_gradients_[of.layer].In(pass));
  }
  if (++stash.parts_done < num_parts) return;
  ReturnStash(std::move(stash));
  stashes_.erase(microbatch);
}

}  // namespace troupe

#include "actors/model/stage_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "actors/plan/kernel_memory.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

DType MasterOf(DType dtype) { return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

DType GradientOf(const StageModelOptions& options) {
  return options.shape.widths.rounds_gradients() ? DType::kBFloat16 : MasterOf(options.dtype);
}

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

std::optional<TensorSlot> SlotOfBatch(const StashLayout& stash, std::string_view name) {
  if (!stash.batch.Has(name)) return std::nullopt;
  return TensorSlot(stash.batch.Of(name), DType::kInt32);
}

std::string NameOf(const ModelSpec& model, int unit) {
  if (unit == model.embedding_unit()) return "the embedding";
  if (unit == model.head_unit()) return "the head";
  return fmt::format("layer {}", model.LayerOf(unit));
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
      gradient_(GradientOf(options)),
      units_(UnitsOf(options.shape.model, options.shape.layout)),
      parameters_({.master = master_,
                   .initializer_range = options.shape.model.config.initializer_range,
                   .exporter = options.exporter,
                   .shards = options.shards,
                   .whole_masters = options.dtype == master_,
                   .gathered = gathers(),
                   .compute = options.dtype},
                  table, options.shape.layout, ledger),
      gathered_memory_(options.gathered_memory),
      tokens_(SlotOfBatch(stash_layout_, kTokensTensor)),
      labels_(SlotOfBatch(stash_layout_, kLabelsTensor)),
      positions_(SlotOfBatch(stash_layout_, kPositionsTensor)),
      document_starts_(SlotOfBatch(stash_layout_, kDocumentStartsTensor)),
      workspaces_(options.shape.open_actions, work_layout_.action_bytes, ledger),
      shared_(ledger, MemoryTag::kWorkspace, work_layout_.shared_bytes),
      gradient_runs_(GradientRunsOf(table, options.shape.layout,
                                    options.shape.bucket_bytes / DTypeBytes(gradient_))) {
  CHECK(options.shape.widths.compute_bytes == DTypeBytes(options.dtype));
  exec_.specification = options.specification;
  exec_.num_threads = options.shape.num_threads;
  exec_.workspace = shared_.bytes().subspan(static_cast<size_t>(work_layout_.kernels));
  if (gathers() && gathered_memory_ == nullptr) {
    gathered_memory_ = std::make_shared<GatheredMemory>(
        ledger_, PredictGatheredUnits(table_, {&options_.shape, 1}, ThisVectorIsa()));
  }
  // The order of sums over the ranks is that of the list.
  CHECK(options.shape.open_actions == 1 || options.shape.batch.weight_replicas() == 1 ||
            options.shape.batch.grad_reduce == GradReduce::kStep,
        "two actions at once would reduce microbatches in an order of their own");
  weight_passes_.resize(units_.size());
  BuildGradients();
  BuildUnits();
  WriteConstants();
}

UnitSite StageModel::SiteOf(size_t position, int unit) {
  return {.spec = options_.shape.model.unit(unit),
          .config = options_.shape.model.config,
          .batch = options_.shape.batch,
          .stash = stash_layout_.units[position],
          .workspace = work_layout_.units[position],
          .constants = work_layout_.constants[position],
          .dtype = options_.dtype,
          .master = master_,
          .layer = options_.shape.model.LayerOf(unit),
          .recompute = options_.shape.recompute,
          .weights = *unit_weights_[position],
          .gradients = *gradients_};
}

void StageModel::BuildUnits() {
  const ModelSpec& model = options_.shape.model;
  std::set<int> used;
  for (size_t i = 0; i < units_.size(); ++i) {
    const std::span<const int> parameters = table_.OfUnit(units_[i]);
    std::vector<int> own;
    std::vector<int64_t> gradient_elements;
    for (const int index : parameters) {
      gradient_elements.push_back(parameters_.Of(index).first_element);
      if (used.insert(index).second) {
        // What persists beside rows that are gathered is there already.
        if (parameters_.Of(index).compute.empty()) own.push_back(index);
        continue;
      }
      // A second use sums into elements of its own, beyond the parameters'.
      CHECK(tied_first_element_ < 0, "only the embedding is used twice");
      gradient_elements.back() = tied_first_element_ = parameters_.num_elements();
    }
    unit_weights_.push_back(
        std::make_unique<UnitWeights>(UnitWeights::Options{.name = NameOf(model, units_[i]),
                                                           .parameters = parameters,
                                                           .own_parameters = std::move(own),
                                                           .compute = options_.dtype,
                                                           .lent = is_sharded() && !gathers(),
                                                           .gathered = gathered_memory_.get()},
                                      parameters_, ledger_));
    UnitSite site = SiteOf(i, units_[i]);
    site.gradient_elements = std::move(gradient_elements);
    BuildUnit(units_[i], site);
    if (!gathers()) unit_weights_.back()->Gather();
  }
  BuildResidency();
}

void StageModel::BuildUnit(int unit, const UnitSite& site) {
  const ModelSpec& model = options_.shape.model;
  if (unit == model.embedding_unit()) {
    embedding_.emplace(site);
    embedding_gradient_ = site.Half("dy");
    ++num_weight_parts_;
  } else if (unit == model.head_unit()) {
    head_.emplace(site);
  } else {
    layers_.push_back(options_.new_layer(site));
    layer_gradients_.push_back(site.Half("dy"));
    spare_gradient_ = site.Workspace("dx");
    num_weight_parts_ += layers_.back()->num_weight_parts();
  }
}

void StageModel::WriteConstants() {
  std::set<int> kinds;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const size_t layer = static_cast<size_t>(options_.shape.layout.first_layer) + i;
    if (kinds.insert(options_.shape.model.layers[layer]).second) {
      layers_[i]->WriteConstants(shared_.data());
    }
  }
}

void StageModel::WeightsChanged() {
  if (gathers()) return;  // Meet publishes them
  for (const auto& weights : unit_weights_) weights->Ready(exec_);
}

UnitWeights& StageModel::WeightsOf(int unit) {
  const auto found = std::ranges::find(units_, unit);
  CHECK(found != units_.end(), "unit {} is of another stage", unit);
  return *unit_weights_[static_cast<size_t>(found - units_.begin())];
}

void StageModel::DropUnit(int unit) { WeightsOf(unit).Drop(); }

void StageModel::ReadyUnit(int unit) { WeightsOf(unit).Ready(exec_); }

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
    stash.memory.SetIdle(false);
  }
  stash.microbatch = microbatch;
  stash.parts_done = 0;
  return stash;
}

void StageModel::ReturnStash(Stash stash) {
  stash.memory.SetIdle(true);
  free_stashes_.push_back(std::move(stash));
}

StageModel::Stash& StageModel::StashOf(int32_t microbatch) {
  const auto found = stashes_.find(microbatch);
  CHECK(found != stashes_.end(), "backward of microbatch {} before its forward", microbatch);
  return found->second;
}

Pass StageModel::PassOf(Stash& stash, const Workspaces::Lease& workspace, int lane, bool whole) {
  Pass pass{.exec = exec_,
            .groups = options_.groups,
            .microbatch = stash.microbatch,
            .number = stash.microbatch < 0 ? -1 : options_.first_microbatch + stash.microbatch,
            .step = step_,
            .ring = peers_.ring,
            .work = peers_.work,
            .stash = stash.memory.data(),
            .workspace = workspace.data(),
            .shared = shared_.data(),
            .whole = whole};
  if (Group* const group = peers_.groups[static_cast<size_t>(lane)]) {
    pass.groups.Set(Axis::kCp, group);
  }
  if (tokens_) pass.tokens = tokens_->In(pass.stash);
  if (labels_) pass.labels = labels_->In(pass.stash);
  if (positions_) pass.positions = positions_->In(pass.stash);
  if (document_starts_) pass.document_starts = document_starts_->In(pass.stash);
  return pass;
}

// ---- forward --------------------------------------------------------------------------------

void StageModel::TakeData(const Pass& pass, const Microbatch& data) {
  const auto take = [&](const std::optional<TensorSlot>& slot, std::string_view name,
                        std::span<const int32_t> numbers) {
    if (!slot) return;
    CHECK(std::ssize(numbers) == num_tokens_, "a microbatch of {} tokens has {} {}", num_tokens_,
          numbers.size(), name);
    std::memcpy(slot->In(pass.stash).data(), numbers.data(), numbers.size_bytes());
  };
  take(tokens_, kTokensTensor, data.tokens);
  take(labels_, kLabelsTensor, data.labels);
  take(positions_, kPositionsTensor,
       data.positions ? std::span(*data.positions) : std::span<const int32_t>());
  take(document_starts_, kDocumentStartsTensor, data.document_starts);
}

Task<Result<Buffer>> StageModel::RunLayers(const Pass& pass, std::span<const std::byte> input,
                                           UnitResidency::After after) {
  constexpr auto kForward = PassDirection::kForward;
  if (residency_ && embedding_) {
    CO_RETURN_IF_ERROR(co_await HaveUnit(0, kForward));
    // What comes behind the first layer only when the embedding has gone.
    const std::array first = {static_cast<int>(first_layer())};
    co_await residency_->Gather(first, ThisPass(kForward));
    CO_RETURN_IF_ERROR(co_await residency_->Have(exec_, first[0]));
  } else if (residency_) {
    CO_RETURN_IF_ERROR(co_await HaveUnit(first_layer(), kForward));
  }
  const ResidualStart start = layers_.front()->Input(pass);
  if (embedding_) {
    CO_RETURN_IF_ERROR(co_await embedding_->Forward(pass, start.x));
    if (residency_) {
      residency_->Release(0, after);
      co_await GatherUnits(first_layer(), kForward);
    }
  } else {
    CHECK(static_cast<int64_t>(input.size()) == boundary_bytes());
    std::memcpy(start.x.data(), input.data(), input.size());
  }
  EnterResidual(pass.exec, start);
  for (size_t i = 0; i < layers_.size(); ++i) {
    CO_RETURN_IF_ERROR(co_await layers_[i]->Forward(pass));
    if (residency_) {
      const size_t position = first_layer() + i;
      if (position + 1 < unit_weights_.size()) {
        residency_->Release(static_cast<int>(position), after);
        CO_RETURN_IF_ERROR(co_await HaveUnit(position + 1, kForward));
      } else {
        co_await ReleaseLast(position, after);
      }
    }
    if (i + 1 < layers_.size()) {
      PassResidual(pass.exec, layers_[i]->Output(pass), layers_[i + 1]->Input(pass));
    }
  }
  const ResidualEnd end = layers_.back()->Output(pass);
  Buffer output;
  if (head_) {
    PassResidual(pass.exec, end, head_->Input(pass));
  } else {
    output = NewBoundary();
    LeaveResidual(pass.exec, end, Boundary(output));
  }
  co_return output;
}

Task<Result<StageModel::ForwardResult>> StageModel::RunForward(const Pass& pass,
                                                               std::span<const std::byte> input,
                                                               const Microbatch& data,
                                                               bool with_gradients) {
  TakeData(pass, data);
  const bool keeps = with_gradients && !options_.shape.zero.reshard_after_forward;
  const auto after = keeps ? UnitResidency::After::kKeep : UnitResidency::After::kDrop;
  ForwardResult result;
  CO_ASSIGN_OR_RETURN(result.output, co_await RunLayers(pass, input, after));
  if (!head_) co_return result;
  const bool in_pieces = pieces_ != nullptr && with_gradients;
  if (in_pieces) {
    CO_RETURN_IF_ERROR(
        co_await OpenPiece(head_position(), GradientMoment::kForward, pass.microbatch));
  }
  CO_ASSIGN_OR_RETURN(result.loss, co_await head_->Forward(pass, with_gradients));
  if (residency_) co_await ReleaseLast(head_position(), after);
  if (in_pieces) {
    CO_RETURN_IF_ERROR(
        co_await ClosePiece(head_position(), GradientMoment::kForward, pass.microbatch));
  }
  co_return result;
}

Task<Result<StageModel::ForwardResult>> StageModel::Forward(int32_t microbatch,
                                                            std::span<const std::byte> input,
                                                            const Microbatch& data) {
  CHECK(!stashes_.contains(microbatch), "microbatch {} is already under way", microbatch);
  Stash& stash = stashes_[microbatch] = TakeStash(microbatch);
  const Workspaces::Lease workspace = workspaces_.Take();
  const Pass pass = PassOf(stash, workspace, LaneOf(KvPhase::kForward));
  co_return co_await RunForward(pass, input, data, /*with_gradients=*/true);
}

Task<Result<StageModel::ForwardResult>> StageModel::Evaluate(std::span<const std::byte> input,
                                                             const Microbatch& data) {
  Stash stash = TakeStash(-1);
  const Workspaces::Lease workspace = workspaces_.Take();
  const Pass pass = PassOf(stash, workspace, LaneOf(KvPhase::kForward));
  auto result = co_await RunForward(pass, input, data, /*with_gradients=*/false);
  ReturnStash(std::move(stash));
  co_return result;
}

}  // namespace troupe

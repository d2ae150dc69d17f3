// StageModel among the ranks that have the same stage: gradients that are added up, weights that
// are shared out after an update.
#include <algorithm>
#include <utility>

#include "actors/model/stage_model.h"
#include "runtime/base/check.h"

namespace troupe {

void StageModel::BuildGradients() {
  const BatchArithmetic& batch = options_.shape.batch;
  const StageLayout& layout = options_.shape.layout;
  const int64_t num_elements = GradientElements(table_, layout);
  if (!options_.shape.has_buckets()) {
    gradients_ = std::make_unique<GradientSum>(
        GradientSum::Options{.num_elements = num_elements,
                             .dtype = master_,
                             .num_microbatches = batch.num_microbatches,
                             .groups = batch.gradient_groups,
                             .lent = batch.weight_replicas() > 1},
        ledger_);
    return;
  }
  auto pieces = std::make_unique<MicrobatchGradients>(
      MicrobatchGradients::Options{.dtype = master_,
                                   .sum_dtype = gradient_,
                                   .num_microbatches = batch.num_microbatches,
                                   .groups = batch.gradient_groups,
                                   .reduce = batch.grad_reduce,
                                   .halves = options_.shape.halves,
                                   .shards = options_.shards,
                                   .lent = batch.weight_replicas() > 1},
      parameters_, table_, layout, ledger_);
  pieces_ = pieces.get();
  gradients_ = std::move(pieces);
}

// ---- gradients, once a step -------------------------------------------------------------------

bool StageModel::HasLastGradient(size_t position) {
  if (!reduces_once() || options_.listed_reduction) return false;
  return ++weight_passes_[position] == options_.shape.batch.num_microbatches;
}

// From the last unit to the first, as backward ends. Each sum is a task of its own: their
// operations begin in this order at every rank.
Task<void> StageModel::ReduceUnit(size_t position) {
  co_await OnScheduler([&] { BeginSums(units_[position]); });
}

Task<Status> StageModel::ReduceGradients() {
  if (!reduces_once()) co_return Status{};
  CHECK(options_.listed_reduction, "gradients are reduced as they come, and were to be at once");
  co_await OnScheduler([this] {
    for (size_t position = units_.size(); position-- > 0;) BeginSums(units_[position]);
    sums_listed_.Give();
  });
  co_return Status{};
}

void StageModel::BeginSums(int unit) {
  if (is_sharded()) {
    BeginRows(unit);
  } else {
    BeginRun(unit);
  }
}

// Each use of a weight by itself.
void StageModel::BeginRows(int unit) {
  const std::span<const int> parameters = table_.OfUnit(unit);
  for (const ShardRow& row : parameters_.rows()) {
    const int first = row.parameters.front();
    if (std::ranges::find(parameters, first) == parameters.end()) continue;
    const bool second_use = tied_first_element_ >= 0 && first == table_.embedding_index() &&
                            unit == options_.shape.model.head_unit();
    const int64_t first_element = second_use ? tied_first_element_ : row.first_element;
    BeginSum(gradients_->Sum(first_element, row.num_elements),
             row.persists ? std::span<const int64_t>() : row.counts);
  }
}

void StageModel::BeginRun(int unit) {
  const auto run = std::ranges::find(gradient_runs_, unit, &GradientRun::unit);
  if (run == gradient_runs_.end()) return;
  BeginSum(gradients_->Sum(run->first_element, run->num_elements), {});
}

void StageModel::BeginSum(TensorView gradients, std::span<const int64_t> counts) {
  ++sums_begun_;
  siblings_.launch(Sum(gradients, counts), [this] { sums_done_.Give(); });
}

Task<Status> StageModel::Sum(TensorView gradients, std::span<const int64_t> counts,
                             int microbatch) {
  const GroupPurpose purpose{
      .activity = "gradient reduction", .step = step_, .microbatch = microbatch};
  auto sum =
      counts.empty() ? sums_.Whole(gradients, purpose) : sums_.Shard(gradients, counts, purpose);
  const Status status = co_await std::move(sum);
  if (!status.ok() && reduced_.ok()) reduced_ = status;
  co_return status;
}

Task<Status> StageModel::AwaitRanksSums() {
  CHECK(!tied_added_, "the two uses of a weight were added before the ranks' sums");
  if (reduces_pieces()) {  // who has all buckets knows that none is being reduced
    for (int i = 0; i < kGradientBuckets; ++i) co_await buckets_;
    co_await OnScheduler([this] {
      for (int i = 0; i < kGradientBuckets; ++i) buckets_.Give();
    });
  }
  if (options_.listed_reduction && reduces_once()) co_await sums_listed_;
  for (; sums_begun_ > 0; --sums_begun_) co_await sums_done_;
  std::ranges::fill(weight_passes_, 0);
  co_return reduced_;
}

Task<Status> StageModel::ShareWeights(GroupPurpose purpose) {
  if (!is_sharded()) co_return Status{};
  if (gathers()) {
    co_await OnScheduler([this] { PublishRows(); });
    co_return Status{};
  }
  const auto dtype = static_cast<uint8_t>(options_.dtype);
  for (const ShardRow& row : parameters_.rows()) {
    if (row.persists) continue;
    std::byte* whole = parameters_.ComputeRow(row).data();
    std::byte* own = whole + row.own_first * DTypeBytes(options_.dtype);
    CO_RETURN_IF_ERROR(co_await sums_.owners()->AllGather(
        {dtype, own, row.own_count}, {dtype, whole, row.num_elements}, row.counts, purpose));
  }
  for (const auto& weights : unit_weights_) weights->Repack(exec_);
  co_return Status{};
}

void StageModel::Meet(StageSiblings siblings) {
  siblings_ = std::move(siblings);
  sums_ = SiblingSums(siblings_.groups, options_.shards);
  if (!gathers()) return;
  CHECK(siblings_.rows != nullptr, "the stage's weights are in shards and nobody gathers them");
  residency_->Meet(*siblings_.rows);
  PublishRows();
}

void StageModel::PublishRows() {
  ++weights_version_;
  const auto rows = parameters_.rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].persists) continue;
    siblings_.rows->Publish(static_cast<int>(i), parameters_.OwnRun(rows[i]), weights_version_);
  }
}

// ---- gradients, microbatch by microbatch ------------------------------------------------------

Task<Status> StageModel::OpenPiece(size_t position, GradientMoment moment, int32_t microbatch) {
  const std::optional<int> portion = pieces_->PortionOf(units_[position], moment);
  if (!portion) co_return Status{};
  if (reduces_pieces()) {
    co_await buckets_;
    if (!reduced_.ok()) {
      co_await OnScheduler([this] { buckets_.Give(); });
      co_return reduced_;
    }
  }
  pieces_->Open(exec_, *portion, microbatch);
  co_return Status{};
}

Task<Status> StageModel::ClosePiece(size_t position, GradientMoment moment, int32_t microbatch) {
  const std::optional<int> portion = pieces_->PortionOf(units_[position], moment);
  if (!portion) co_return Status{};
  const auto bucket = pieces_->Close(exec_, *portion, microbatch);
  const size_t num_parts = bucket->parts.size();
  if (!reduces_pieces()) {
    for (size_t part = 0; part < num_parts; ++part) pieces_->Add(exec_, bucket, part);
    co_return Status{};
  }
  co_await OnScheduler([&] {
    const auto left = std::make_shared<size_t>(num_parts);
    for (size_t part = 0; part < num_parts; ++part) {
      siblings_.launch(ReducePiece(bucket, part), [this, left] {
        if (--*left == 0) buckets_.Give();
      });
    }
  });
  co_return Status{};
}

Task<Status> StageModel::ReducePiece(std::shared_ptr<MicrobatchGradients::Bucket> bucket,
                                     size_t part) {
  const auto& [gradients, counts] = bucket->parts[part];
  const Status status = co_await Sum(gradients, counts, bucket->microbatch);
  if (status.ok()) pieces_->Add(exec_, bucket, part);
  co_return status;
}

}  // namespace troupe

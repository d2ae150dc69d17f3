// StageModel among the data-parallel ranks that have the same stage: gradients that are added up,
// weights that are shared out.
#include <algorithm>
#include <map>
#include <utility>

#include "actors/model/stage_model.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

constexpr std::string_view kReduction = "gradient reduction";

}  // namespace

// ---- gradients, once a step -------------------------------------------------------------------

bool StageModel::HasLastGradient(size_t position) {
  if (siblings_.group == nullptr) return false;
  return ++weight_passes_[position] == options_.shape.batch.num_microbatches;
}

// From the last unit to the first, as backward ends. Each sum is a task of its own: their
// operations begin in this order at every rank.
Task<void> StageModel::ReduceUnit(size_t position) {
  co_await OnScheduler([&] {
    if (is_sharded()) {
      BeginRows(units_[position]);
    } else {
      BeginRun(units_[position]);
    }
  });
}

void StageModel::BeginSum(Task<Status> sum) {
  ++sums_begun_;
  siblings_.launch(std::move(sum), [this] { sums_done_.Give(); });
}

// Each use of a weight by itself.
void StageModel::BeginRows(int unit) {
  const std::span<const int> parameters = table_.OfUnit(unit);
  for (const ShardRow& row : parameters_.rows()) {
    const int first = row.parameters.front();
    if (std::ranges::find(parameters, first) == parameters.end()) continue;
    const bool second_use = tied_first_element_ >= 0 && first == table_.embedding_index() &&
                            unit == options_.shape.model.head_unit();
    BeginSum(SumRow(row, second_use ? tied_first_element_ : row.first_element));
  }
}

void StageModel::BeginRun(int unit) {
  const auto run = std::ranges::find(gradient_runs_, unit, &GradientRun::unit);
  if (run == gradient_runs_.end()) return;
  BeginSum(SumRun(gradients_->Sum(run->first_element, run->num_elements)));
}

Task<Status> StageModel::SumRow(const ShardRow& row, int64_t first_element) {
  const auto dtype = static_cast<uint8_t>(master_);
  const TensorView whole = gradients_->Sum(first_element, row.num_elements);
  const TensorView own = gradients_->Sum(first_element + row.own_first, row.own_count);
  const Status status = co_await siblings_.group->ReduceScatter(
      {dtype, whole.data(), whole.num_elements()}, {dtype, own.data(), own.num_elements()},
      row.counts, {.activity = kReduction, .step = step_});
  if (!status.ok() && reduced_.ok()) reduced_ = status;
  co_return status;
}

Task<Status> StageModel::SumRun(TensorView run) {
  const auto dtype = static_cast<uint8_t>(master_);
  const Status status = co_await siblings_.group->AllReduce(
      {dtype, run.data(), run.num_elements()}, {.activity = kReduction, .step = step_});
  if (!status.ok() && reduced_.ok()) reduced_ = status;
  co_return status;
}

Task<Status> StageModel::AwaitRanksSums() {
  CHECK(!tied_added_, "the two uses of a weight were added before the ranks' sums");
  if (pieces_) {  // who has all buckets knows that none is being reduced
    for (int i = 0; i < kGradientBuckets; ++i) co_await buckets_;
    co_await OnScheduler([this] {
      for (int i = 0; i < kGradientBuckets; ++i) buckets_.Give();
    });
  }
  for (; sums_begun_ > 0; --sums_begun_) co_await sums_done_;
  std::ranges::fill(weight_passes_, 0);
  co_return reduced_;
}

Task<Status> StageModel::ShareWeights(Group& group, GroupPurpose purpose) {
  if (gathers()) {
    co_await OnScheduler([this] { PublishRows(); });
    co_return Status{};
  }
  const auto dtype = static_cast<uint8_t>(options_.dtype);
  for (const ShardRow& row : parameters_.rows()) {
    std::byte* whole = parameters_.ComputeRow(row).data();
    std::byte* own = whole + row.own_first * DTypeBytes(options_.dtype);
    CO_RETURN_IF_ERROR(co_await group.AllGather(
        {dtype, own, row.own_count}, {dtype, whole, row.num_elements}, row.counts, purpose));
  }
  for (const auto& weights : unit_weights_) weights->Repack(exec_);
  co_return Status{};
}

void StageModel::Meet(StageSiblings siblings) {
  siblings_ = std::move(siblings);
  if (!gathers()) return;
  CHECK(siblings_.rows != nullptr, "the stage's weights are in shards and nobody gathers them");
  residency_->Meet(*siblings_.rows);
  PublishRows();
}

void StageModel::PublishRows() {
  ++weights_version_;
  const auto rows = parameters_.rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    siblings_.rows->Publish(static_cast<int>(i), parameters_.OwnRun(rows[i]), weights_version_);
  }
}

// ---- gradients, microbatch by microbatch ------------------------------------------------------

Task<Status> StageModel::OpenPiece(size_t position, GradientMoment moment, int32_t microbatch) {
  const std::optional<int> piece = pieces_->PieceOf(units_[position], moment);
  if (!piece) co_return Status{};
  if (siblings_.group != nullptr) co_await buckets_;
  if (!reduced_.ok()) {
    co_await OnScheduler([this] { buckets_.Give(); });
    co_return reduced_;
  }
  pieces_->Open(exec_, *piece, microbatch);
  co_return Status{};
}

Task<Status> StageModel::ClosePiece(size_t position, GradientMoment moment, int32_t microbatch) {
  const std::optional<int> piece = pieces_->PieceOf(units_[position], moment);
  if (!piece) co_return Status{};
  std::unique_ptr<MicrobatchGradients::Bucket> bucket = pieces_->Close(*piece, microbatch);
  if (siblings_.group == nullptr) {
    pieces_->Add(exec_, std::move(bucket));
    co_return Status{};
  }
  co_await OnScheduler(
      [&] { siblings_.launch(ReducePiece(std::move(bucket)), [this] { buckets_.Give(); }); });
  co_return Status{};
}

Task<Status> StageModel::ReducePiece(std::unique_ptr<MicrobatchGradients::Bucket> bucket) {
  const auto dtype = static_cast<uint8_t>(master_);
  const GroupPurpose purpose{
      .activity = kReduction, .step = step_, .microbatch = bucket->microbatch};
  const TensorView& all = bucket->all;
  const TensorView& own = bucket->own;
  Status status;
  if (is_sharded()) {
    status = co_await siblings_.group->ReduceScatter({dtype, all.data(), all.num_elements()},
                                                     {dtype, own.data(), own.num_elements()},
                                                     bucket->counts, purpose);
  } else {
    status = co_await siblings_.group->AllReduce({dtype, all.data(), all.num_elements()}, purpose);
  }
  if (status.ok()) {
    pieces_->Add(exec_, std::move(bucket));
  } else if (reduced_.ok()) {
    reduced_ = status;
  }
  co_return status;
}

// ---- weights that are gathered ----------------------------------------------------------------

void StageModel::BuildResidency() {
  if (!gathers()) return;
  std::vector<UnitResidency::Unit> units(unit_weights_.size());
  const auto rows = parameters_.rows();
  std::map<int, size_t> position_of;  // of the unit that keeps a parameter
  for (size_t position = 0; position < units.size(); ++position) {
    units[position].weights = unit_weights_[position].get();
    for (const int index : table_.OfUnit(units_[position])) {
      const auto [kept, is_new] = position_of.emplace(index, position);
      if (!is_new) units[position].also = static_cast<int>(kept->second);
    }
  }
  for (size_t row = 0; row < rows.size(); ++row) {
    units[position_of.at(rows[row].parameters.front())].rows.push_back(static_cast<int>(row));
  }
  residency_.emplace(std::move(units), parameters_);
}

// A backward reads no weights of the embedding.
std::vector<int> StageModel::AheadOf(size_t position, Direction direction) const {
  const int step = direction == Direction::kForward ? 1 : -1;
  const int first = direction == Direction::kForward ? 0 : static_cast<int>(first_layer());
  const int last = static_cast<int>(units_.size()) - 1;
  std::vector<int> ahead;
  for (int next = static_cast<int>(position) + step;
       next >= first && next <= last && std::ssize(ahead) < options_.shape.zero.prefetch;
       next += step) {
    ahead.push_back(next);
  }
  return ahead;
}

Task<Status> StageModel::HaveUnit(size_t position, Direction direction) {
  const std::vector<int> ahead = AheadOf(position, direction);
  co_return co_await residency_->Have(exec_, static_cast<int>(position), ahead);
}

Task<void> StageModel::GatherAhead(size_t position, Direction direction) {
  const std::vector<int> ahead = AheadOf(position, direction);
  co_await residency_->GatherAhead(ahead);
}

}  // namespace troupe

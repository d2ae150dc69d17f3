#include "actors/model/microbatch_gradients.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/elementwise.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

const ShardRow& RowOf(const StageParameters& parameters, int index) {
  const auto rows = parameters.rows();
  const auto row = std::ranges::find_if(rows, [index](const ShardRow& r) {
    return std::ranges::find(r.parameters, index) != r.parameters.end();
  });
  CHECK(row != rows.end(), "parameter {} is in no row of the stage", index);
  return *row;
}

}  // namespace

MicrobatchGradients::MicrobatchGradients(const Options& options, const StageParameters& parameters,
                                         const ParameterTable& table, const StageLayout& layout,
                                         MemoryLedger& ledger)
    : options_(options), group_size_(options.num_microbatches / options.groups), ledger_(ledger) {
  CHECK(options.groups >= 1 && options.num_microbatches % options.groups == 0);
  for (const ShardRow& row : parameters.rows()) Keep(row, row.first_element);
  const std::vector<GradientPiece> pieces =
      GradientPiecesOf(table, layout, options.halves, options.shards);
  for (const GradientPiece& piece : pieces) {
    if (!piece.second_use) continue;
    Keep(RowOf(parameters, piece.parameters.front()), parameters.num_elements());
  }
  for (const GradientPiece& piece : pieces) {
    const bool in_shards = keeps_shards() && !piece.persists;
    AddPiece(
        parameters, piece,
        in_shards ? OwnerCounts(table, layout, piece, options.shards) : std::vector<int64_t>());
  }
  const int64_t num_bytes =
      (kept_.back().in_sum + kept_.back().num_elements) * DTypeBytes(options_.sum_dtype);
  const bool lends_sum = options_.lent && options_.reduce == GradReduce::kStep;
  total_ = lends_sum ? Buffer::Shared(ledger, MemoryTag::kGrads, num_bytes)
                     : Buffer(ledger, MemoryTag::kGrads, num_bytes);
  const bool has_groups = options_.groups > 1 && group_size_ > 1;
  group_ = Buffer(ledger, MemoryTag::kGrads, has_groups ? num_bytes : 0);
}

void MicrobatchGradients::Keep(const ShardRow& row, int64_t first_element) {
  const int64_t first = first_element + (keeps_shards() ? row.own_first : 0);
  const int64_t count = keeps_shards() ? row.own_count : row.num_elements;
  if (kept_.empty()) kept_.push_back({.first_element = first});
  KeptRun& last = kept_.back();
  if (last.first_element + last.num_elements == first) {
    last.num_elements += count;
  } else {
    kept_.push_back({first, count, last.in_sum + last.num_elements});
  }
}

void MicrobatchGradients::AddPiece(const StageParameters& parameters, GradientPiece plan,
                                   std::vector<int64_t> counts) {
  const ShardRow& row = RowOf(parameters, plan.parameters.front());
  const int64_t row_first = plan.second_use ? parameters.num_elements() : row.first_element;
  const int64_t own_first = keeps_shards() ? row.own_first : 0;
  const int64_t own_end = keeps_shards() ? row.own_first + row.own_count : row.num_elements;
  Piece piece;
  piece.counts = std::move(counts);
  int64_t in_piece = 0;
  for (const int index : plan.parameters) {
    const StageParameter& p = parameters.Of(index);
    const int64_t count = p.spec->num_elements();
    const int64_t in_row = p.first_element - row.first_element;
    CHECK(in_row >= 0 && in_row + count <= row.num_elements, "{} is of another row than its piece",
          p.spec->name);
    piece.parameters.push_back({in_piece, row_first + in_row, count});
    const int64_t begin = std::max(in_row, own_first);
    const int64_t kept = std::min(in_row + count, own_end) - begin;
    if (kept > 0) {
      piece.kept.push_back({in_piece + begin - in_row, PlaceInSum(row_first + begin, kept), kept});
    }
    in_piece += count;
  }
  CHECK(in_piece == plan.num_elements, "a piece of {} elements has {}", plan.num_elements,
        in_piece);
  piece.plan = std::move(plan);
  pieces_.push_back(std::move(piece));
  JoinPortion(pieces_.size() - 1);
}

void MicrobatchGradients::JoinPortion(size_t piece) {
  Piece& joins = pieces_[piece];
  const std::optional<int> found = PortionOf(joins.plan.unit, joins.plan.moment);
  if (!found) portions_.push_back({.unit = joins.plan.unit, .moment = joins.plan.moment});
  Portion& portion = found ? portions_[static_cast<size_t>(*found)] : portions_.back();
  joins.in_bucket = portion.num_elements;
  portion.pieces.push_back(piece);
  portion.num_elements += joins.plan.num_elements;
  bucket_elements_ = std::max(bucket_elements_, portion.num_elements);
}

int64_t MicrobatchGradients::PlaceInSum(int64_t first_element, int64_t num_elements) const {
  for (const KeptRun& run : kept_) {
    const int64_t in_run = first_element - run.first_element;
    if (in_run >= 0 && in_run + num_elements <= run.num_elements) return run.in_sum + in_run;
  }
  return -1;
}

TensorView MicrobatchGradients::In(const Buffer& sum, int64_t first, int64_t num_elements) const {
  auto* bytes = const_cast<std::byte*>(sum.data()) + first * DTypeBytes(options_.sum_dtype);
  return {bytes, options_.sum_dtype, {num_elements}};
}

// ---- buckets --------------------------------------------------------------------------------

std::optional<int> MicrobatchGradients::PortionOf(int unit, GradientMoment moment) const {
  for (size_t i = 0; i < portions_.size(); ++i) {
    if (portions_[i].unit == unit && portions_[i].moment == moment) return static_cast<int>(i);
  }
  return std::nullopt;
}

TensorView MicrobatchGradients::InBucket(const Bucket& bucket, int64_t first,
                                         int64_t num_elements) const {
  auto* bytes = const_cast<std::byte*>(bucket.memory.data()) + first * DTypeBytes(options_.dtype);
  return {bytes, options_.dtype, {num_elements}};
}

MicrobatchGradients::Bucket* MicrobatchGradients::Find(int portion, int32_t microbatch) const {
  const auto found = std::ranges::find_if(open_, [&](const auto& bucket) {
    return bucket->portion == portion && bucket->microbatch == microbatch;
  });
  return found == open_.end() ? nullptr : found->get();
}

std::shared_ptr<MicrobatchGradients::Bucket> MicrobatchGradients::NewBucket() {
  if (!free_.empty()) {
    std::shared_ptr<Bucket> bucket = std::move(free_.back());
    free_.pop_back();
    bucket->memory.SetIdle(false);
    return bucket;
  }
  auto bucket = std::make_shared<Bucket>();
  const int64_t num_bytes = bucket_elements_ * DTypeBytes(options_.dtype);
  const bool lends = options_.lent && options_.reduce == GradReduce::kMicrobatch;
  bucket->memory = lends ? Buffer::Shared(ledger_, MemoryTag::kComm, num_bytes)
                         : Buffer::Unfilled(ledger_, MemoryTag::kComm, num_bytes);
  return bucket;
}

void MicrobatchGradients::Open(const Exec& exec, int portion, int32_t microbatch) {
  std::shared_ptr<Bucket> bucket = NewBucket();
  bucket->portion = portion;
  bucket->microbatch = microbatch;
  bucket->num_added = 0;
  FillZero(exec, InBucket(*bucket, 0, portions_[static_cast<size_t>(portion)].num_elements));
  open_.push_back(std::move(bucket));
}

std::shared_ptr<MicrobatchGradients::Bucket> MicrobatchGradients::Close(const Exec& exec,
                                                                        int portion,
                                                                        int32_t microbatch) {
  const auto found =
      std::ranges::find(open_, Find(portion, microbatch), &std::shared_ptr<Bucket>::get);
  CHECK(found != open_.end(), "no bucket of portion {} of microbatch {} is open", portion,
        microbatch);
  std::shared_ptr<Bucket> bucket = std::move(*found);
  open_.erase(found);
  bucket->parts.clear();
  Exec in_place = exec;  // what is narrower follows what is read, on one thread
  in_place.num_threads = 1;
  for (const size_t i : portions_[static_cast<size_t>(portion)].pieces) {
    const Piece& piece = pieces_[i];
    const TensorView computed = InBucket(*bucket, piece.in_bucket, piece.plan.num_elements);
    const TensorView rounded(computed.data(), options_.sum_dtype, {computed.num_elements()});
    if (options_.sum_dtype != options_.dtype) Cast(in_place, rounded, computed);
    bucket->parts.push_back({rounded, piece.counts});
  }
  return bucket;
}

void MicrobatchGradients::Add(const Exec& exec, const std::shared_ptr<Bucket>& bucket,
                              size_t part) {
  Piece& piece = pieces_[portions_[static_cast<size_t>(bucket->portion)].pieces[part]];
  CHECK(bucket->microbatch == piece.next_microbatch, "microbatch {} is added where {} is due",
        bucket->microbatch, piece.next_microbatch);  // B2
  ++piece.next_microbatch;
  const Buffer& sum = group_.empty() ? total_ : group_;
  auto* data = static_cast<std::byte*>(bucket->parts[part].gradients.data());
  for (const Run& run : piece.kept) {
    const TensorView to = In(sum, run.elsewhere, run.num_elements);
    const TensorView from(data + run.in_piece * DTypeBytes(options_.sum_dtype), options_.sum_dtype,
                          {run.num_elements});
    Accumulate(exec, to, from);
    if (group_.empty() || piece.next_microbatch % group_size_ != 0) continue;
    Accumulate(exec, In(total_, run.elsewhere, run.num_elements), to);
    FillZero(exec, to);
  }
  if (++bucket->num_added < bucket->parts.size()) return;
  bucket->memory.SetIdle(true);
  free_.push_back(bucket);
}

// ---- as units and the step see it -------------------------------------------------------------

int MicrobatchGradients::AddAccumulator(int64_t first_element, int64_t num_elements) {
  for (const Piece& piece : pieces_) {
    const auto& runs = piece.parameters;
    for (size_t first = 0; first < runs.size(); ++first) {
      if (runs[first].elsewhere != first_element) continue;
      int64_t count = 0;  // of neighbours that are together in the piece
      for (size_t r = first; r < runs.size() && runs[r].elsewhere == first_element + count; ++r) {
        count += runs[r].num_elements;
      }
      CHECK(count >= num_elements, "a product's gradient is of several pieces");
      accumulators_.push_back({*PortionOf(piece.plan.unit, piece.plan.moment),
                               piece.in_bucket + runs[first].in_piece, num_elements});
      return static_cast<int>(accumulators_.size()) - 1;
    }
  }
  CHECK(false, "gradients from element {} on are of no piece", first_element);
}

TensorView MicrobatchGradients::Target(const Exec&, int accumulator, int32_t microbatch) {
  const Accumulator& to = accumulators_[static_cast<size_t>(accumulator)];
  const Bucket* bucket = Find(to.portion, microbatch);
  CHECK(bucket != nullptr, "a gradient of microbatch {} has no bucket", microbatch);  // B1
  return InBucket(*bucket, to.in_bucket, to.num_elements);
}

void MicrobatchGradients::Finish(const Exec&) {
  CHECK(open_.empty(), "the step's sum is asked for in the middle of a piece");
}

void MicrobatchGradients::Reset(const Exec&) {
  std::memset(total_.data(), 0, static_cast<size_t>(total_.num_bytes()));
  for (Piece& piece : pieces_) piece.next_microbatch = 0;
}

TensorView MicrobatchGradients::Sum(int64_t first_element, int64_t num_elements) const {
  if (num_elements == 0) return In(total_, 0, 0);
  const int64_t place = PlaceInSum(first_element, num_elements);
  CHECK(place >= 0, "gradients from element {} on are another rank's", first_element);
  return In(total_, place, num_elements);
}

}  // namespace troupe

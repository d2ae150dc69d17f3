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
  const auto keep = [this](const ShardRow& row, int64_t first_element) {
    if (is_sharded()) {
      Keep(first_element + row.own_first, row.own_count);
    } else {
      Keep(first_element, row.num_elements);
    }
  };
  for (const ShardRow& row : parameters.rows()) keep(row, row.first_element);
  const std::vector<GradientPiece> pieces = GradientPiecesOf(table, layout, options.halves);
  for (const GradientPiece& piece : pieces) {
    if (!piece.second_use) continue;
    keep(RowOf(parameters, piece.parameters.front()), parameters.num_elements());
  }
  for (const GradientPiece& piece : pieces) {
    AddPiece(
        parameters, piece,
        is_sharded() ? OwnerCounts(table, layout, piece, options.shards) : std::vector<int64_t>());
  }
  const int64_t num_bytes =
      (kept_.back().in_sum + kept_.back().num_elements) * DTypeBytes(options_.dtype);
  total_ = Buffer(ledger, MemoryTag::kGrads, num_bytes);
  const bool has_groups = options_.groups > 1 && group_size_ > 1;
  group_ = Buffer(ledger, MemoryTag::kGrads, has_groups ? num_bytes : 0);
}

void MicrobatchGradients::Keep(int64_t first_element, int64_t num_elements) {
  const int64_t end = kept_.empty() ? 0 : kept_.back().in_sum + kept_.back().num_elements;
  kept_.push_back({first_element, num_elements, end});
}

void MicrobatchGradients::AddPiece(const StageParameters& parameters, GradientPiece plan,
                                   std::vector<int64_t> counts) {
  const ShardRow& row = RowOf(parameters, plan.parameters.front());
  const int64_t row_first = plan.second_use ? parameters.num_elements() : row.first_element;
  const int64_t own_first = is_sharded() ? row.own_first : 0;
  const int64_t own_end = is_sharded() ? row.own_first + row.own_count : row.num_elements;
  Piece piece;
  piece.counts = std::move(counts);
  int64_t in_bucket = 0;
  for (const int index : plan.parameters) {
    const StageParameter& p = parameters.Of(index);
    const int64_t count = p.spec->num_elements();
    const int64_t in_row = p.first_element - row.first_element;
    CHECK(in_row >= 0 && in_row + count <= row.num_elements, "{} is of another row than its piece",
          p.spec->name);
    piece.parameters.push_back({in_bucket, row_first + in_row, count});
    const int64_t begin = std::max(in_row, own_first);
    const int64_t kept = std::min(in_row + count, own_end) - begin;
    if (kept > 0) {
      piece.kept.push_back({in_bucket + begin - in_row, PlaceInSum(row_first + begin, kept), kept});
      piece.own_count += kept;
    }
    in_bucket += count;
  }
  if (!piece.kept.empty()) piece.own_first = piece.kept.front().in_bucket;
  CHECK(in_bucket == plan.num_elements, "a piece of {} elements has {}", plan.num_elements,
        in_bucket);
  piece.plan = std::move(plan);
  bucket_elements_ = std::max(bucket_elements_, in_bucket);
  pieces_.push_back(std::move(piece));
}

int64_t MicrobatchGradients::PlaceInSum(int64_t first_element, int64_t num_elements) const {
  for (const KeptRun& run : kept_) {
    const int64_t in_run = first_element - run.first_element;
    if (in_run >= 0 && in_run + num_elements <= run.num_elements) return run.in_sum + in_run;
  }
  return -1;
}

TensorView MicrobatchGradients::In(const Buffer& buffer, int64_t first,
                                   int64_t num_elements) const {
  auto* bytes = const_cast<std::byte*>(buffer.data()) + first * DTypeBytes(options_.dtype);
  return {bytes, options_.dtype, {num_elements}};
}

// ---- buckets --------------------------------------------------------------------------------

std::optional<int> MicrobatchGradients::PieceOf(int unit, GradientMoment moment) const {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (pieces_[i].plan.unit == unit && pieces_[i].plan.moment == moment) {
      return static_cast<int>(i);
    }
  }
  return std::nullopt;
}

std::unique_ptr<MicrobatchGradients::Bucket> MicrobatchGradients::NewBucket() {
  if (!free_.empty()) {
    std::unique_ptr<Bucket> bucket = std::move(free_.back());
    free_.pop_back();
    bucket->memory.SetIdle(false);
    return bucket;
  }
  auto bucket = std::make_unique<Bucket>();
  const int64_t num_bytes = bucket_elements_ * DTypeBytes(options_.dtype);
  bucket->memory = options_.lent ? Buffer::Shared(ledger_, MemoryTag::kComm, num_bytes)
                                 : Buffer::Unfilled(ledger_, MemoryTag::kComm, num_bytes);
  return bucket;
}

void MicrobatchGradients::Open(const Exec& exec, int piece, int32_t microbatch) {
  const Piece& of = pieces_[static_cast<size_t>(piece)];
  std::unique_ptr<Bucket> bucket = NewBucket();
  bucket->piece = piece;
  bucket->microbatch = microbatch;
  bucket->all = In(bucket->memory, 0, of.plan.num_elements);
  bucket->own = In(bucket->memory, of.own_first, of.own_count);
  bucket->counts = of.counts;
  FillZero(exec, bucket->all);
  open_.push_back(std::move(bucket));
}

std::unique_ptr<MicrobatchGradients::Bucket> MicrobatchGradients::Close(int piece,
                                                                        int32_t microbatch) {
  const auto found = std::ranges::find_if(open_, [&](const auto& bucket) {
    return bucket->piece == piece && bucket->microbatch == microbatch;
  });
  CHECK(found != open_.end(), "piece {} of microbatch {} is not open", piece, microbatch);
  std::unique_ptr<Bucket> bucket = std::move(*found);
  open_.erase(found);
  return bucket;
}

void MicrobatchGradients::Add(const Exec& exec, std::unique_ptr<Bucket> bucket) {
  Piece& piece = pieces_[static_cast<size_t>(bucket->piece)];
  CHECK(bucket->microbatch == piece.next_microbatch, "microbatch {} is added where {} is due",
        bucket->microbatch, piece.next_microbatch);  // B2
  ++piece.next_microbatch;
  const Buffer& sum = group_.empty() ? total_ : group_;
  for (const Run& run : piece.kept) {
    const TensorView to = In(sum, run.elsewhere, run.num_elements);
    Accumulate(exec, to, In(bucket->memory, run.in_bucket, run.num_elements));
    if (group_.empty() || piece.next_microbatch % group_size_ != 0) continue;
    Accumulate(exec, In(total_, run.elsewhere, run.num_elements), to);
    FillZero(exec, to);
  }
  bucket->memory.SetIdle(true);
  free_.push_back(std::move(bucket));
}

// ---- as units and the step see it -------------------------------------------------------------

int MicrobatchGradients::AddAccumulator(int64_t first_element, int64_t num_elements) {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const auto& runs = pieces_[i].parameters;
    for (size_t first = 0; first < runs.size(); ++first) {
      if (runs[first].elsewhere != first_element) continue;
      int64_t count = 0;  // of neighbours that are together in the piece
      for (size_t r = first; r < runs.size() && runs[r].elsewhere == first_element + count; ++r) {
        count += runs[r].num_elements;
      }
      CHECK(count >= num_elements, "a product's gradient is of several pieces");
      accumulators_.push_back({static_cast<int>(i), runs[first].in_bucket, num_elements});
      return static_cast<int>(accumulators_.size()) - 1;
    }
  }
  CHECK(false, "gradients from element {} on are of no piece", first_element);
}

TensorView MicrobatchGradients::Target(const Exec&, int accumulator, int32_t microbatch) {
  const Accumulator& to = accumulators_[static_cast<size_t>(accumulator)];
  const auto bucket = std::ranges::find_if(
      open_, [&](const auto& b) { return b->piece == to.piece && b->microbatch == microbatch; });
  CHECK(bucket != open_.end(), "a gradient of microbatch {} has no bucket", microbatch);  // B1
  return In((*bucket)->memory, to.in_bucket, to.num_elements);
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

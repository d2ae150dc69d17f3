#include "actors/plan/memory_model.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <string>

#include "actors/plan/gradient_piece.h"
#include "actors/plan/kernel_memory.h"
#include "actors/plan/unit_tensors.h"
#include "runtime/base/check.h"
#include "runtime/base/slot_stride.h"

namespace troupe {
namespace {

constexpr int64_t kAlignmentBytes = 64;

int64_t Aligned(int64_t num_bytes) {
  return (num_bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
}

// Lays tensors one behind the other.
struct Cursor {
  int64_t end = 0;
  int64_t Place(int64_t num_bytes) {
    const int64_t begin = end;
    end += Aligned(num_bytes);
    return begin;
  }
};

int64_t BytesOf(TensorWidth width, const NumberWidths& widths) {
  switch (width) {
    case TensorWidth::kCompute:
      return widths.compute_bytes;
    case TensorWidth::kMaster:
      return widths.master_bytes;
    case TensorWidth::kInt32:
      return 4;
    case TensorWidth::kNarrow:
      return widths.has_compute_copy() ? widths.compute_bytes : 0;
  }
  return 0;
}

int64_t RowsOf(const LayerTensor& tensor, const BatchArithmetic& batch) {
  const int64_t tokens = batch.tokens_per_microbatch();
  switch (tensor.rows) {
    case TensorRows::kOne:
      return 1;
    case TensorRows::kToken:
      return tokens;
    case TensorRows::kContext:
      return tokens * batch.context.num_ranks;
    case TensorRows::kPosition:
      return batch.seq_len;
    case TensorRows::kChunk:
      return ChunkTokens(tensor.columns, tokens);
  }
  return 0;
}

// Without its offset.
TensorPlace Unplaced(const LayerTensor& tensor, const StageShape& s) {
  return {.name = tensor.name,
          .width = tensor.width,
          .rows = RowsOf(tensor, s.batch),
          .columns = tensor.columns};
}

int64_t BytesOf(const TensorPlace& place, const NumberWidths& widths) {
  return place.rows * std::max<int64_t>(place.columns, 1) * BytesOf(place.width, widths);
}

std::vector<LayerTensor> TensorsOf(const StageShape& s, int unit) {
  return TensorsOf(s.model.unit(unit), s.batch, s.recompute);
}

bool InStash(const LayerTensor& tensor, const StageShape& s) {
  return tensor.life == TensorLife::kStash || (tensor.life == TensorLife::kHalf && s.halves);
}

// The units' tensors of some lives, where those of one name share one place.
template <typename OfLife>
std::vector<UnitPlaces> SharedPlaces(const StageShape& s, const OfLife& of_life, Cursor& cursor) {
  const std::vector<int> units = UnitsOf(s.model, s.layout);
  std::map<std::string_view, int64_t> most_bytes;
  for (const int unit : units) {
    for (const LayerTensor& tensor : TensorsOf(s, unit)) {
      if (!of_life(tensor.life)) continue;
      int64_t& most = most_bytes[tensor.name];
      most = std::max(most, BytesOf(Unplaced(tensor, s), s.widths));
    }
  }
  std::map<std::string_view, int64_t> offsets;
  for (const auto& [name, num_bytes] : most_bytes) offsets[name] = cursor.Place(num_bytes);
  std::vector<UnitPlaces> of_units;
  for (const int unit : units) {
    UnitPlaces& places = of_units.emplace_back();
    for (const LayerTensor& tensor : TensorsOf(s, unit)) {
      TensorPlace place = Unplaced(tensor, s);
      if (!of_life(tensor.life) || BytesOf(place, s.widths) == 0) continue;
      place.offset = offsets.at(tensor.name);
      places.Add(place);
    }
  }
  return of_units;
}

}  // namespace

bool UnitPlaces::Has(std::string_view name) const {
  return std::ranges::find(places_, name, &TensorPlace::name) != places_.end();
}

const TensorPlace& UnitPlaces::Of(std::string_view name) const {
  const auto found = std::ranges::find(places_, name, &TensorPlace::name);
  CHECK(found != places_.end(), "the unit has no {} here", name);
  return *found;
}

Result<NumberWidths> WidthsOf(std::string_view dtype) {
  if (dtype == "float32") return NumberWidths{};
  if (dtype == "bfloat16") return NumberWidths{.compute_bytes = 2};
  return MakeError(ErrorCode::kInvalidSpec, "train.dtype = {}: use float32 or bfloat16",
                   std::string(dtype));
}

int64_t BoundaryBytes(const BatchArithmetic& batch, int64_t hidden_size,
                      const NumberWidths& widths) {
  return batch.tokens_per_microbatch() * hidden_size * widths.compute_bytes;
}

StashLayout StashLayoutOf(const StageShape& s) {
  Cursor cursor;
  StashLayout stash;
  for (const int unit : UnitsOf(s.model, s.layout)) {
    UnitPlaces& of_unit = stash.units.emplace_back();
    for (const LayerTensor& tensor : TensorsOf(s, unit)) {
      const bool of_batch = tensor.life == TensorLife::kBatch;
      if (of_batch ? stash.batch.Has(tensor.name) : !InStash(tensor, s)) continue;
      UnitPlaces& places = of_batch ? stash.batch : of_unit;
      TensorPlace place = Unplaced(tensor, s);
      place.offset = cursor.Place(BytesOf(place, s.widths));
      places.Add(place);
    }
  }
  stash.num_bytes = cursor.end;
  return stash;
}

WorkspaceLayout WorkspaceLayoutOf(const StageShape& s, int64_t kernel_bytes) {
  WorkspaceLayout work;
  Cursor of_action;
  Cursor of_all;
  const auto in_workspace = [](TensorLife life) {
    return life == TensorLife::kHalf || life == TensorLife::kWorkspace;
  };
  work.units = SharedPlaces(s, in_workspace, of_action);
  work.constants = SharedPlaces(
      s, [](TensorLife life) { return life == TensorLife::kConstant; }, of_all);
  work.kernels = of_all.Place(kernel_bytes);
  work.action_bytes = of_action.end;
  work.shared_bytes = of_all.end;
  return work;
}

int64_t GradientElements(const ParameterTable& table, const StageLayout& layout,
                         const ShardPlace& place) {
  const std::vector<int64_t> owned = OwnedByParameter(table, layout, place);
  int64_t elements = 0;
  for (const int unit : UnitsOf(table.model(), layout)) {
    for (const int index : table.OfUnit(unit)) elements += owned[static_cast<size_t>(index)];
  }
  return elements;
}

namespace {

// What products read of weights is whole, but where units come and go.
int64_t ParameterBytes(const ParameterTable& table, const PredictionInputs& in) {
  const NumberWidths& widths = in.shape.widths;
  const int64_t owned = OwnedElements(table, in.shape.layout, in.shards);
  const int64_t read = in.shape.gathers_units() ? owned : OwnedElements(table, in.shape.layout, {});
  if (!widths.has_compute_copy()) return read * widths.master_bytes;
  return owned * widths.master_bytes + read * widths.compute_bytes;
}

// The sum over the step, and where groups of several microbatches are summed the group at work.
int64_t GradientBytes(const ParameterTable& table, const PredictionInputs& in) {
  const BatchArithmetic& batch = in.shape.batch;
  const bool each = batch.grad_reduce == GradReduce::kMicrobatch;
  const bool in_bucket = in.shape.has_buckets() && batch.gradient_groups == batch.num_microbatches;
  const int sums = batch.gradient_groups > 1 && !in_bucket ? 2 : 1;
  return sums * in.shape.widths.grad_bytes *
         GradientElements(table, in.shape.layout, each ? in.shards : ShardPlace{});
}

int64_t BucketBytes(const ParameterTable& table, const PredictionInputs& in) {
  const StageShape& s = in.shape;
  if (!s.has_buckets()) return 0;
  const bool reduced =
      s.batch.weight_replicas() > 1 && s.batch.grad_reduce == GradReduce::kMicrobatch;
  // Between two parts of a weight gradient a bucket may stay open: of each microbatch one.
  const int at_once = s.weight_parts ? in.peak_microbatches + 1 : 1;
  return (reduced ? kGradientBuckets : at_once) * s.widths.master_bytes *
         BucketElements(table, s.layout, s.halves, in.shards);
}

}  // namespace

MemoryPrediction PredictMemory(const ParameterTable& table, const PredictionInputs& in) {
  const StageShape& s = in.shape;
  const int64_t boundary = BoundaryBytes(s.batch, s.model.config.hidden_size, s.widths);
  MemoryPrediction bytes{};
  const auto at = [&bytes](MemoryTag tag) -> int64_t& { return bytes[static_cast<size_t>(tag)]; };
  at(MemoryTag::kParams) = ParameterBytes(table, in);
  at(MemoryTag::kGrads) = GradientBytes(table, in);
  at(MemoryTag::kOptimizer) = OwnedElements(table, s.layout, in.shards) * 2 * s.widths.master_bytes;
  at(MemoryTag::kActivations) = StashLayoutOf(s).num_bytes * in.peak_microbatches;
  at(MemoryTag::kComm) = SlotStrideBytes(boundary) * in.receive_slots +
                         boundary * in.outputs_in_flight + in.shared_bytes + BucketBytes(table, in);
  at(MemoryTag::kWorkspace) =
      WorkspaceLayoutOf(s, KernelScratchBytes(s, in.isa)).num_bytes(s.open_actions) +
      (s.gathers_units() ? 0 : PackedWeightsBytes(s, in.isa));
  return bytes;
}

namespace {

int64_t SumOfLargest(std::vector<int64_t> bytes, size_t count) {
  std::ranges::sort(bytes, std::greater());
  bytes.resize(std::min(bytes.size(), count));
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

}  // namespace

MemoryPrediction PredictGatheredUnits(const ParameterTable& table,
                                      std::span<const StageShape> stages, VectorIsa isa) {
  std::vector<int64_t> gathered, packed;  // of stages whose units come and go
  int64_t all_gathered = 0;               // of stages all of whose units are there
  int64_t all_packed = 0;
  size_t live = 0;
  for (const StageShape& s : stages) {
    std::vector<int64_t> of_units, packed_of_units;
    for (const int unit : UnitsOf(s.model, s.layout)) {
      int64_t& of_unit = of_units.emplace_back(0);
      for (const int index : table.OfUnit(unit)) {
        if (Persists(table, index, s.zero.persist_elements)) continue;
        of_unit += table[index].num_elements() * s.widths.compute_bytes;
      }
      packed_of_units.push_back(PackedWeightsBytes(s, unit, isa));
    }
    if (s.unshards || !s.zero.reshard_after_forward) {
      all_gathered += std::accumulate(of_units.begin(), of_units.end(), int64_t{0});
      all_packed += std::accumulate(packed_of_units.begin(), packed_of_units.end(), int64_t{0});
      continue;
    }
    std::ranges::copy(of_units, std::back_inserter(gathered));
    std::ranges::copy(packed_of_units, std::back_inserter(packed));
    // The embedding and the first layer are at work together.
    const int least = s.layout.has_embedding() ? 2 : 1;
    const int of_action = std::max(least, s.zero.prefetch + 1);
    live = std::max(live, static_cast<size_t>(of_action * s.open_actions));
  }
  MemoryPrediction bytes{};
  bytes[static_cast<size_t>(MemoryTag::kComm)] =
      all_gathered + SumOfLargest(std::move(gathered), live);
  bytes[static_cast<size_t>(MemoryTag::kWorkspace)] =
      all_packed + SumOfLargest(std::move(packed), live);
  return bytes;
}

}  // namespace troupe

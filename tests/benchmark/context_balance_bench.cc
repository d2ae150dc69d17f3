// Simulated: ring attention among eight workers under each sequence layout, of block times that are
// measured here, on one thread: how much of N times one worker's speed comes of it. Hops cost
// nothing. Beside it the published figures of the same comparison, forward and backward together on
// eight H800 (the README of ring-flash-attention): contiguous 53.9 %, striped 82.9 %, zigzag 90.2 %
// of what one device's speed promises.
#include <omp.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "actors/plan/context_balance.h"
#include "kernels/attention.h"
#include "tests/benchmark/bare_product.h"
#include "tests/benchmark/bench.h"
#include "tests/benchmark/tensor.h"

namespace troupe {
namespace {

constexpr int kWorkers = 8;
constexpr int64_t kLocalLength = 512;  // positions of a worker
constexpr int64_t kSeqLen = kWorkers * kLocalLength;
constexpr int64_t kHeads = 2, kKvHeads = 1, kHeadDim = 64;
constexpr int kRounds = 5;
constexpr int kTries = 3;  // of a time, the least of which counts

struct LayoutRow {
  SequenceLayout layout;
  double published;  // per cent of ideal
};
constexpr std::array<LayoutRow, 3> kLayouts = {{{SequenceLayout::kContiguous, 53.9},
                                                {SequenceLayout::kStriped, 82.9},
                                                {SequenceLayout::kZigzag, 90.2}}};
std::string NameOf(const LayoutRow& row) { return std::string(SequenceLayoutName(row.layout)); }

// How many times as fast one layout is as another, at least.
struct Distance {
  size_t layout;  // in kLayouts
  size_t than;
  double least;
};
constexpr Distance kDistances[] = {{1, 0, 1.4}, {2, 0, 1.6}, {2, 1, 1.0}};

using bench::Tensor;

template <typename Call>
double LeastUs(const Call& call) {
  double least = bench::MicrosecondsOf(call);
  for (int i = 1; i < kTries; ++i) least = std::min(least, bench::MicrosecondsOf(call));
  return least;
}

// Forward and backward of one layer's attention: so many queries with as many keys.
class TimedAttention {
 public:
  TimedAttention(DType dtype, int64_t length)
      : length_(length),
        q_(dtype, {length, kHeads, kHeadDim}),
        k_(dtype, {length, kKvHeads, kHeadDim}),
        v_(dtype, {length, kKvHeads, kHeadDim}),
        out_(dtype, {length, kHeads, kHeadDim}),
        dout_(dtype, {length, kHeads, kHeadDim}),
        lse_(DType::kFloat32, {1, kHeads, length}),
        dq_(dtype, {length, kHeads, kHeadDim}),
        dk_(dtype, {length, kKvHeads, kHeadDim}),
        dv_(dtype, {length, kKvHeads, kHeadDim}),
        acc_(DType::kFloat32, {length, kHeads, kHeadDim}),
        max_(DType::kFloat32, {1, kHeads, length}),
        sum_(DType::kFloat32, {1, kHeads, length}),
        dq_sum_(DType::kFloat32, {length, kHeads, kHeadDim}),
        dk_sum_(DType::kFloat32, {length, kKvHeads, kHeadDim}),
        dv_sum_(DType::kFloat32, {length, kKvHeads, kHeadDim}),
        workspace_(AttentionWorkspaceBytes(Shape())) {
    exec_.workspace = workspace_.bytes();
    Forward(Shape());  // what backward reads
    ResetAttention(exec_, accumulators());
  }

  // A whole sequence, of which each query sees what is before it.
  double WholeUs() {
    return LeastUs([&] {
      Forward(Shape());
      AttentionBackward(exec_, Shape(), Gradients(dq_, dk_, dv_));
    });
  }
  // A block of a ring, which adds to what came before it.
  double BlockUs(const KeyRanges& ranges) {
    AttentionShape shape = Shape();
    shape.mask = AttentionMask::kRanges;
    shape.first_key = ranges.first_key;
    shape.end_key = ranges.end_key;
    AttentionBackwardArgs gradients = Gradients(dq_sum_, dk_sum_, dv_sum_);
    gradients.accumulate_dq = true;
    gradients.accumulate_dkv = true;
    return LeastUs([&] {
      AttendBlock(exec_, shape, accumulators(), {.q = q_.view, .k = k_.view, .v = v_.view});
      AttentionBackward(exec_, shape, gradients);
    });
  }

 private:
  AttentionShape Shape() const {
    return {.query_len = length_,
            .key_len = length_,
            .num_heads = kHeads,
            .num_kv_heads = kKvHeads,
            .head_dim = kHeadDim};
  }
  void Forward(const AttentionShape& shape) {
    AttentionForward(
        exec_, shape,
        {.out = out_.view, .lse = lse_.view, .q = q_.view, .k = k_.view, .v = v_.view});
  }
  AttentionAccumulators accumulators() {
    return {.acc = acc_.view, .max = max_.view, .sum = sum_.view};
  }
  AttentionBackwardArgs Gradients(const Tensor& dq, const Tensor& dk, const Tensor& dv) {
    return {.dq = dq.view,
            .dk = dk.view,
            .dv = dv.view,
            .dout = dout_.view,
            .q = q_.view,
            .k = k_.view,
            .v = v_.view,
            .out = out_.view,
            .lse = lse_.view};
  }

  const int64_t length_;
  Tensor q_, k_, v_, out_, dout_, lse_, dq_, dk_, dv_;
  Tensor acc_, max_, sum_, dq_sum_, dk_sum_, dv_sum_;
  bench::Memory workspace_;
  Exec exec_{};
};

// Microseconds of every worker's hops. A layout has three kinds of block: of a worker's own keys,
// of those of a worker before it, and after it.
HopWork TimesOf(const ContextParallel& context, TimedAttention& block) {
  const auto time = [&](int queries, int keys) {
    const KeyRanges ranges =
        CausalRanges(PositionsOf(context, queries, kSeqLen), PositionsOf(context, keys, kSeqLen));
    return ranges.num_pairs > 0 ? block.BlockUs(ranges) : 0.0;
  };
  const double own = time(0, 0), before = time(1, 0), after = time(0, 1);
  HopWork work(kWorkers);
  for (int rank = 0; rank < kWorkers; ++rank) {
    for (int hop = 0; hop < kWorkers; ++hop) {
      const int origin = OriginAfter(kWorkers, rank, hop);
      work[static_cast<size_t>(rank)].push_back(origin == rank  ? own
                                                : origin < rank ? before
                                                                : after);
    }
  }
  return work;
}

// Of a layout, per cent of N times one worker's speed; a sample a round.
using Shares = std::vector<double>;

std::array<Shares, kLayouts.size()> MeasureShares(DType dtype) {
  std::array<Shares, kLayouts.size()> shares;
  TimedAttention whole(dtype, kSeqLen);
  TimedAttention block(dtype, kLocalLength);
  for (int round = 0; round < kRounds; ++round) {
    const double ideal_us = whole.WholeUs() / kWorkers;
    for (size_t i = 0; i < kLayouts.size(); ++i) {
      const HopWork work = TimesOf({.num_ranks = kWorkers, .layout = kLayouts[i].layout}, block);
      shares[i].push_back(100 * ideal_us / CriticalPath(ContextMethod::kRing, work));
    }
  }
  return shares;
}

bench::Row RowOf(const std::string& name, const std::string& unit, double published) {
  return {.what = {.name = "cp_balance/" + name,
                   .unit = unit,
                   .peer_name = "published, 8 H800",
                   .higher_is_better = true},
          .peer = {published}};
}

TROUPE_BENCHMARK(ContextBalance) {
  omp_set_num_threads(1);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const char* suffix = dtype == DType::kFloat32 ? "/f32" : "/bf16";
    const auto shares = MeasureShares(dtype);
    for (size_t i = 0; i < kLayouts.size(); ++i) {
      bench::Row row = RowOf(NameOf(kLayouts[i]) + suffix, "% of ideal", kLayouts[i].published);
      row.ours = shares[i];
      bench.Report(row);
    }
    for (const Distance& distance : kDistances) {
      const LayoutRow &layout = kLayouts[distance.layout], &than = kLayouts[distance.than];
      const double published = layout.published / than.published;
      bench::Row row = RowOf(NameOf(layout) + "/" + NameOf(than) + suffix, "times", published);
      row.what.goal = distance.least / published;
      for (size_t round = 0; round < kRounds; ++round) {
        row.ours.push_back(shares[distance.layout][round] / shares[distance.than][round]);
      }
      bench.Report(row);
    }
  }
}

}  // namespace
}  // namespace troupe

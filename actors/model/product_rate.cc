#include "actors/model/product_rate.h"

#include <algorithm>
#include <limits>

#include "runtime/memory/buffer.h"

namespace troupe {
namespace {

constexpr int kRuns = 5;

}  // namespace

double MeasureProductRate(const MatmulShape& shape, int num_threads, const Clock& clock) {
  const auto cut = [](int64_t extent) { return std::clamp<int64_t>(extent, 1, kRateDimensionMax); };
  const MatmulShape timed{.tokens = cut(shape.tokens),
                          .in = cut(shape.in),
                          .out = cut(shape.out),
                          .dtype = shape.dtype};
  MemoryLedger ledger;
  const auto bytes = [&](int64_t num_bytes) {
    return Buffer(ledger, MemoryTag::kWorkspace, num_bytes);
  };
  const int64_t element = DTypeBytes(timed.dtype);
  Buffer x = bytes(timed.tokens * timed.in * element);
  Buffer weight = bytes(timed.out * timed.in * element);
  Buffer y = bytes(timed.tokens * timed.out * element);
  Buffer workspace = bytes(MatmulWorkspaceBytes(timed, num_threads));
  Buffer packed = bytes(PackedWeightBytes(timed, WeightUse::kForward));
  const Exec exec{.num_threads = num_threads, .workspace = workspace.bytes()};
  const TensorView w(weight.data(), timed.dtype, {timed.out, timed.in});
  const PackedWeight ready = PackWeight(exec, timed, WeightUse::kForward, w, packed.bytes());
  int64_t least_ns = std::numeric_limits<int64_t>::max();
  for (int run = 0; run <= kRuns; ++run) {
    const int64_t start_ns = clock.NowNs();
    MatmulForward(exec, TensorView(y.data(), timed.dtype, {timed.tokens, timed.out}),
                  ConstTensorView(x.data(), timed.dtype, {timed.tokens, timed.in}), ready);
    if (run > 0) least_ns = std::min(least_ns, clock.NowNs() - start_ns);
  }
  const double flops = 2.0 * static_cast<double>(timed.tokens) * static_cast<double>(timed.in) *
                       static_cast<double>(timed.out);
  return flops * 1e9 / static_cast<double>(std::max<int64_t>(least_ns, 1));
}

}  // namespace troupe

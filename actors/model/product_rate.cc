#include "actors/model/product_rate.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "runtime/memory/buffer.h"

namespace troupe {
namespace {

constexpr int kRuns = 5;

}  // namespace

void FillOperand(DType dtype, std::span<std::byte> operand) {
  // Sign and mantissa of one float32 or of two bfloat16 are taken from the generator.
  const bool halves = dtype == DType::kBFloat16;
  const uint32_t random_bits = halves ? 0x807f807f : 0x807fffff;
  const uint32_t one = halves ? 0x3f803f80 : 0x3f800000;
  uint32_t word = 1;
  for (size_t at = 0; at < operand.size(); at += sizeof(word)) {
    word ^= word << 13;
    word ^= word >> 17;
    word ^= word << 5;
    const uint32_t numbers = (word & random_bits) | one;
    std::memcpy(&operand[at], &numbers, std::min(sizeof(numbers), operand.size() - at));
  }
}

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
  FillOperand(timed.dtype, x.bytes());
  FillOperand(timed.dtype, weight.bytes());
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

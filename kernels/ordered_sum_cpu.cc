#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/cpu/vector_bodies.h"
#include "kernels/ordered_sum.h"

namespace troupe {
namespace {

// Long enough for vectors, short enough that the sums stay in the first cache.
constexpr int64_t kPiece = 512;

template <typename T>
T Load(const void* from, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(from) + index * int64_t{sizeof(T)}, sizeof(T));
  return value;
}

template <typename T>
void Store(void* to, int64_t index, T value) {
  std::memcpy(static_cast<char*>(to) + index * int64_t{sizeof(T)}, &value, sizeof(T));
}

// T as stored, Sum as added. Halves round each time.
template <typename T, typename Sum>
T Added(T sum, T value) {
  return static_cast<T>(static_cast<Sum>(sum) + static_cast<Sum>(value));
}

// In one pass, with the sums in registers.
template <typename T, typename Sum, int kNumInputs>
void SumOfFew(void* out, const void* const* inputs, int64_t count) {
  std::array<const void*, kNumInputs> from;
  std::copy_n(inputs, kNumInputs, from.begin());
#pragma GCC ivdep  // `out` is an input or overlaps none: an element's inputs are read before it
  for (int64_t i = 0; i < count; ++i) {
    T sum = Load<T>(from[0], i);
    for (int input = 1; input < kNumInputs; ++input) {
      sum = Added<T, Sum>(sum, Load<T>(from[static_cast<size_t>(input)], i));
    }
    Store<T>(out, i, sum);
  }
}

template <typename T, typename Sum>
void SumOfMany(void* out, const void* const* inputs, int num_inputs, int64_t count) {
  T sums[kPiece];
  for (int64_t first = 0; first < count; first += kPiece) {
    const int64_t length = std::min(kPiece, count - first);
    for (int64_t i = 0; i < length; ++i) sums[i] = Load<T>(inputs[0], first + i);
    for (int input = 1; input < num_inputs; ++input) {
      const void* from = inputs[input];
      for (int64_t i = 0; i < length; ++i) {
        sums[i] = Added<T, Sum>(sums[i], Load<T>(from, first + i));
      }
    }
    for (int64_t i = 0; i < length; ++i) Store<T>(out, first + i, sums[i]);
  }
}

template <typename T, typename Sum>
void SumOf(void* out, const void* const* inputs, int num_inputs, int64_t count) {
  switch (num_inputs) {
    case 2:
      return SumOfFew<T, Sum, 2>(out, inputs, count);
    case 3:
      return SumOfFew<T, Sum, 3>(out, inputs, count);
    case 4:
      return SumOfFew<T, Sum, 4>(out, inputs, count);
    case 8:
      return SumOfFew<T, Sum, 8>(out, inputs, count);
    default:
      return SumOfMany<T, Sum>(out, inputs, num_inputs, count);
  }
}

void SumOfBFloat16(void* out, const void* const* inputs, int num_inputs, int64_t count) {
  if (const VectorBodies* fast = VectorBodiesFor(ThisCpu())) {
    return fast->ordered_sum_bf16(out, inputs, num_inputs, count);
  }
  SumOf<bfloat16, float>(out, inputs, num_inputs, count);
}

}  // namespace

float16::float16(float value) {
  const uint32_t word = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (word >> 16) & 0x8000u;
  const uint32_t magnitude = word & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // not a number: made quiet
    bits = static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  } else if (magnitude >= 0x477ff000u) {  // 65520 and more round to infinity
    bits = static_cast<uint16_t>(sign | 0x7c00u);
  } else if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24
    // Adding 0.5, whose last bit is worth 2^-24, rounds to such a multiple.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000u));
  } else {
    const uint32_t odd = (magnitude >> 13) & 1u;
    bits = static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
  }
}

float16::operator float() const {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude << 13));
  // 2^112 moves the exponent from half's bias to float's, below the normal range too.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

OrderedSum OrderedSumOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return &SumOf<float, float>;
    case DType::kBFloat16:
      return &SumOfBFloat16;
    case DType::kFloat64:
      return &SumOf<double, double>;
    case DType::kInt32:
      return &SumOf<uint32_t, uint32_t>;
    case DType::kFloat16:
      return &SumOf<float16, float>;
    case DType::kInt64:
      return &SumOf<uint64_t, uint64_t>;
  }
  KERNEL_CHECK(false, "a dtype without a sum");
}

}  // namespace troupe

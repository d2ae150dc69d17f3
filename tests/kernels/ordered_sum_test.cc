#include "kernels/ordered_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace troupe {
namespace {

template <typename T>
T Sum(DType dtype, const std::vector<T>& terms) {
  std::vector<const void*> inputs;
  for (const T& term : terms) inputs.push_back(&term);
  T out{};
  OrderedSumOf(dtype)(&out, inputs.data(), static_cast<int>(inputs.size()), 1);
  return out;
}

TEST(OrderedSum, TheOrderIsThatOfTheInputs) {
  EXPECT_EQ(Sum<float>(DType::kFloat32, {1e8f, 1.0f, -1e8f}), 0.0f);
  EXPECT_EQ(Sum<float>(DType::kFloat32, {1e8f, -1e8f, 1.0f}), 1.0f);
  EXPECT_EQ(Sum<double>(DType::kFloat64, {1e17, 1.0, -1e17}), 0.0);
}

TEST(OrderedSum, IntegersWrap) {
  constexpr auto kMax = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(Sum<int32_t>(DType::kInt32, {kMax, 1, -5}), kMax - 4);
  EXPECT_EQ(Sum<int32_t>(DType::kInt32, {kMax, 1}), std::numeric_limits<int32_t>::min());
  EXPECT_EQ(Sum<int64_t>(DType::kInt64, {int64_t{1} << 40, 1}), (int64_t{1} << 40) + 1);
}

// 1 + 2^-9 is 1 in bfloat16, however often it is added; begun with, the small ones count.
TEST(OrderedSum, HalvesRoundEachSum) {
  const bfloat16 tiny(0x1p-9f);
  std::vector<bfloat16> terms = {bfloat16(1.0f), tiny, tiny, tiny, tiny};
  EXPECT_EQ(static_cast<float>(Sum(DType::kBFloat16, terms)), 1.0f);
  std::ranges::reverse(terms);
  EXPECT_EQ(static_cast<float>(Sum(DType::kBFloat16, terms)), 1.0f + 0x1p-7f);
  const float16 small(0x1p-12f);
  std::vector<float16> halves = {float16(1.0f), small, small, small, small};
  EXPECT_EQ(static_cast<float>(Sum(DType::kFloat16, halves)), 1.0f);
  std::ranges::reverse(halves);
  EXPECT_EQ(static_cast<float>(Sum(DType::kFloat16, halves)), 1.0f + 0x1p-10f);
}

// One input after the other into a sum of the same dtype.
template <typename T>
void ExpectOneAfterTheOther(DType dtype) {
  for (const size_t num_inputs : {2, 3, 4, 5, 8, 9}) {
    std::vector<std::vector<T>> inputs(num_inputs);
    std::vector<const void*> all;
    for (size_t input = 0; input < num_inputs; ++input) {
      for (size_t i = 0; i < 700; ++i) {
        inputs[input].push_back(
            T(std::sin(static_cast<float>(i + 1000 * input)) * (input % 3 == 1 ? 1000.0F : 0.1F)));
      }
      all.push_back(inputs[input].data());
    }
    std::vector<T> sum = inputs[0];
    for (size_t input = 1; input < num_inputs; ++input) {
      const void* two[] = {sum.data(), all[input]};
      OrderedSumOf(dtype)(sum.data(), two, 2, 700);
    }
    std::vector<T> out(700);
    OrderedSumOf(dtype)(out.data(), all.data(), static_cast<int>(num_inputs), 700);
    EXPECT_EQ(std::memcmp(out.data(), sum.data(), 700 * sizeof(T)), 0)
        << DTypeName(dtype) << ", " << num_inputs << " inputs";
  }
}

TEST(OrderedSum, HasTheBitsOfASumTakenOneInputAfterTheOther) {
  ExpectOneAfterTheOther<float>(DType::kFloat32);
  ExpectOneAfterTheOther<bfloat16>(DType::kBFloat16);
  ExpectOneAfterTheOther<float16>(DType::kFloat16);
}

// Any length and number of inputs, no alignment, and the output may be any of the inputs.
template <typename T, typename Serial>
void ExpectSerialSums(DType dtype, T (*value)(size_t input, size_t i), Serial serial) {
  constexpr size_t kCount = 1700;
  for (size_t num_inputs = 1; num_inputs <= 10; ++num_inputs) {
    for (const int64_t count : {0, 1, 15, 511, 512, 513, 1700}) {
      std::vector<std::vector<char>> bytes(num_inputs, std::vector<char>(kCount * sizeof(T) + 1));
      std::vector<const void*> inputs;
      for (size_t input = 0; input < num_inputs; ++input) {
        char* first = bytes[input].data() + input % 2;
        for (size_t i = 0; i < kCount; ++i) {
          const T element = value(input, i);
          std::memcpy(first + i * sizeof(T), &element, sizeof(T));
        }
        inputs.push_back(first);
      }
      const size_t place = static_cast<size_t>(count) % num_inputs;
      char* out = bytes[place].data() + place % 2;
      OrderedSumOf(dtype)(out, inputs.data(), static_cast<int>(num_inputs), count);
      for (size_t i = 0; i < kCount; ++i) {
        const T expected =
            static_cast<int64_t>(i) < count ? serial(value, num_inputs, i) : value(place, i);
        ASSERT_EQ(std::memcmp(out + i * sizeof(T), &expected, sizeof(T)), 0)
            << DTypeName(dtype) << ", " << num_inputs << " inputs, element " << i;
      }
    }
  }
}

TEST(OrderedSum, AnElementHasTheSameBitsWhereverItLies) {
  ExpectSerialSums<float>(
      DType::kFloat32,
      [](size_t input, size_t i) {
        return std::sin(static_cast<float>(i)) * (input % 3 == 1 ? 1000.0F : 0.1F);
      },
      [](auto value, size_t num_inputs, size_t i) {
        float sum = value(0, i);
        for (size_t input = 1; input < num_inputs; ++input) sum += value(input, i);
        return sum;
      });
  ExpectSerialSums<bfloat16>(
      DType::kBFloat16,
      [](size_t input, size_t i) {
        return bfloat16(std::cos(static_cast<float>(i)) * (input % 3 == 1 ? 1000.0F : 0.1F));
      },
      [](auto value, size_t num_inputs, size_t i) {
        bfloat16 sum = value(0, i);
        for (size_t input = 1; input < num_inputs; ++input) {
          sum = bfloat16(static_cast<float>(sum) + static_cast<float>(value(input, i)));
        }
        return sum;
      });
}

TEST(Float16, EveryValueComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    float16 half;
    half.bits = static_cast<uint16_t>(bits);
    const float value = half;
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(float16(value))));
    } else {
      EXPECT_EQ(float16(value).bits, bits);
    }
  }
}

TEST(Float16, RoundsToNearestEven) {
  EXPECT_EQ(float16(1.0f + 0x1p-11f).bits, float16(1.0f).bits);
  EXPECT_EQ(float16(1.0f + 0x1.8p-10f).bits, float16(1.0f + 0x1p-9f).bits);
  EXPECT_EQ(float16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(float16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(float16(0x1p-25f).bits, 0);    // a tie, to even
  EXPECT_EQ(float16(0x1.8p-24f).bits, 2);  // a tie, to even
  EXPECT_EQ(float16(0x1.000002p-25f).bits, 1);
  EXPECT_EQ(float16(-0.0f).bits, 0x8000);
}

}  // namespace
}  // namespace troupe

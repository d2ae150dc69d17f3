// Operands of the kernels' benchmarks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "kernels/tensor_view.h"

namespace troupe::bench {

// 64-byte aligned zeros.
class Memory {
 public:
  explicit Memory(int64_t num_bytes) : lines_(static_cast<size_t>(num_bytes / 64 + 1)) {}
  std::byte* data() { return lines_.data()->bytes; }
  std::span<std::byte> bytes() { return {data(), lines_.size() * 64}; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  std::vector<Line> lines_;
};

// Small numbers in it, other ones side by side.
struct Tensor {
  Tensor(DType dtype, std::initializer_list<int64_t> shape)
      : memory(BytesOf(dtype, shape)), view(memory.data(), dtype, shape) {
    for (int64_t i = 0; i < view.num_elements(); ++i) {
      const float value = static_cast<float>(i * 37 % 101 - 50) * 0.02f;
      if (dtype == DType::kFloat32) view.as<float>()[i] = value;
      if (dtype == DType::kBFloat16) view.as<bfloat16>()[i] = bfloat16(value);
    }
  }
  Tensor(DType dtype, int64_t rows, int64_t columns) : Tensor(dtype, {rows, columns}) {}

  Memory memory;
  TensorView view;

 private:
  static int64_t BytesOf(DType dtype, std::initializer_list<int64_t> shape) {
    int64_t elements = 1;
    for (const int64_t extent : shape) elements *= extent;
    return elements * DTypeBytes(dtype);
  }
};

}  // namespace troupe::bench

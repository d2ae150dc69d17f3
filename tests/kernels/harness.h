// What the kernel tests share: tensors that own their elements (rows may be padded, so that views
// are strided), comparison with a tolerance that each op declares, and central differences.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/specification.h"
#include "kernels/exec.h"

namespace troupe::kernel_test {

// Largest error of an op against its float64 specification on the same inputs, as a share of the
// largest magnitude of the result.
struct Tolerance {
  double float32 = 1e-6;
  double bfloat16 = 5e-3;  // one rounding is 2^-9 = 2e-3

  double Of(DType dtype) const { return dtype == DType::kBFloat16 ? bfloat16 : float32; }
};

// Owns 64-byte aligned elements. `padding` elements follow every row and hold a canary.
class TestTensor {
 public:
  TestTensor() = default;
  TestTensor(DType dtype, std::initializer_list<int64_t> shape, int64_t padding = 0)
      : dtype_(dtype), shape_(shape), padding_(padding) {
    Allocate();
  }
  TestTensor(const TestTensor& other) : TestTensor(other, other.dtype_, other.padding_) {}
  TestTensor(TestTensor&&) = default;
  TestTensor& operator=(TestTensor&&) = default;

  // A copy of another dtype and padding, values rounded.
  TestTensor(const TestTensor& other, DType dtype, int64_t padding)
      : dtype_(dtype), shape_(other.shape_), padding_(padding) {
    Allocate();
    for (int64_t row = 0; row < rows(); ++row) {
      for (int64_t column = 0; column < columns(); ++column) {
        Set(row, column, other.At(row, column));
      }
    }
  }
  TestTensor As(DType dtype, int64_t padding = 0) const {
    return TestTensor(*this, dtype, padding);
  }

  TestTensor& Normal(uint32_t seed, double scale = 1.0) {
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal(0.0, scale);
    for (int64_t row = 0; row < rows(); ++row) {
      for (int64_t column = 0; column < columns(); ++column) Set(row, column, normal(engine));
    }
    return *this;
  }
  TestTensor& Integers(uint32_t seed, int32_t end) {
    std::mt19937 engine(seed);
    auto* data = static_cast<int32_t*>(static_cast<void*>(bytes_.get()));
    for (int64_t i = 0; i < rows() * columns(); ++i) {
      data[i] = static_cast<int32_t>(engine() % static_cast<uint32_t>(end));
    }
    return *this;
  }

  TensorView view() const {
    const int64_t stride = columns() + padding_;
    void* data = bytes_.get();
    switch (shape_.size()) {
      case 1:
        return TensorView(data, dtype_, {shape_[0]});
      case 2:
        return TensorView(data, dtype_, {shape_[0], shape_[1]}, stride);
      default:
        return TensorView(data, dtype_, {shape_[0], shape_[1], shape_[2]}, stride);
    }
  }
  operator TensorView() const { return view(); }
  operator ConstTensorView() const { return view(); }

  DType dtype() const { return dtype_; }
  int64_t rows() const { return shape_.empty() ? 0 : shape_[0]; }
  int64_t columns() const {
    int64_t product = 1;
    for (size_t i = 1; i < shape_.size(); ++i) product *= shape_[i];
    return product;
  }
  double At(int64_t row, int64_t column = 0) const { return Read<double>(view(), row, column); }
  void Set(int64_t row, int64_t column, double value) { Write(view(), row, column, value); }
  double LargestMagnitude() const {
    double largest = 0;
    for (int64_t row = 0; row < rows(); ++row) {
      for (int64_t column = 0; column < columns(); ++column) {
        largest = std::max(largest, std::abs(At(row, column)));
      }
    }
    return largest;
  }
  // True while nothing has written between the rows.
  bool PaddingIsIntact() const {
    const int64_t item = DTypeBytes(dtype_);
    for (int64_t row = 0; row < rows(); ++row) {
      const auto* first = bytes_.get() + (row * (columns() + padding_) + columns()) * item;
      for (int64_t i = 0; i < padding_ * item; ++i) {
        if (first[i] != kCanary) return false;
      }
    }
    return true;
  }
  bool SameBytes(const TestTensor& other) const {
    for (int64_t row = 0; row < rows(); ++row) {
      for (int64_t column = 0; column < columns(); ++column) {
        const double a = At(row, column), b = other.At(row, column);
        if (std::memcmp(&a, &b, sizeof(a)) != 0) return false;
      }
    }
    return dtype_ == other.dtype_ && shape_ == other.shape_;
  }

 private:
  static constexpr std::byte kCanary{0x5a};

  void Allocate() {
    const auto size = static_cast<size_t>(rows() * (columns() + padding_) * DTypeBytes(dtype_));
    // One item past the end is out of bounds for the address sanitizer, hence no rounding up.
    bytes_.reset(static_cast<std::byte*>(::operator new[](std::max<size_t>(size, 1), kAlignment)));
    std::fill_n(bytes_.get(), size, kCanary);
    for (int64_t row = 0; row < rows(); ++row) {
      for (int64_t column = 0; column < columns() && dtype_ != DType::kInt32; ++column) {
        Set(row, column, 0.0);
      }
    }
  }

  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete[](bytes, kAlignment); }
  };
  DType dtype_ = DType::kFloat32;
  std::vector<int64_t> shape_;
  int64_t padding_ = 0;
  std::unique_ptr<std::byte[], Free> bytes_;
};

// An Exec with workspace of its own.
struct TestExec {
  explicit TestExec(int64_t workspace_bytes = 0, int num_threads = 1)
      : memory(DType::kInt32, {workspace_bytes / 4 + 1}) {
    exec.num_threads = num_threads;
    exec.workspace = {static_cast<std::byte*>(memory.view().data()),
                      static_cast<size_t>(workspace_bytes)};
  }
  TestExec& Specification() {
    exec.specification = true;
    return *this;
  }
  operator const Exec&() const { return exec; }

  TestTensor memory;
  Exec exec;
};

inline void ExpectClose(const TestTensor& result, const TestTensor& reference,
                        const Tolerance& tolerance, const std::string& what) {
  ASSERT_EQ(result.rows(), reference.rows()) << what;
  ASSERT_EQ(result.columns(), reference.columns()) << what;
  const double bound = tolerance.Of(result.dtype()) * std::max(reference.LargestMagnitude(), 1e-30);
  for (int64_t row = 0; row < result.rows(); ++row) {
    for (int64_t column = 0; column < result.columns(); ++column) {
      const double error = std::abs(result.At(row, column) - reference.At(row, column));
      ASSERT_LE(error, bound) << what << " at (" << row << ", " << column
                              << "): " << result.At(row, column) << " for "
                              << reference.At(row, column);
    }
  }
  EXPECT_TRUE(result.PaddingIsIntact()) << what << " wrote between the rows";
}

// `gradient` against central differences of `loss` in every element of the float64 tensor `x`.
inline void ExpectGradient(TestTensor& x, const TestTensor& gradient,
                           const std::function<double()>& loss, const std::string& what,
                           double tolerance = 1e-7) {
  ASSERT_EQ(x.dtype(), DType::kFloat64) << what;
  constexpr double kStep = 1e-5;
  const double bound = tolerance * std::max(1.0, gradient.LargestMagnitude());
  for (int64_t row = 0; row < x.rows(); ++row) {
    for (int64_t column = 0; column < x.columns(); ++column) {
      const double before = x.At(row, column);
      x.Set(row, column, before + kStep);
      const double high = loss();
      x.Set(row, column, before - kStep);
      const double low = loss();
      x.Set(row, column, before);
      ASSERT_NEAR((high - low) / (2 * kStep), gradient.At(row, column), bound)
          << what << " at (" << row << ", " << column << ")";
    }
  }
}

// sum of a * b: the loss whose gradient by a is b.
inline double Inner(const TestTensor& a, const TestTensor& b) {
  double sum = 0;
  for (int64_t row = 0; row < a.rows(); ++row) {
    for (int64_t column = 0; column < a.columns(); ++column) {
      sum += a.At(row, column) * b.At(row, column);
    }
  }
  return sum;
}

inline const std::vector<DType>& FastDTypes() {
  static const std::vector<DType> dtypes = {DType::kFloat32, DType::kBFloat16};
  return dtypes;
}

}  // namespace troupe::kernel_test

// Views of tensors: a pointer, a dtype and a shape; they own nothing. Every op takes views, so the
// same op runs on a whole parameter, a slice of it, or a column block of a fused activation.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/check.h"

namespace troupe {

// The codes are on the wire (TensorDescriptor::dtype): never renumber.
enum class DType : uint8_t {
  kFloat32 = 0,
  kBFloat16 = 1,
  kFloat64 = 2,
  kInt32 = 3,
  kFloat16 = 4,  // sums over a group alone (ordered_sum.h), as int64
  kInt64 = 5,
};

// The upper half of a float. Conversion from float rounds to nearest, ties to even; NaN stays NaN.
struct bfloat16 {
  uint16_t bits = 0;

  bfloat16() = default;
  explicit bfloat16(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value);
    const bool is_nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? static_cast<uint16_t>((word >> 16) | 0x40u)
                  : static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};
static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType kValue = DType::kFloat32;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType kValue = DType::kBFloat16;
};
template <>
struct DTypeOf<double> {
  static constexpr DType kValue = DType::kFloat64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType kValue = DType::kInt32;
};

constexpr int64_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
  }
  return 0;
}

constexpr const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat64:
      return "float64";
    case DType::kInt32:
      return "int32";
    case DType::kFloat16:
      return "float16";
    case DType::kInt64:
      return "int64";
  }
  return "?";
}

// A tensor of rank 0 to 4. Void is `void` (writable) or `const void`.
//   V1. Row i (index i of the first dimension) starts row_stride elements after row i-1; inside a
//       row everything is dense. A tensor of rank 1 is dense: row_stride 1.
//   V2. A default-constructed view is empty: data() is null and num_elements() is 0.
template <typename Void>
class BasicTensorView {
 public:
  template <typename T>
  using Like = std::conditional_t<std::is_const_v<Void>, const T, T>;

  BasicTensorView() = default;
  // Dense rows.
  BasicTensorView(Void* data, DType dtype, std::initializer_list<int64_t> shape)
      : data_(data), dtype_(dtype), rank_(static_cast<int>(shape.size())) {
    KERNEL_CHECK(shape.size() <= 4, "a view has at most 4 dimensions");
    int index = 0;
    for (int64_t extent : shape) shape_[index++] = extent;
    row_stride_ = row_elements();
  }
  // Rows `row_stride` elements apart: a column block of a wider matrix.
  BasicTensorView(Void* data, DType dtype, std::initializer_list<int64_t> shape, int64_t row_stride)
      : BasicTensorView(data, dtype, shape) {
    row_stride_ = row_stride;
  }
  // A writable view serves where a read-only one is asked for.
  template <typename Other>
  requires(std::is_const_v<Void> && !std::is_const_v<Other>)
      BasicTensorView(const BasicTensorView<Other>& other)
      : data_(other.data()), dtype_(other.dtype()), rank_(other.rank()) {
    for (int i = 0; i < rank_; ++i) shape_[i] = other.dim(i);
    row_stride_ = other.row_stride();
  }

  template <typename T>
  static BasicTensorView Of(T* data, std::initializer_list<int64_t> shape) {
    return BasicTensorView(data, DTypeOf<std::remove_const_t<T>>::kValue, shape);
  }

  bool empty() const { return data_ == nullptr; }
  Void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  int64_t dim(int index) const { return index < rank_ ? shape_[index] : 1; }
  int64_t row_stride() const { return row_stride_; }
  int64_t rows() const { return rank_ == 0 ? (empty() ? 0 : 1) : shape_[0]; }
  // Elements of one row: the product of the dimensions after the first.
  int64_t row_elements() const {
    int64_t product = 1;
    for (int i = 1; i < rank_; ++i) product *= shape_[i];
    return product;
  }
  int64_t num_elements() const { return rows() * row_elements(); }
  int64_t num_bytes() const { return num_elements() * DTypeBytes(dtype_); }
  bool is_dense() const { return row_stride_ == row_elements() || rows() <= 1; }

  template <typename T>
  Like<T>* as() const {
    KERNEL_CHECK(DTypeOf<T>::kValue == dtype_, "the view holds another dtype");
    return static_cast<Like<T>*>(data_);
  }
  template <typename T>
  Like<T>* row(int64_t index) const {
    return as<T>() + index * row_stride_;
  }

  // Rows [first, first + count).
  BasicTensorView Rows(int64_t first, int64_t count) const {
    KERNEL_CHECK(first >= 0 && count >= 0 && first + count <= rows(), "rows outside the view");
    BasicTensorView part = *this;
    part.data_ = Offset(first * row_stride_);
    part.shape_[0] = count;
    return part;
  }
  // Columns [first, first + count) of every row, as a matrix (rows, count).
  BasicTensorView Columns(int64_t first, int64_t count) const {
    KERNEL_CHECK(first >= 0 && count >= 0 && first + count <= row_elements(),
                 "columns outside the view");
    return BasicTensorView(Offset(first), dtype_, {rows(), count}, row_stride_);
  }
  // The same rows as (rows, shape...); the product of `shape` is row_elements().
  BasicTensorView SplitRows(std::initializer_list<int64_t> shape) const {
    BasicTensorView split = *this;
    split.rank_ = 1 + static_cast<int>(shape.size());
    KERNEL_CHECK(split.rank_ <= 4, "a view has at most 4 dimensions");
    int index = 1;
    for (int64_t extent : shape) split.shape_[index++] = extent;
    KERNEL_CHECK(split.row_elements() == row_elements(), "the split changes the row's size");
    return split;
  }
  // All elements in order; the view is dense.
  BasicTensorView Flat() const {
    KERNEL_CHECK(is_dense(), "only a dense view can be flattened");
    return BasicTensorView(data_, dtype_, {num_elements()});
  }

 private:
  Void* Offset(int64_t elements) const {
    using Byte = Like<std::byte>;
    return static_cast<Byte*>(data_) + elements * DTypeBytes(dtype_);
  }

  Void* data_ = nullptr;
  DType dtype_ = DType::kFloat32;
  int rank_ = 0;
  int64_t shape_[4] = {0, 0, 0, 0};
  int64_t row_stride_ = 0;
};

using TensorView = BasicTensorView<void>;
using ConstTensorView = BasicTensorView<const void>;

}  // namespace troupe

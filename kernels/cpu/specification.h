// What the specification bodies share: elements of any dtype read and written in the arithmetic
// type, and the choice of that type. The plain loops of <op>_cpu.cc are written against these, so
// that each says its formula once for float32, bfloat16 and float64.
#pragma once

#include "kernels/exec.h"

namespace troupe {

// Element (row, column) widened to Real; columns run over the dimensions after the first.
template <typename Real>
Real Read(const ConstTensorView& view, int64_t row, int64_t column) {
  const int64_t index = row * view.row_stride() + column;
  switch (view.dtype()) {
    case DType::kFloat32:
      return static_cast<Real>(static_cast<const float*>(view.data())[index]);
    case DType::kBFloat16:
      return static_cast<Real>(
          static_cast<float>(static_cast<const bfloat16*>(view.data())[index]));
    case DType::kFloat64:
      return static_cast<Real>(static_cast<const double*>(view.data())[index]);
    case DType::kInt32:
    case DType::kFloat16:
    case DType::kInt64:
      break;
  }
  KERNEL_CHECK(false, "arithmetic on a view of integers or float16");
}

// Stores `value` rounded to the view's dtype, to nearest even.
template <typename Real>
void Write(const TensorView& view, int64_t row, int64_t column, Real value) {
  const int64_t index = row * view.row_stride() + column;
  switch (view.dtype()) {
    case DType::kFloat32:
      static_cast<float*>(view.data())[index] = static_cast<float>(value);
      return;
    case DType::kBFloat16:
      static_cast<bfloat16*>(view.data())[index] = bfloat16(static_cast<float>(value));
      return;
    case DType::kFloat64:
      static_cast<double*>(view.data())[index] = static_cast<double>(value);
      return;
    case DType::kInt32:
    case DType::kFloat16:
    case DType::kInt64:
      break;
  }
  KERNEL_CHECK(false, "arithmetic on a view of integers or float16");
}

// Calls body(Real{}): double for a float64 op, float for every other.
template <typename Body>
void WithReal(DType dtype, Body&& body) {
  if (dtype == DType::kFloat64) {
    body(double{});
  } else {
    body(float{});
  }
}

inline void CheckOnCpu(const Exec& exec) {
  KERNEL_CHECK(exec.device == Device::kCpu, "this op has no body for the device");
}

// The views hold the same number of rows and of elements a row.
inline bool SameShape(const ConstTensorView& a, const ConstTensorView& b) {
  return a.rows() == b.rows() && a.row_elements() == b.row_elements();
}

}  // namespace troupe

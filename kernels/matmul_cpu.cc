#include <algorithm>

#include "kernels/cpu/fast_bodies.h"
#include "kernels/cpu/specification.h"
#include "kernels/cuda_bodies.h"
#include "kernels/matmul.h"

namespace troupe {
namespace {

// An operand as its product sees it: element (i, k) lies at data[i * outer + k * inner].
template <typename T>
struct Operand {
  const T* data;
  int64_t outer;
  int64_t inner;
};

// result (M, N) [+]= sum_k a(m, k) b(n, k), ascending k; a few columns at a time, so that rows of b
// are read in order.
template <typename T, typename Real>
void ProductSpecification(const TensorView& result, int64_t depth, Operand<T> a, Operand<T> b,
                          bool accumulate) {
  constexpr int64_t kColumns = 64;
  for (int64_t m = 0; m < result.rows(); ++m) {
    for (int64_t first = 0; first < result.row_elements(); first += kColumns) {
      const int64_t count = std::min(kColumns, result.row_elements() - first);
      Real sums[kColumns] = {};
      for (int64_t k = 0; k < depth; ++k) {
        const Real left = static_cast<Real>(a.data[m * a.outer + k * a.inner]);
        for (int64_t n = 0; n < count; ++n) {
          sums[n] += left * static_cast<Real>(b.data[(first + n) * b.outer + k * b.inner]);
        }
      }
      for (int64_t n = 0; n < count; ++n) {
        const Real before = accumulate ? Read<Real>(result, m, first + n) : Real{0};
        Write<Real>(result, m, first + n, before + sums[n]);
      }
    }
  }
}

// Calls body(T{}, Real{}) for the dtype of the inputs.
template <typename Body>
void WithInputs(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{}, float{});
    case DType::kBFloat16:
      return body(bfloat16{}, float{});
    case DType::kFloat64:
      return body(double{}, double{});
    case DType::kInt32:
    case DType::kFloat16:
    case DType::kInt64:
      break;
  }
  KERNEL_CHECK(false, "a matrix product of integers or float16");
}

// The fast bodies know neither float64 nor empty products.
bool RunsFast(const Exec& exec, const ConstTensorView& a, const ConstTensorView& b) {
  return !RunsSpecification(exec, a.dtype()) && a.num_elements() * b.num_elements() > 0;
}

void CheckResult(const TensorView& result, DType inputs) {
  const DType sums = inputs == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  KERNEL_CHECK(result.dtype() == inputs || result.dtype() == sums,
               "a product has its inputs' dtype or float32");
}

}  // namespace

void MatmulForward(const Exec& exec, TensorView y, ConstTensorView x, const PackedWeight& weight,
                   bool accumulate) {
  const ConstTensorView& w = weight.weight;
  KERNEL_CHECK(
      y.rows() == x.rows() && y.row_elements() == w.rows() && x.row_elements() == w.row_elements(),
      "y (T, O) = x (T, I) W (O, I)^T");
  KERNEL_CHECK(x.dtype() == w.dtype(), "x and the weight differ in dtype");
  CheckResult(y, x.dtype());
  if (exec.device == Device::kCuda) {
    return InstalledCudaBodies().matmul_forward(exec, y, x, weight, accumulate);
  }
  if (RunsFast(exec, x, w) && MatmulForwardFast(exec, y, x, weight, accumulate)) return;
  WithInputs(x.dtype(), [&](auto t, auto real) {
    using T = decltype(t);
    ProductSpecification<T, decltype(real)>(y, x.row_elements(),
                                            Operand<T>{x.as<T>(), x.row_stride(), 1},
                                            Operand<T>{w.as<T>(), w.row_stride(), 1}, accumulate);
  });
}

void MatmulInputGrad(const Exec& exec, TensorView dx, ConstTensorView dy,
                     const PackedWeight& weight, bool accumulate) {
  const ConstTensorView& w = weight.weight;
  KERNEL_CHECK(dx.rows() == dy.rows() && dy.row_elements() == w.rows() &&
                   dx.row_elements() == w.row_elements(),
               "dx (T, I) = dy (T, O) W (O, I)");
  KERNEL_CHECK(dy.dtype() == w.dtype(), "dy and the weight differ in dtype");
  CheckResult(dx, dy.dtype());
  if (exec.device == Device::kCuda) {
    return InstalledCudaBodies().matmul_input_grad(exec, dx, dy, weight, accumulate);
  }
  if (RunsFast(exec, dy, w) && MatmulInputGradFast(exec, dx, dy, weight, accumulate)) return;
  WithInputs(dy.dtype(), [&](auto t, auto real) {
    using T = decltype(t);
    ProductSpecification<T, decltype(real)>(dx, w.rows(),
                                            Operand<T>{dy.as<T>(), dy.row_stride(), 1},
                                            Operand<T>{w.as<T>(), 1, w.row_stride()}, accumulate);
  });
}

void MatmulWeightGrad(const Exec& exec, TensorView dw, ConstTensorView dy, ConstTensorView x,
                      bool accumulate) {
  KERNEL_CHECK(dy.rows() == x.rows() && dw.rows() == dy.row_elements() &&
                   dw.row_elements() == x.row_elements(),
               "dw (O, I) = dy (T, O)^T x (T, I)");
  KERNEL_CHECK(dy.dtype() == x.dtype(), "dy and x differ in dtype");
  KERNEL_CHECK(dw.dtype() != DType::kBFloat16, "weight gradients sum in float32 (float64)");
  CheckResult(dw, dy.dtype());
  if (exec.device == Device::kCuda) {
    return InstalledCudaBodies().matmul_weight_grad(exec, dw, dy, x, accumulate);
  }
  if (RunsFast(exec, dy, x) && MatmulWeightGradFast(exec, dw, dy, x, accumulate)) return;
  WithInputs(dy.dtype(), [&](auto t, auto real) {
    using T = decltype(t);
    ProductSpecification<T, decltype(real)>(dw, dy.rows(),
                                            Operand<T>{dy.as<T>(), 1, dy.row_stride()},
                                            Operand<T>{x.as<T>(), 1, x.row_stride()}, accumulate);
  });
}

}  // namespace troupe

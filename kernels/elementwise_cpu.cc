#include "kernels/cpu/specification.h"
#include "kernels/elementwise.h"

namespace troupe {
namespace {

// out[i] = body(i's row, i's column) over every element of `out`.
template <typename Real, typename Body>
void ForEachSpecification(const TensorView& out, Body&& body) {
  for (int64_t row = 0; row < out.rows(); ++row) {
    for (int64_t column = 0; column < out.row_elements(); ++column) {
      Write<Real>(out, row, column, body(row, column));
    }
  }
}

}  // namespace

void Cast(const Exec& exec, TensorView out, ConstTensorView in) {
  CheckOnCpu(exec);
  KERNEL_CHECK(SameShape(out, in), "in and out differ in shape");
  WithReal(in.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(out, [&](int64_t r, int64_t c) { return Read<Real>(in, r, c); });
  });
}

void Add(const Exec& exec, TensorView out, ConstTensorView a, ConstTensorView b) {
  CheckOnCpu(exec);
  KERNEL_CHECK(SameShape(out, a) && SameShape(out, b), "out, a and b differ in shape");
  WithReal(out.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(
        out, [&](int64_t r, int64_t c) { return Read<Real>(a, r, c) + Read<Real>(b, r, c); });
  });
}

void Accumulate(const Exec& exec, TensorView sum, ConstTensorView in) {
  CheckOnCpu(exec);
  KERNEL_CHECK(SameShape(sum, in), "sum and in differ in shape");
  KERNEL_CHECK(sum.dtype() != DType::kBFloat16, "sums are float32 (float64)");
  WithReal(sum.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(
        sum, [&](int64_t r, int64_t c) { return Read<Real>(sum, r, c) + Read<Real>(in, r, c); });
  });
}

void Scale(const Exec& exec, TensorView x, double factor) {
  CheckOnCpu(exec);
  WithReal(x.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(
        x, [&](int64_t r, int64_t c) { return Read<Real>(x, r, c) * static_cast<Real>(factor); });
  });
}

void FillZero(const Exec& exec, TensorView x) {
  CheckOnCpu(exec);
  WithReal(x.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(x, [](int64_t, int64_t) { return Real{0}; });
  });
}

}  // namespace troupe

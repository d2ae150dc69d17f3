#include <cstring>

#include "kernels/cpu/dispatch.h"
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
  if (const VectorBodies* fast = FastBodies(exec, out.dtype(), in.dtype())) {
    SplitRows(exec, out.rows(), [&](int64_t first, int64_t count) {
      const Walk walk = WalkOver(count, out.row_elements(), out, in);
      fast->cast(RowsOf(out, first, count), RowsOf(in, first, count), walk.rows, walk.columns);
    });
    return;
  }
  WithReal(in.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(out, [&](int64_t r, int64_t c) { return Read<Real>(in, r, c); });
  });
}

void Add(const Exec& exec, TensorView out, ConstTensorView a, ConstTensorView b) {
  CheckOnCpu(exec);
  KERNEL_CHECK(SameShape(out, a) && SameShape(out, b), "out, a and b differ in shape");
  if (const VectorBodies* fast = FastBodies(exec, out.dtype(), a.dtype(), b.dtype())) {
    SplitRows(exec, out.rows(), [&](int64_t first, int64_t count) {
      const Walk walk = WalkOver(count, out.row_elements(), out, a, b);
      fast->add(RowsOf(out, first, count), RowsOf(a, first, count), RowsOf(b, first, count),
                walk.rows, walk.columns);
    });
    return;
  }
  WithReal(out.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(
        out, [&](int64_t r, int64_t c) { return Read<Real>(a, r, c) + Read<Real>(b, r, c); });
  });
}

void Accumulate(const Exec& exec, TensorView sum, ConstTensorView in) {
  CheckOnCpu(exec);
  KERNEL_CHECK(SameShape(sum, in), "sum and in differ in shape");
  if (FastBodies(exec, sum.dtype(), in.dtype()) != nullptr) return Add(exec, sum, sum, in);
  WithReal(sum.dtype(), [&](auto real) {
    using Real = decltype(real);
    ForEachSpecification<Real>(
        sum, [&](int64_t r, int64_t c) { return Read<Real>(sum, r, c) + Read<Real>(in, r, c); });
  });
}

void FillZero(const Exec& exec, TensorView x) {
  CheckOnCpu(exec);
  const int64_t item = DTypeBytes(x.dtype());
  const Walk walk = WalkOver(x.rows(), x.row_elements(), x);
  for (int64_t row = 0; row < walk.rows; ++row) {
    std::memset(static_cast<std::byte*>(x.data()) + row * x.row_stride() * item, 0,
                static_cast<size_t>(walk.columns * item));
  }
}

}  // namespace troupe

#include <cmath>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"
#include "kernels/swiglu.h"

namespace troupe {
namespace {

template <typename Real>
Real Sigmoid(Real z) {
  return 1 / (1 + std::exp(-z));
}

template <typename Real>
void ForwardSpecification(TensorView out, ConstTensorView gate, ConstTensorView up) {
  for (int64_t t = 0; t < out.rows(); ++t) {
    for (int64_t f = 0; f < out.row_elements(); ++f) {
      const Real g = Read<Real>(gate, t, f);
      Write<Real>(out, t, f, g * Sigmoid(g) * Read<Real>(up, t, f));
    }
  }
}

template <typename Real>
void BackwardSpecification(const SwigluBackwardArgs& args) {
  for (int64_t t = 0; t < args.dout.rows(); ++t) {
    for (int64_t f = 0; f < args.dout.row_elements(); ++f) {
      const Real g = Read<Real>(args.gate, t, f);
      const Real up = Read<Real>(args.up, t, f);
      const Real dout = Read<Real>(args.dout, t, f);
      const Real s = Sigmoid(g);
      Write<Real>(args.dup, t, f, dout * (g * s));
      Write<Real>(args.dgate, t, f, dout * up * (s * (1 + g * (1 - s))));
      if (!args.out.empty()) Write<Real>(args.out, t, f, g * s * up);
    }
  }
}

}  // namespace

void SwigluForward(const Exec& exec, TensorView out, ConstTensorView gate, ConstTensorView up) {
  CheckOnCpu(exec);
  KERNEL_CHECK(SameShape(out, gate) && SameShape(out, up), "out, gate and up differ in shape");
  if (const VectorBodies* fast = FastBodies(exec, out.dtype(), gate.dtype(), up.dtype())) {
    SplitRows(exec, out.rows(), [&](int64_t first, int64_t count) {
      const Walk walk = WalkOver(count, out.row_elements(), out, gate, up);
      fast->swiglu(RowsOf(out, first, count), RowsOf(gate, first, count), RowsOf(up, first, count),
                   walk.rows, walk.columns);
    });
    return;
  }
  WithReal(gate.dtype(), [&](auto real) { ForwardSpecification<decltype(real)>(out, gate, up); });
}

void SwigluBackward(const Exec& exec, const SwigluBackwardArgs& args) {
  CheckOnCpu(exec);
  KERNEL_CHECK(SameShape(args.gate, args.up) && SameShape(args.gate, args.dout),
               "gate, up and dout differ in shape");
  KERNEL_CHECK(SameShape(args.gate, args.dgate) && SameShape(args.gate, args.dup),
               "the gradients differ in shape from gate");
  KERNEL_CHECK(args.out.empty() || SameShape(args.gate, args.out), "gate and out differ in shape");
  if (const VectorBodies* fast =
          FastBodies(exec, args.gate.dtype(), args.up.dtype(), args.dout.dtype(),
                     args.dgate.dtype(), args.dup.dtype(), args.out.dtype())) {
    SplitRows(exec, args.gate.rows(), [&](int64_t first, int64_t count) {
      const Walk walk = WalkOver(count, args.gate.row_elements(), args.gate, args.up, args.dout,
                                 args.dgate, args.dup, args.out);
      fast->swiglu_grad({RowsOf(args.dgate, first, count), RowsOf(args.dup, first, count),
                         RowsOf(args.dout, first, count), RowsOf(args.gate, first, count),
                         RowsOf(args.up, first, count), RowsOf(args.out, first, count)},
                        walk.rows, walk.columns);
    });
    return;
  }
  WithReal(args.gate.dtype(), [&](auto real) { BackwardSpecification<decltype(real)>(args); });
}

}  // namespace troupe

#include <cmath>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"
#include "kernels/cuda_bodies.h"
#include "kernels/rms_norm.h"

namespace troupe {
namespace {

template <typename Real>
void ForwardSpecification(TensorView y, TensorView rstd, ConstTensorView x, ConstTensorView weight,
                          double eps) {
  const int64_t channels = x.row_elements();
  for (int64_t t = 0; t < x.rows(); ++t) {
    Real sum = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const Real value = Read<Real>(x, t, c);
      sum += value * value;
    }
    const Real scale = 1 / std::sqrt(sum / static_cast<Real>(channels) + static_cast<Real>(eps));
    Write<Real>(rstd, t, 0, scale);
    for (int64_t c = 0; c < channels; ++c) {
      Write<Real>(y, t, c, Read<Real>(x, t, c) * scale * Read<Real>(weight, 0, c));
    }
  }
}

template <typename Real>
void InputGradSpecification(const RmsNormBackwardArgs& args) {
  const int64_t channels = args.x.row_elements();
  for (int64_t t = 0; t < args.x.rows(); ++t) {
    const Real rstd = Read<Real>(args.rstd, t, 0);
    Real dot = 0;
    for (int64_t c = 0; c < channels; ++c) {
      dot += Read<Real>(args.weight, 0, c) * Read<Real>(args.dy, t, c) *
             (Read<Real>(args.x, t, c) * rstd);
    }
    const Real mean = dot / static_cast<Real>(channels);
    for (int64_t c = 0; c < channels; ++c) {
      const Real xhat = Read<Real>(args.x, t, c) * rstd;
      const Real dxhat = Read<Real>(args.weight, 0, c) * Read<Real>(args.dy, t, c);
      Real dx = rstd * (dxhat - xhat * mean);
      if (!args.residual.empty()) dx += Read<Real>(args.residual, t, c);
      Write<Real>(args.dx, t, c, dx);
    }
  }
}

template <typename Real>
void WeightGradSpecification(const RmsNormBackwardArgs& args) {
  for (int64_t t = 0; t < args.x.rows(); ++t) {
    const Real rstd = Read<Real>(args.rstd, t, 0);
    for (int64_t c = 0; c < args.x.row_elements(); ++c) {
      const Real term = Read<Real>(args.dy, t, c) * (Read<Real>(args.x, t, c) * rstd);
      Write<Real>(args.dweight, 0, c, Read<Real>(args.dweight, 0, c) + term);
    }
  }
}

void AddSpecification(const AddRmsNormArgs& args) {
  WithReal(args.x.dtype(), [&](auto real) {
    using Real = decltype(real);
    for (int64_t t = 0; t < args.x.rows(); ++t) {
      for (int64_t c = 0; c < args.x.row_elements(); ++c) {
        Write<Real>(args.sum, t, c, Read<Real>(args.x, t, c) + Read<Real>(args.delta, t, c));
      }
    }
  });
}

void Fast(const Exec& exec, const VectorBodies& bodies, const AddRmsNormArgs& args) {
  const ConstTensorView& x = args.x;
  SplitRows(exec, x.rows(), [&](int64_t first, int64_t count) {
    bodies.rms_norm(
        {RowsOf(args.y, first, count), RowsOf(x, first, count), RowsOf(args.delta, first, count),
         RowsOf(args.sum, first, count), RowsOf(args.weight), args.rstd.as<float>() + first,
         static_cast<float>(args.eps)},
        count, x.row_elements());
  });
}

// The weight half sums over tokens in order, so that it runs on one thread.
void FastBackward(const VectorBodies& bodies, const RmsNormBackwardArgs& args) {
  bodies.rms_norm_grad(
      {RowsOf(args.dx), RowsOf(args.dy), RowsOf(args.x), RowsOf(args.residual), RowsOf(args.weight),
       args.dweight.empty() ? nullptr : args.dweight.as<float>(), args.rstd.as<float>()},
      args.x.rows(), args.x.row_elements());
}

void CheckForward(const TensorView& y, const TensorView& rstd, const ConstTensorView& x,
                  const ConstTensorView& weight) {
  KERNEL_CHECK(SameShape(y, x), "x and y differ in shape");
  KERNEL_CHECK(rstd.num_elements() == x.rows(), "one rstd for each token");
  KERNEL_CHECK(rstd.dtype() == DType::kFloat32 || rstd.dtype() == DType::kFloat64,
               "statistics are float32 (float64)");
  KERNEL_CHECK(weight.num_elements() == x.row_elements(), "one weight for each channel");
}

}  // namespace

void RmsNormForward(const Exec& exec, TensorView y, TensorView rstd, ConstTensorView x,
                    ConstTensorView weight, double eps) {
  CheckForward(y, rstd, x, weight);
  if (exec.device == Device::kCuda) {
    return InstalledCudaBodies().rms_norm_forward(exec, {y, rstd, {}, x, {}, weight, eps});
  }
  if (const VectorBodies* fast =
          FastBodies(exec, x.dtype(), y.dtype(), weight.dtype(), rstd.dtype())) {
    return Fast(exec, *fast, {y, rstd, {}, x, {}, weight, eps});
  }
  WithReal(x.dtype(),
           [&](auto real) { ForwardSpecification<decltype(real)>(y, rstd, x, weight, eps); });
}

void AddRmsNormForward(const Exec& exec, const AddRmsNormArgs& args) {
  CheckForward(args.y, args.rstd, args.sum, args.weight);
  KERNEL_CHECK(SameShape(args.x, args.delta) && SameShape(args.x, args.sum),
               "x, delta and sum differ in shape");
  if (exec.device == Device::kCuda) {
    return InstalledCudaBodies().rms_norm_forward(exec, args);
  }
  if (const VectorBodies* fast =
          FastBodies(exec, args.x.dtype(), args.delta.dtype(), args.sum.dtype(), args.y.dtype(),
                     args.weight.dtype(), args.rstd.dtype())) {
    return Fast(exec, *fast, args);
  }
  AddSpecification(args);
  RmsNormForward(exec, args.y, args.rstd, args.sum, args.weight, args.eps);
}

void RmsNormBackward(const Exec& exec, const RmsNormBackwardArgs& args) {
  KERNEL_CHECK(SameShape(args.dy, args.x), "x and dy differ in shape");
  KERNEL_CHECK(args.rstd.num_elements() == args.x.rows(), "one rstd for each token");
  KERNEL_CHECK(args.dweight.empty() || args.dweight.num_elements() == args.x.row_elements(),
               "dweight is (C)");
  KERNEL_CHECK(args.dweight.dtype() != DType::kBFloat16, "dweight sums in float32");
  KERNEL_CHECK(args.dx.empty() || SameShape(args.dx, args.x), "x and dx differ in shape");
  KERNEL_CHECK(args.dx.empty() || args.weight.num_elements() == args.x.row_elements(),
               "weight is (C)");
  KERNEL_CHECK(args.dx.empty() || args.residual.empty() || SameShape(args.residual, args.x),
               "x and residual differ in shape");
  if (exec.device == Device::kCuda) {
    return InstalledCudaBodies().rms_norm_backward(exec, args);
  }
  if (const VectorBodies* fast =
          FastBodies(exec, args.x.dtype(), args.dy.dtype(), args.dx.dtype(), args.weight.dtype(),
                     args.residual.dtype(), args.dweight.dtype(), args.rstd.dtype())) {
    return FastBackward(*fast, args);
  }
  // The weight half first: dx may be dy's memory.
  if (!args.dweight.empty()) {
    WithReal(args.x.dtype(), [&](auto real) { WeightGradSpecification<decltype(real)>(args); });
  }
  if (!args.dx.empty()) {
    WithReal(args.x.dtype(), [&](auto real) { InputGradSpecification<decltype(real)>(args); });
  }
}

}  // namespace troupe

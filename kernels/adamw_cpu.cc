#include <cmath>

#include "kernels/adamw.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"

namespace troupe {
namespace {

// The step's scalars, rounded once to the arithmetic type.
template <typename Real>
struct Factors {
  Real step_size, root_scale, keep, beta2, one_minus_beta1, one_minus_beta2, eps, grad;

  explicit Factors(const AdamWOptions& options) {
    const double step = static_cast<double>(options.step);
    step_size = static_cast<Real>(options.lr / (1.0 - std::pow(options.beta1, step)));
    root_scale = static_cast<Real>(1.0 / std::sqrt(1.0 - std::pow(options.beta2, step)));
    keep = static_cast<Real>(1.0 - options.lr * options.weight_decay);
    beta2 = static_cast<Real>(options.beta2);
    one_minus_beta1 = static_cast<Real>(1.0 - options.beta1);
    one_minus_beta2 = static_cast<Real>(1.0 - options.beta2);
    eps = static_cast<Real>(options.eps);
    grad = static_cast<Real>(options.grad_factor);
  }
};

template <typename Real>
void Specification(const AdamWOptions& options, const AdamWArgs& args) {
  const Factors<Real> f(options);
  for (int64_t i = 0; i < args.param.num_elements(); ++i) {
    const Real g = Read<Real>(args.grad, 0, i) * f.grad;
    Real m = Read<Real>(args.m, 0, i);
    Real v = Read<Real>(args.v, 0, i);
    m += f.one_minus_beta1 * (g - m);
    v = f.beta2 * v + f.one_minus_beta2 * (g * g);
    const Real param = Read<Real>(args.param, 0, i) * f.keep -
                       f.step_size * (m / (std::sqrt(v) * f.root_scale + f.eps));
    Write<Real>(args.m, 0, i, m);
    Write<Real>(args.v, 0, i, v);
    Write<Real>(args.param, 0, i, param);
    if (!args.compute.empty()) Write<Real>(args.compute, 0, i, param);
  }
}

void Fast(const Exec& exec, const VectorBodies& bodies, const AdamWOptions& options,
          const AdamWArgs& args) {
  const Factors<float> f(options);
  const AdamWArgs flat{args.param.Flat(), args.m.Flat(), args.v.Flat(), args.grad.Flat(),
                       args.compute.empty() ? args.compute : args.compute.Flat()};
  SplitRows(exec, flat.param.rows(), [&](int64_t first, int64_t count) {
    bodies.adamw({.param = flat.param.as<float>() + first,
                  .m = flat.m.as<float>() + first,
                  .v = flat.v.as<float>() + first,
                  .grad = RowsOf(flat.grad, first, count),
                  .compute = RowsOf(flat.compute, first, count),
                  .factor = f.grad,
                  .one_minus_beta1 = f.one_minus_beta1,
                  .beta2 = f.beta2,
                  .one_minus_beta2 = f.one_minus_beta2,
                  .root_scale = f.root_scale,
                  .eps = f.eps,
                  .keep = f.keep,
                  .step_size = f.step_size},
                 count);
  });
}

}  // namespace

void AdamW(const Exec& exec, const AdamWOptions& options, const AdamWArgs& args) {
  CheckOnCpu(exec);
  const int64_t num_elements = args.param.num_elements();
  KERNEL_CHECK(args.m.num_elements() == num_elements && args.v.num_elements() == num_elements &&
                   args.grad.num_elements() == num_elements,
               "param, moments and gradient differ in size");
  KERNEL_CHECK(args.param.is_dense() && args.m.is_dense() && args.v.is_dense() &&
                   args.grad.is_dense() && args.compute.is_dense(),
               "the optimizer's views are dense");
  KERNEL_CHECK(args.compute.empty() || args.compute.num_elements() == num_elements,
               "param and compute copy differ in size");
  KERNEL_CHECK(args.param.dtype() != DType::kBFloat16, "master weights are float32 (float64)");
  KERNEL_CHECK(options.step >= 1, "steps count from 1");
  if (const VectorBodies* fast =
          FastBodies(exec, args.param.dtype(), args.grad.dtype(), args.compute.dtype())) {
    return Fast(exec, *fast, options, args);
  }
  WithReal(args.param.dtype(), [&](auto real) { Specification<decltype(real)>(options, args); });
}

}  // namespace troupe

#include <cmath>

#include "kernels/adamw.h"
#include "kernels/cpu/specification.h"

namespace troupe {
namespace {

template <typename Real>
void Specification(const AdamWOptions& options, const AdamWArgs& args) {
  const double step = static_cast<double>(options.step);
  const Real step_size = static_cast<Real>(options.lr / (1.0 - std::pow(options.beta1, step)));
  const Real root_scale = static_cast<Real>(1.0 / std::sqrt(1.0 - std::pow(options.beta2, step)));
  const Real keep = static_cast<Real>(1.0 - options.lr * options.weight_decay);
  const Real beta2 = static_cast<Real>(options.beta2);
  const Real one_minus_beta1 = static_cast<Real>(1.0 - options.beta1);
  const Real one_minus_beta2 = static_cast<Real>(1.0 - options.beta2);
  const Real eps = static_cast<Real>(options.eps);
  const Real factor = static_cast<Real>(options.grad_factor);
  for (int64_t i = 0; i < args.param.num_elements(); ++i) {
    const Real g = Read<Real>(args.grad, 0, i) * factor;
    Real m = Read<Real>(args.m, 0, i);
    Real v = Read<Real>(args.v, 0, i);
    m += one_minus_beta1 * (g - m);
    v = beta2 * v + one_minus_beta2 * (g * g);
    const Real param =
        Read<Real>(args.param, 0, i) * keep - step_size * (m / (std::sqrt(v) * root_scale + eps));
    Write<Real>(args.m, 0, i, m);
    Write<Real>(args.v, 0, i, v);
    Write<Real>(args.param, 0, i, param);
    if (!args.compute.empty()) Write<Real>(args.compute, 0, i, param);
  }
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
  WithReal(args.param.dtype(), [&](auto real) { Specification<decltype(real)>(options, args); });
}

}  // namespace troupe

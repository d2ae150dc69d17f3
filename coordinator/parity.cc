#include "coordinator/parity.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace troupe {
namespace {

bool SameBits(std::optional<double> a, std::optional<double> b) {
  if (!a || !b) return a.has_value() == b.has_value();
  return std::bit_cast<uint64_t>(*a) == std::bit_cast<uint64_t>(*b);
}

size_t DifferingParameters(const RunTrace& run, const RunTrace& reference) {
  const size_t parameters = run.parameter_digests.size();
  if (parameters != reference.parameter_digests.size()) return parameters;
  size_t differing = 0;
  for (const auto& [parameter, digest] : run.parameter_digests) {
    const auto other = reference.parameter_digests.find(parameter);
    differing += other == reference.parameter_digests.end() || other->second != digest;
  }
  return differing;
}

Parity CompareParameters(const RunTrace& run, const RunTrace& reference) {
  const size_t parameters = run.parameter_digests.size();
  const size_t differing = DifferingParameters(run, reference);
  const int64_t last = reference.steps.back().step;
  if (differing == 0 && parameters > 0 && parameters == reference.parameter_digests.size()) {
    return {true,
            fmt::format("{} parameters bit-equal after {} steps on one worker", parameters, last)};
  }
  return {false, fmt::format("{} of {} parameters differ after {} steps on one worker", differing,
                             parameters, last)};
}

// Of the number of one worker; infinite where only one of them is there, or is a number.
double Difference(std::optional<double> value, std::optional<double> reference) {
  if (SameBits(value, reference)) return 0;
  if (!value || !reference) return std::numeric_limits<double>::infinity();
  const double share = std::abs(*value - *reference) / std::abs(*reference);
  return std::isnan(share) ? std::numeric_limits<double>::infinity() : share;
}

// Parameters are known by digests of their bits alone.
Parity CompareNumbers(const RunTrace& run, const RunTrace& reference,
                      const ParityTolerance& tolerance) {
  double loss = 0;  // largest differences
  double norm = 0;
  int64_t numbers = 0;
  for (size_t i = 0; i < run.steps.size(); ++i) {
    const RunTrace::Step& a = run.steps[i];
    const RunTrace::Step& b = reference.steps[i];
    const double of_loss = Difference(a.loss, b.loss);
    const double of_norm = Difference(a.grad_norm, b.grad_norm);
    if (a.step != b.step || of_loss > tolerance.loss || of_norm > tolerance.grad_norm) {
      return {false, fmt::format("step {}: the loss differs by {:.2g} of itself ({:g} may be), the "
                                 "gradient norm by {:.2g} ({:g} may be)",
                                 a.step, of_loss, tolerance.loss, of_norm, tolerance.grad_norm)};
    }
    loss = std::max(loss, of_loss);
    norm = std::max(norm, of_norm);
    numbers += a.loss.has_value();
  }
  return {true, fmt::format("{} losses within {:g} and {} gradient norms within {:g} (largest "
                            "differences {:.2g} and {:.2g})",
                            numbers, tolerance.loss, numbers, tolerance.grad_norm, loss, norm)};
}

}  // namespace

ParityTolerance ToleranceOf(const proto::JobSpec& spec) {
  if (spec.parallelism().cp() <= 1) return {};
  if (spec.train().dtype() == "bfloat16") return {.loss = 1e-3, .grad_norm = 1e-2};
  return {.loss = 1e-5, .grad_norm = 1e-4};
}

Parity Compare(const RunTrace& run, const RunTrace& reference, const ParityTolerance& tolerance) {
  const bool by_parameters = run.steps.empty() && !reference.steps.empty();
  if (by_parameters && tolerance.bit_equal()) return CompareParameters(run, reference);
  if (by_parameters) {
    return {true, "nothing to compare: no step was left, and parameters agree to rounding alone"};
  }
  if (run.steps.size() != reference.steps.size() || run.steps.empty()) {
    return {false, fmt::format("{} steps against {} on one worker", run.steps.size(),
                               reference.steps.size())};
  }
  if (!tolerance.bit_equal()) return CompareNumbers(run, reference, tolerance);
  double largest = 0;
  int64_t first = -1;
  for (size_t i = 0; i < run.steps.size(); ++i) {
    const auto& a = run.steps[i];
    const auto& b = reference.steps[i];
    if (a.loss && b.loss) largest = std::max(largest, std::abs(*a.loss - *b.loss));
    const bool same =
        a.step == b.step && SameBits(a.loss, b.loss) && SameBits(a.grad_norm, b.grad_norm);
    if (!same && first < 0) first = a.step;
  }
  const size_t parameters = run.parameter_digests.size();
  const size_t differing = DifferingParameters(run, reference);
  if (first < 0 && differing == 0 && parameters > 0) {
    const auto losses = std::ranges::count_if(
        run.steps, [](const RunTrace::Step& step) { return step.loss.has_value(); });
    return {true, fmt::format("{} losses, {} gradient norms and {} parameters bit-equal", losses,
                              losses, parameters)};
  }
  return {false, fmt::format("max |dloss| {:.3g}, first difference at step {}, {} of {} parameters "
                             "differ",
                             largest, first, differing, parameters)};
}

}  // namespace troupe

#include "coordinator/parity.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

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

}  // namespace

Parity Compare(const RunTrace& run, const RunTrace& reference) {
  if (run.steps.empty() && !reference.steps.empty()) return CompareParameters(run, reference);
  if (run.steps.size() != reference.steps.size() || run.steps.empty()) {
    return {false, fmt::format("{} steps against {} on one worker", run.steps.size(),
                               reference.steps.size())};
  }
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

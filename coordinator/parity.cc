#include "coordinator/parity.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

namespace troupe {
namespace {

constexpr size_t kDigestBytes = 8;

bool SameBits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

}  // namespace

Parity Compare(const RunTrace& run, const RunTrace& reference) {
  if (run.steps.size() != reference.steps.size() || run.steps.empty()) {
    return {false, fmt::format("{} steps against {} on one worker", run.steps.size(),
                               reference.steps.size())};
  }
  double largest = 0;
  int64_t first = -1;
  for (size_t i = 0; i < run.steps.size(); ++i) {
    const auto& a = run.steps[i];
    const auto& b = reference.steps[i];
    largest = std::max(largest, std::abs(a.loss - b.loss));
    const bool same =
        a.step == b.step && SameBits(a.loss, b.loss) && SameBits(a.grad_norm, b.grad_norm);
    if (!same && first < 0) first = a.step;
  }
  const size_t parameters = run.parameter_digests.size() / kDigestBytes;
  size_t differing = 0;
  for (size_t i = 0; i < parameters; ++i) {
    differing +=
        run.parameter_digests.compare(i * kDigestBytes, kDigestBytes, reference.parameter_digests,
                                      i * kDigestBytes, kDigestBytes) != 0;
  }
  if (run.parameter_digests.size() != reference.parameter_digests.size()) differing = parameters;
  if (first < 0 && differing == 0 && parameters > 0) {
    return {true, fmt::format("{} losses, {} gradient norms and {} parameters bit-equal",
                              run.steps.size(), run.steps.size(), parameters)};
  }
  return {false, fmt::format("max |dloss| {:.3g}, first difference at step {}, {} of {} parameters "
                             "differ",
                             largest, first, differing, parameters)};
}

}  // namespace troupe

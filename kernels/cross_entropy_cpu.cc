#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"

namespace troupe {
namespace {

// True for a token that counts.
bool HasLabel(int32_t label, int64_t vocab) {
  if (label == kIgnoredLabel) return false;
  KERNEL_CHECK(label >= 0 && label < vocab, "a label lies outside the vocabulary");
  return true;
}

void Fast(const Exec& exec, const VectorBodies& bodies, const TensorView& dlogits,
          const ConstTensorView& logits, const ConstTensorView& labels, LossSum& sum) {
  for (int64_t t = 0; t < logits.rows(); ++t) {
    const int32_t label = labels.as<int32_t>()[t];
    if (HasLabel(label, logits.row_elements())) {
      sum.nll +=
          bodies.cross_entropy(RowsOf(dlogits), RowsOf(logits), t, logits.row_elements(), label);
      sum.num_tokens += 1;
    } else if (!dlogits.empty()) {
      FillZero(exec, dlogits.Rows(t, 1));
    }
  }
}

template <typename Real>
void Specification(TensorView dlogits, ConstTensorView logits, ConstTensorView labels,
                   LossSum& sum) {
  const int64_t vocab = logits.row_elements();
  for (int64_t t = 0; t < logits.rows(); ++t) {
    const int32_t label = labels.as<int32_t>()[t];
    if (!HasLabel(label, vocab)) {
      for (int64_t i = 0; !dlogits.empty() && i < vocab; ++i) Write<Real>(dlogits, t, i, 0);
      continue;
    }
    Real max = -std::numeric_limits<Real>::infinity();
    for (int64_t i = 0; i < vocab; ++i) max = std::max(max, Read<Real>(logits, t, i));
    Real total = 0;
    for (int64_t i = 0; i < vocab; ++i) total += std::exp(Read<Real>(logits, t, i) - max);
    sum.nll += std::log(static_cast<double>(total)) +
               (static_cast<double>(max) - static_cast<double>(Read<Real>(logits, t, label)));
    sum.num_tokens += 1;
    for (int64_t i = 0; !dlogits.empty() && i < vocab; ++i) {
      const Real probability = std::exp(Read<Real>(logits, t, i) - max) / total;
      Write<Real>(dlogits, t, i, i == label ? probability - 1 : probability);
    }
  }
}

}  // namespace

void CrossEntropy(const Exec& exec, TensorView dlogits, ConstTensorView logits,
                  ConstTensorView labels, LossSum& sum) {
  CheckOnCpu(exec);
  KERNEL_CHECK(labels.num_elements() == logits.rows(), "one label for each token");
  KERNEL_CHECK(dlogits.empty() || SameShape(dlogits, logits), "logits and dlogits differ in shape");
  if (const VectorBodies* fast = FastBodies(exec, logits.dtype(), dlogits.dtype())) {
    return Fast(exec, *fast, dlogits, logits, labels, sum);
  }
  WithReal(logits.dtype(),
           [&](auto real) { Specification<decltype(real)>(dlogits, logits, labels, sum); });
}

}  // namespace troupe

#include "actors/model/head.h"

#include <algorithm>
#include <cstring>

#include "kernels/rms_norm.h"

namespace troupe {

Head::Head(const UnitSite& site)
    : norm_(site, "model.norm.weight"),
      logits_product_(site, site.spec.Product("logits")),
      eps_(site.config.rms_norm_eps),
      num_tokens_(site.batch.tokens_per_microbatch()),
      narrow_(site.workspace.Has("dlogits")),
      x_(site.Stash("x")),
      n_(site.Stash("n")),
      rstd_(site.Stash("rstd")),
      weight_(site.Stash("weight")),
      dn_(site.Stash("dn")),
      logits_(site.Workspace("logits")),
      dlogits_(site.Workspace(narrow_ ? "dlogits" : "logits")) {}

ResidualStart Head::Input(const Pass& pass) const {
  return {.x = x_.In(pass.stash),
          .y = n_.In(pass.stash),
          .rstd = rstd_.In(pass.stash),
          .weight = norm_.weight(),
          .eps = eps_};
}

// Chunks in ascending order; each chunk's logits turn into their own gradient and at once into the
// head's two products.
Task<Result<LossSum>> Head::Forward(const Pass& pass, bool with_gradients) const {
  const TensorView normed = n_.In(pass.stash);
  const TensorView dn = dn_.In(pass.stash);
  if (with_gradients) {
    const ConstTensorView weight = norm_.weight();
    std::memcpy(weight_.In(pass.stash).data(), weight.data(),
                static_cast<size_t>(weight.num_bytes()));
  }
  LossSum sum;
  const int64_t chunk = logits_product_.shape().tokens;
  for (int64_t first = 0; first < num_tokens_; first += chunk) {
    const int64_t count = std::min(chunk, num_tokens_ - first);
    const TensorView logits = LogitsOf(pass, count);
    const ConstTensorView labels = pass.labels.Rows(first, count);
    logits_product_.Forward(pass, logits, normed.Rows(first, count));
    if (!with_gradients) {
      CrossEntropy(pass.exec, {}, logits, labels, sum);
      continue;
    }
    const TensorView dlogits = dlogits_.In(pass.workspace).Rows(0, count);
    CrossEntropy(pass.exec, dlogits, logits, labels, sum);
    logits_product_.InputGrad(pass, dn.Rows(first, count), dlogits);
    logits_product_.WeightGrad(pass, dlogits, normed.Rows(first, count));
  }
  co_return sum;
}

// In a block of rows, so that the bits do not depend on which token it is.
Task<Result<TensorView>> Head::Logits(const Pass& pass, int64_t token) const {
  constexpr int64_t kRowBlock = 16;
  const int64_t count = std::min(kRowBlock, num_tokens_);
  const int64_t first = std::min(token, num_tokens_ - count);
  const TensorView logits = LogitsOf(pass, count);
  logits_product_.Forward(pass, logits, n_.In(pass.stash).Rows(first, count));
  co_return logits.Rows(token - first, 1);
}

Task<Status> Head::BackwardInput(const Pass& pass, TensorView dx) const {
  RmsNormBackward(pass.exec, {.dx = dx,
                              .dweight = norm_.GradientTarget(pass),
                              .dy = dn_.In(pass.stash),
                              .x = x_.In(pass.stash),
                              .rstd = rstd_.In(pass.stash),
                              .weight = weight_.In(pass.stash).Flat(),
                              .residual = {}});
  co_return Status{};
}

}  // namespace troupe

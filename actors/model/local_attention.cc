#include "actors/model/local_attention.h"

namespace troupe {

LocalAttention::LocalAttention(const UnitSite& site)
    : heads_(*site.spec.attention), masks_(site), lse_(site.Half("lse")) {}

Task<Status> LocalAttention::Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                                     TensorView out) const {
  const MaskedAttention masked = masks_.OfSequences(pass, DocumentStartsOf(pass));
  const auto rows = HeadsOf(heads_, qkv);
  AttentionForward(
      pass.exec, masked.shape,
      {.out = ByHead(heads_, out), .lse = Lse(pass), .q = rows.q, .k = rows.k, .v = rows.v});
  CountPairs(pass, phase, 0, masked.num_pairs);
  co_return Status{};
}

Task<Status> LocalAttention::Backward(const Pass& pass, AttentionGradients g) const {
  const MaskedAttention masked = masks_.OfSequences(pass, DocumentStartsOf(pass));
  const auto rows = HeadsOf(heads_, g.qkv);
  const auto gradients = HeadsOf(heads_, g.dqkv);
  AttentionBackward(pass.exec, masked.shape,
                    {.dq = gradients.q,
                     .dk = gradients.k,
                     .dv = gradients.v,
                     .dout = ByHead(heads_, g.dout),
                     .q = rows.q,
                     .k = rows.k,
                     .v = rows.v,
                     .out = ByHead(heads_, g.out),
                     .lse = Lse(pass)});
  CountPairs(pass, KvPhase::kBackward, 0, masked.num_pairs);
  co_return Status{};
}

}  // namespace troupe

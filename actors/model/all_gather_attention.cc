#include "actors/model/all_gather_attention.h"

#include "actors/plan/sequence_layout.h"
#include "kernels/elementwise.h"

namespace troupe {

AllGatherAttention::AllGatherAttention(const UnitSite& site)
    : blocks_(site), kv_all_(site.Workspace("kv_all")), dkv_all_(site.Workspace("dkv_all")) {}

Task<Status> AllGatherAttention::Gather(const Pass& pass, KvPhase phase,
                                        ConstTensorView qkv) const {
  Group& group = *pass.groups[Axis::kCp];
  const TensorView all = kv_all_.In(pass.workspace);
  const TensorView own = BlockOf(all, group.index());
  blocks_.Pack(pass, qkv, own);
  co_return co_await group.AllGather(ElementsOf(own), ElementsOf(all), {},
                                     AttentionPurpose(pass, phase));
}

Task<Status> AllGatherAttention::Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                                         TensorView out) const {
  CO_RETURN_IF_ERROR(co_await Gather(pass, phase, qkv));
  const TensorView all = kv_all_.In(pass.workspace);
  const int index = pass.groups[Axis::kCp]->index();
  blocks_.Begin(pass);
  for (int hop = 0; hop < blocks_.num_ranks(); ++hop) {
    const int origin = OriginAfter(blocks_.num_ranks(), index, hop);
    blocks_.Attend(pass, phase, index, hop, qkv, BlockOf(all, origin));
  }
  blocks_.Finish(pass, out);
  co_return Status{};
}

Task<Status> AllGatherAttention::Backward(const Pass& pass, AttentionGradients g) const {
  constexpr auto kPhase = KvPhase::kBackward;
  CO_RETURN_IF_ERROR(co_await Gather(pass, kPhase, g.qkv));
  Group& group = *pass.groups[Axis::kCp];
  const TensorView all = kv_all_.In(pass.workspace);
  const TensorView parts = dkv_all_.In(pass.workspace);
  blocks_.BeginBackward(pass);
  for (int hop = 0; hop < blocks_.num_ranks(); ++hop) {
    const int origin = OriginAfter(blocks_.num_ranks(), group.index(), hop);
    const TensorView part = BlockOf(parts, origin);
    const bool visible = blocks_.AttendBackward(pass, group.index(), hop, blocks_.all_queries(), g,
                                                BlockOf(all, origin), part);
    if (!visible) FillZero(pass.exec, part);
  }
  blocks_.FinishQueries(pass, g.dqkv);
  const TensorView own = BlockOf(parts, group.index());
  CO_RETURN_IF_ERROR(co_await group.ReduceScatter(ElementsOf(parts), ElementsOf(own),
                                                  std::span<const int64_t>{},
                                                  AttentionPurpose(pass, kPhase)));
  blocks_.FinishKeys(pass, own, g.dqkv);
  co_return Status{};
}

}  // namespace troupe

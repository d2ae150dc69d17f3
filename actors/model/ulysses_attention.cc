#include "actors/model/ulysses_attention.h"

#include "actors/plan/unit_tensors.h"

namespace troupe {
namespace {

// Query heads of each member; with their keys and values, rows are [q | k | v] of all heads.
MemberColumns QueryColumns(const LayerAttention& all, int num_members) {
  const int64_t width = all.num_heads / num_members * all.head_dim;
  MemberColumns columns;
  for (int member = 0; member < num_members; ++member) columns.push_back({{member * width, width}});
  return columns;
}

MemberColumns HeadColumns(const LayerAttention& all, const LayerAttention& own, int num_members) {
  const int64_t q = all.num_heads * all.head_dim, k = all.num_kv_heads * all.head_dim;
  MemberColumns columns = QueryColumns(all, num_members);
  for (int member = 0; member < num_members; ++member) {
    const int64_t first = member * all.num_kv_heads / num_members * all.head_dim;
    const int64_t width = own.num_kv_heads * all.head_dim;
    auto& of_member = columns[static_cast<size_t>(member)];
    of_member.push_back({q + first, width});
    of_member.push_back({q + k + first, width});
  }
  return columns;
}

}  // namespace

UlyssesAttention::UlyssesAttention(const UnitSite& site)
    : heads_(HeadsOfRank(*site.spec.attention, site.batch.context)),
      num_sequences_(site.batch.micro_batch_size),
      masks_(site),
      qkv_exchange_(site, HeadColumns(*site.spec.attention, heads_, site.batch.context.num_ranks),
                    site.WorkspaceIfAny("dqkv_sum")),
      out_exchange_(site, QueryColumns(*site.spec.attention, site.batch.context.num_ranks)),
      qkv_heads_(site.Half("qkv_heads")),
      lse_(site.Half("lse")),
      dqkv_heads_(site.Workspace("dqkv_heads")),
      out_heads_(site.Workspace("out_heads")),
      dout_heads_(site.Workspace("dout_heads")),
      document_starts_(site.WorkspaceIfAny("all_document_starts")) {}

Task<Status> UlyssesAttention::GatherDocumentStarts(const Pass& pass, GroupPurpose purpose) const {
  if (!document_starts_) co_return Status{};
  const TensorView all = document_starts_->In(pass.workspace);
  const int64_t of_all = all.rows() / num_sequences_;
  const int64_t of_rank = pass.document_starts.rows() / num_sequences_;
  for (int64_t sequence = 0; sequence < num_sequences_; ++sequence) {
    CO_RETURN_IF_ERROR(co_await pass.groups[Axis::kCp]->AllGather(
        ElementsOf(pass.document_starts.Rows(sequence * of_rank, of_rank)),
        ElementsOf(all.Rows(sequence * of_all, of_all)), {}, purpose));
  }
  co_return Status{};
}

MaskedAttention UlyssesAttention::Masked(const Pass& pass) const {
  if (!document_starts_) return masks_.OfSequences(pass, {});
  const TensorView all = document_starts_->In(pass.workspace);
  return masks_.OfSequences(pass, {all.as<int32_t>(), static_cast<size_t>(all.rows())});
}

Task<Status> UlyssesAttention::Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                                       TensorView out) const {
  const GroupPurpose purpose = AttentionPurpose(pass, phase);
  const TensorView qkv_heads = qkv_heads_.In(pass);
  const TensorView out_heads = out_heads_.In(pass.workspace);
  CO_RETURN_IF_ERROR(co_await GatherDocumentStarts(pass, purpose));
  CO_RETURN_IF_ERROR(co_await qkv_exchange_.ToHeads(pass, purpose, qkv, qkv_heads));
  const MaskedAttention masked = Masked(pass);
  const auto rows = HeadsOf(heads_, ConstTensorView(qkv_heads));
  AttentionForward(pass.exec, masked.shape,
                   {.out = ByHead(heads_, out_heads),
                    .lse = RowStatistics(lse_.In(pass), masks_.shape()),
                    .q = rows.q,
                    .k = rows.k,
                    .v = rows.v});
  CountPairs(pass, phase, 0, masked.num_pairs);
  co_return co_await out_exchange_.ToTokens(pass, purpose, out_heads, out);
}

Task<Status> UlyssesAttention::Backward(const Pass& pass, AttentionGradients g) const {
  constexpr auto kPhase = KvPhase::kBackward;
  const GroupPurpose purpose = AttentionPurpose(pass, kPhase);
  const TensorView out_heads = out_heads_.In(pass.workspace);
  const TensorView dout_heads = dout_heads_.In(pass.workspace);
  const TensorView dqkv_heads = dqkv_heads_.In(pass.workspace);
  CO_RETURN_IF_ERROR(co_await GatherDocumentStarts(pass, purpose));
  CO_RETURN_IF_ERROR(co_await out_exchange_.ToHeads(pass, purpose, g.out, out_heads));
  CO_RETURN_IF_ERROR(co_await out_exchange_.ToHeads(pass, purpose, g.dout, dout_heads));
  const MaskedAttention masked = Masked(pass);
  const auto rows = HeadsOf(heads_, ConstTensorView(qkv_heads_.In(pass)));
  const auto gradients = HeadsOf(heads_, dqkv_heads);
  AttentionBackward(pass.exec, masked.shape,
                    {.dq = gradients.q,
                     .dk = gradients.k,
                     .dv = gradients.v,
                     .dout = ByHead(heads_, ConstTensorView(dout_heads)),
                     .q = rows.q,
                     .k = rows.k,
                     .v = rows.v,
                     .out = ByHead(heads_, ConstTensorView(out_heads)),
                     .lse = RowStatistics(lse_.In(pass), masks_.shape())});
  CountPairs(pass, kPhase, 0, masked.num_pairs);
  co_return co_await qkv_exchange_.ToTokens(pass, purpose, dqkv_heads, g.dqkv);
}

}  // namespace troupe

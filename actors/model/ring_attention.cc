#include "actors/model/ring_attention.h"

#include <utility>

#include "actors/model/kv_round.h"
#include "kernels/elementwise.h"
#include "runtime/actor/stream_wait.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

// With about as many visible pairs each, of queries that see what is before them.
std::pair<QueryWindow, QueryWindow> HalvesOf(QueryWindow all) {
  const int64_t middle = all.first + (all.end - all.first) * 7 / 10;
  return {{all.first, middle}, {middle, all.end}};
}

}  // namespace

RingAttention::RingAttention(const UnitSite& site)
    : blocks_(site),
      layer_(site.layer),
      kv_own_(site.Workspace("kv_own")),
      dkv_own_(site.Workspace("dkv_own")),
      dkv_part_(site.Workspace("dkv_part")) {}

KvHop RingAttention::HopOf(const Pass& pass, KvKind kind, KvPhase phase) const {
  CHECK(pass.ring != nullptr && pass.ring->num_ranks() == blocks_.num_ranks(),
        "a pass over layer {} has no ring of {} ranks", layer_, blocks_.num_ranks());
  return {.kind = kind,
          .phase = phase,
          .step = pass.step,
          .microbatch = pass.number,
          .layer = layer_};
}

Task<Status> RingAttention::Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                                    TensorView out) const {
  KvRound round(*pass.ring, HopOf(pass, KvKind::kKeysValues, phase), blocks_.dtype(),
                blocks_.tokens(), blocks_.columns());
  TensorView block = kv_own_.In(pass.workspace);
  blocks_.Pack(pass, qkv, block);
  blocks_.Begin(pass);
  for (int hop = 0; hop < blocks_.num_ranks(); ++hop) {
    const bool last = hop + 1 == blocks_.num_ranks();
    if (!last) co_await OnScheduler([&] { round.Exchange(block); });
    blocks_.Attend(pass, phase, pass.ring->index(), hop, qkv, block);
    if (last) break;
    CO_ASSIGN_OR_RETURN(block, co_await round.Here());
  }
  co_await OnScheduler([&] { round.LetAll(); });
  blocks_.Finish(pass, out);
  co_return Status{};
}

Task<Status> RingAttention::Backward(const Pass& pass, AttentionGradients g) const {
  constexpr auto kPhase = KvPhase::kBackward;
  const int num_ranks = blocks_.num_ranks(), index = pass.ring->index();
  KvRound round(*pass.ring, HopOf(pass, KvKind::kKeysValues, kPhase), blocks_.dtype(),
                blocks_.tokens(), blocks_.columns());
  KvRound gradients(*pass.ring, HopOf(pass, KvKind::kGradients, kPhase), blocks_.master(),
                    blocks_.tokens(), blocks_.columns());
  const TensorView own = kv_own_.In(pass.workspace);
  const TensorView part = dkv_part_.In(pass.workspace);
  const auto [early, late] = HalvesOf(blocks_.all_queries());
  TensorView block = own;
  TensorView gradient = dkv_own_.In(pass.workspace);  // of `block`, from the ranks so far
  blocks_.Pack(pass, g.qkv, own);
  blocks_.BeginBackward(pass);
  co_await OnScheduler([&] { round.Exchange(block); });
  if (!blocks_.AttendBackward(pass, index, 0, early, g, own, gradient)) {
    FillZero(pass.exec, gradient);
  }
  for (int hop = 1; hop < num_ranks; ++hop) {
    CO_ASSIGN_OR_RETURN(block, co_await round.Here());
    co_await OnScheduler([&] {
      if (hop + 1 < num_ranks) round.Exchange(block);
      gradients.Exchange(gradient);
    });
    const bool visible =
        blocks_.AttendBackward(pass, index, hop, blocks_.all_queries(), g, block, part);
    auto came = co_await gradients.Here();
    if (!came.ok() && hop + 1 < num_ranks) (void)co_await round.Here();  // both to their ends
    CO_ASSIGN_OR_RETURN(gradient, std::move(came));
    if (visible) Accumulate(pass.exec, gradient, part);
  }
  co_await OnScheduler([&] {
    round.LetAll();
    gradients.Exchange(gradient);
  });
  const bool visible = blocks_.AttendBackward(pass, index, 0, late, g, own, part);
  blocks_.FinishQueries(pass, g.dqkv);
  CO_ASSIGN_OR_RETURN(gradient, co_await gradients.Here());
  if (visible) Accumulate(pass.exec, gradient, part);
  blocks_.FinishKeys(pass, gradient, g.dqkv);
  co_await OnScheduler([&] { gradients.LetAll(); });
  co_return Status{};
}

}  // namespace troupe

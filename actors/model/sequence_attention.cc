#include "actors/model/sequence_attention.h"

#include "actors/model/all_gather_attention.h"
#include "actors/model/local_attention.h"
#include "actors/model/ring_attention.h"
#include "actors/model/ulysses_attention.h"
#include "runtime/base/check.h"

namespace troupe {

std::unique_ptr<SequenceAttention> NewSequenceAttention(const UnitSite& site) {
  if (!site.batch.context.shared()) return std::make_unique<LocalAttention>(site);
  switch (site.batch.context.method) {
    case ContextMethod::kRing:
      return std::make_unique<RingAttention>(site);
    case ContextMethod::kAllGather:
      return std::make_unique<AllGatherAttention>(site);
    case ContextMethod::kUlysses:
      return std::make_unique<UlyssesAttention>(site);
  }
  CHECK(false, "no piece has attention by method {}", static_cast<int>(site.batch.context.method));
  return nullptr;
}

TensorView RowStatistics(const TensorView& numbers, const AttentionShape& shape) {
  return {numbers.data(), numbers.dtype(), {shape.num_sequences, shape.num_heads, shape.query_len}};
}

void CountPairs(const Pass& pass, KvPhase phase, int hop, int64_t pairs) {
  if (pass.work == nullptr || pass.microbatch < 0) return;
  std::vector<int64_t>& of_phase = pass.work->pairs[static_cast<size_t>(phase)];
  const auto at = static_cast<size_t>(hop);
  if (of_phase.size() <= at) of_phase.resize(at + 1);
  of_phase[at] += pairs;
}

GroupPurpose AttentionPurpose(const Pass& pass, KvPhase phase) {
  std::string_view activity = "attention";
  if (phase == KvPhase::kRecompute) activity = "attention, computed again";
  if (phase == KvPhase::kBackward) activity = "backward of attention";
  return {.activity = activity, .step = pass.step, .microbatch = pass.number};
}

}  // namespace troupe

#include "actors/model/block_span.h"

#include <fmt/format.h>

#include "actors/plan/sequence_layout.h"
#include "runtime/trace/span.h"

namespace troupe {
namespace {

int64_t StartOf(const Pass& pass) {
  const bool traced =
      pass.ring != nullptr && pass.work != nullptr && pass.work->trace.Covers(pass.step);
  return traced ? pass.ring->clock().NowNs() : 0;
}

}  // namespace

BlockSpan::BlockSpan(const Pass& pass, KvPhase phase, int layer, int hop)
    : pass_(pass), phase_(phase), layer_(layer), hop_(hop), start_ns_(StartOf(pass)) {}

BlockSpan::~BlockSpan() {
  if (start_ns_ == 0) return;
  const AttentionWork& work = *pass_.work;
  const int origin = OriginAfter(pass_.ring->num_ranks(), pass_.ring->index(), hop_);
  SpanRecord span;
  span.name = InternTraceName(fmt::format("attention block of rank {}, hop {}, layer {}, {}",
                                          work.ranks[static_cast<size_t>(origin)], hop_, layer_,
                                          PhaseName(phase_)));
  span.category = SpanCategory::kCompute;
  span.rank = work.self.value;
  span.microbatch = pass_.number;
  span.step = static_cast<int32_t>(pass_.step);
  span.start_ns = start_ns_;
  span.end_ns = pass_.ring->clock().NowNs();
  ThreadTraceRing().Write(span);
}

}  // namespace troupe

// BlockSpan: the computation with one block of keys and values, in the trace of the steps that
// AttentionWork covers, where blocks go round a ring: beside it stand the hops that it hides. From
// its construction to its end.
// Thread: the compute stream's.
#pragma once

#include <cstdint>

#include "actors/model/kv_ring.h"
#include "actors/model/pass.h"

namespace troupe {

class BlockSpan {
 public:
  // The block of hop `hop` (0: the rank's own), which lives as long as the pass.
  BlockSpan(const Pass& pass, KvPhase phase, int layer, int hop);
  ~BlockSpan();
  BlockSpan(const BlockSpan&) = delete;
  BlockSpan& operator=(const BlockSpan&) = delete;

 private:
  const Pass& pass_;
  const KvPhase phase_;
  const int layer_;
  const int hop_;
  const int64_t start_ns_;  // 0: it leaves none
};

}  // namespace troupe

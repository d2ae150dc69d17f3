// GatheredMemory: where weights lie that come and go (ZeRO-3). A unit that goes leaves its buffers
// to the next of the same size: memory that is allocated anew costs a page fault every 4 KiB, more
// than the copy into it. One for all stages of a rank.
//
// Thread: the compute stream's.
//   B1. What nobody has is idle in the ledger. With it, no more of a tag is allocated than
//       `most_bytes`, but where what is in use is more.
#pragma once

#include <array>
#include <cstdint>
#include <deque>

#include "actors/plan/memory_model.h"
#include "runtime/memory/buffer.h"

namespace troupe {

class GatheredMemory {
 public:
  // The ledger outlives it. `most_bytes`: by tag (PredictGatheredUnits).
  GatheredMemory(MemoryLedger& ledger, const MemoryPrediction& most_bytes)
      : ledger_(ledger), most_bytes_(most_bytes) {}

  // Zeroed, or as whoever had it for the same `layout` left it.
  Buffer Take(MemoryTag tag, int64_t num_bytes, int64_t layout = 0);
  void Return(Buffer buffer, int64_t layout = 0);

 private:
  struct Idle {
    Buffer buffer{};
    int64_t layout = 0;
  };
  struct OfTag {
    std::deque<Idle> idle{};      // the one that was returned last behind
    int64_t allocated_bytes = 0;  // idle, or taken and not returned
  };
  OfTag& Of(MemoryTag tag) { return tags_[static_cast<size_t>(tag)]; }

  MemoryLedger& ledger_;
  const MemoryPrediction most_bytes_;
  std::array<OfTag, kNumMemoryTags> tags_{};
};

}  // namespace troupe

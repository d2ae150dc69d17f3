// KvRound: the blocks of one kind that a pass over a layer sends round its ring (kv_ring.h): which
// slot each came in, and when that is let go. Not copied: the ring writes into it.
//
// Thread: Exchange and LetAll on the scheduler's, the rest on the compute stream's.
//   W1. Exchange with hop 1, 2, … in turn; between two of them Here, to its end, however it ends.
//   W2. What came with hop h may be used, changed and sent on with hop h + 1; it is let go with the
//       Exchange of hop h + 2, or by LetAll.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "actors/model/kv_ring.h"
#include "kernels/tensor_view.h"
#include "runtime/actor/task.h"

namespace troupe {

class KvRound {
 public:
  // `hop`: kind, phase, step, microbatch and layer of all. Blocks are (rows, columns) of `dtype`.
  KvRound(KvRing& ring, const KvHop& hop, DType dtype, int64_t rows, int64_t columns);
  KvRound(const KvRound&) = delete;
  KvRound& operator=(const KvRound&) = delete;

  // Expects the block of the next hop and sends `block`, that of the one before, on with it.
  void Exchange(ConstTensorView block);
  // The block of the last Exchange's hop, when it is here and what was sent has gone.
  Task<Result<TensorView>> Here();
  // After the last Here.
  void LetAll() { LetUntil(last_); }

 private:
  // Of this rank's: the block that it expects; of the next rank's, the one that it sends.
  KvHop Expected(int hop) const;
  void LetUntil(int hop);

  KvRing& ring_;
  const KvHop of_all_;
  const DType dtype_;
  const int64_t rows_, columns_;
  int last_ = 0;  // the last Exchange's hop
  int let_ = 0;   // hops up to here are let go
  std::optional<KvArrival> arrival_{};
  std::optional<KvDeparture> departure_{};
  std::array<int64_t, 2> idle_ns_{};  // by hop, of the last two
};

}  // namespace troupe

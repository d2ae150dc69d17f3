// RowSource: where the whole of a row of weights comes from, of which this rank keeps a shard
// (ZeRO-3). actors/shard_actor.h is the one there is; tests have others.
//
// Thread: the scheduler's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/actor/stream_wait.h"
#include "runtime/base/result.h"

namespace troupe {

enum class PassDirection : uint8_t { kForward, kBackward };

// A pass over a stage's weights, as traces say for which one a row is gathered.
struct WeightPass {
  PassDirection direction = PassDirection::kForward;
  int64_t step = -1;
  int32_t microbatch = -1;  // as actions number it; -1: several passes together
};

// One gather: for which pass, and its end. `status` is written before `here` is set.
struct RowArrival {
  WeightPass pass{};
  StreamEvent here{};
  Status status{};
};

class RowSource {
 public:
  virtual ~RowSource() = default;

  // Fills `whole` with every owner's run of row `row` (StageParameters::rows), this rank's too, in
  // the dtype that products read and in the newest version that this rank has published; then sets
  // `arrival`. Both live until then, or until the source has ended: whoever destroys a task that
  // waits ends the source first. One gather of a row is open at a time.
  virtual void Gather(int row, std::span<std::byte> whole, RowArrival& arrival) = 0;

  // This rank's run of the row as of `version`, which grows; others gather from it. It is read
  // until the next Publish of the row, whose caller knows that nobody gathers the old one any more:
  // an update comes after every rank has ended the step's actions.
  virtual void Publish(int row, std::span<const std::byte> own, int64_t version) = 0;
};

}  // namespace troupe

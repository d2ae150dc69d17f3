// What the actions of a rank's stages took in one round, for its vote: the median over microbatches
// of each kind, which neither a hiccup nor a wait for a core moves. Owned by the executor; not
// thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "actors/schedule/action.h"
#include "proto/training.pb.h"

namespace troupe {

class RoundTimes {
 public:
  void Clear();
  // Parts of a weight gradient may be unequal: those of a microbatch count together.
  void Add(const Action& action, int64_t took_ns);
  void WriteTo(proto::Vote& vote) const;

 private:
  using ByMicrobatch = std::vector<int64_t>;  // kNotRun where there was none
  static constexpr int64_t kNotRun = -1;
  std::map<StageId, std::array<ByMicrobatch, kNumActionKinds>> times_{};
};

}  // namespace troupe

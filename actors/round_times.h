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
  void Clear() { times_.clear(); }
  void Add(const Action& action, int64_t took_ns);
  void WriteTo(proto::Vote& vote) const;

 private:
  struct Kind {
    std::vector<int64_t> took_ns{};
    int num_parts = 1;
    int64_t MedianNs() const;  // of a whole one
  };
  std::map<StageId, std::array<Kind, kNumActionKinds>> times_{};
};

}  // namespace troupe

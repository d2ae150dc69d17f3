// Stand-ins for the ranks that share a stage's sequences: all of their blocks are here as soon as
// they are asked for. What a rank computes takes as long as with real ones, so its layers can be
// measured alone; the numbers are not those of a model.
//
// Thread: as KvRing's and Group's.
#pragma once

#include <array>

#include "actors/model/kv_ring.h"
#include "runtime/collective/group.h"

namespace troupe {

// Gives back what is sent, in place.
class StillRing final : public KvRing {
 public:
  StillRing(int num_ranks, int index, const Clock& clock)
      : num_ranks_(num_ranks), index_(index), clock_(clock) {}

  int num_ranks() const override { return num_ranks_; }
  int index() const override { return index_; }
  const Clock& clock() const override { return clock_; }
  void Expect(const KvHop& hop, int64_t num_bytes, KvArrival& arrival) override;
  void Send(const KvHop& hop, std::span<const std::byte> block, KvDeparture& departure) override;
  void Let(const KvHop& /*hop*/, int64_t /*idle_ns*/) override {}

 private:
  struct Expected {
    KvArrival* arrival = nullptr;
    int64_t num_bytes = 0;
  };
  int num_ranks_, index_;
  const Clock& clock_;
  std::array<Expected, 2> expected_{};  // by kind
};

// A member of `num_ranks`, whose operations end at once; outputs stay as they are.
class StillGroup final : public Group {
 public:
  StillGroup(int num_ranks, int index);
  Task<Status> Run(GroupOperation operation) override;
};

}  // namespace troupe

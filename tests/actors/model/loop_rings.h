// Rings of one process: what one rank sends is copied into the next one's slot as soon as that
// expects it. Holds passes to what kv_ring.h asks of them. One thread drives all ranks.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "actors/model/kv_ring.h"
#include "runtime/base/check.h"

namespace troupe::testing {

inline auto KeyOf(const KvHop& hop) {
  return std::tuple(hop.kind, hop.phase, hop.step, hop.microbatch, hop.layer, hop.hop, hop.origin);
}

class LoopRing final : public KvRing {
 public:
  LoopRing(int num_ranks, int index) : num_ranks_(num_ranks), index_(index) {}
  void Meet(LoopRing& next) { next_ = &next; }

  int num_ranks() const override { return num_ranks_; }
  int index() const override { return index_; }
  const Clock& clock() const override { return SystemClock(); }

  void Expect(const KvHop& hop, int64_t num_bytes, KvArrival& arrival) override {
    Lane& lane = LaneFor(hop);
    EXPECT_LT(lane.in_use, 2) << "two slots of a kind";
    ++lane.in_use;
    lane.expected.push_back({hop, num_bytes, &arrival});
    Match(lane);
  }
  void Send(const KvHop& hop, std::span<const std::byte> block, KvDeparture& departure) override {
    sent_bytes[static_cast<size_t>(hop.kind)][static_cast<size_t>(hop.phase)] += std::ssize(block);
    Lane& lane = next_->LaneFor(hop);
    lane.offered.push_back({hop, block, &departure});
    next_->Match(lane);
  }
  void Let(const KvHop& hop, int64_t idle_ns) override {
    EXPECT_GE(idle_ns, 0);
    Lane& lane = LaneFor(hop);
    CHECK(!lane.slots.empty() && KeyOf(lane.slots.front().hop) == KeyOf(hop),
          "hops are let go in their order, once they are here");
    lane.slots.pop_front();
    --lane.in_use;
  }
  bool all_let_go() const {
    return std::ranges::all_of(lanes_, [](const auto& lane) {
      return lane.second.in_use == 0 && lane.second.offered.empty();
    });
  }

  // By kind and phase, since the start.
  std::array<std::array<int64_t, kNumKvPhases>, 2> sent_bytes{};

 private:
  struct Expected {
    KvHop hop{};
    int64_t num_bytes = 0;
    KvArrival* arrival = nullptr;
  };
  struct Offered {
    KvHop hop{};
    std::span<const std::byte> block{};
    KvDeparture* departure = nullptr;
  };
  struct Slot {
    KvHop hop{};
    std::vector<std::byte> bytes{};
  };
  struct Lane {
    std::deque<Expected> expected{};
    std::deque<Offered> offered{};
    std::list<Slot> slots{};
    int in_use = 0;
  };
  Lane& LaneFor(const KvHop& hop) { return lanes_[{hop.kind, LaneOf(hop.phase)}]; }

  void Match(Lane& lane) {
    if (lane.expected.empty() || lane.offered.empty()) return;
    const Expected expected = lane.expected.front();
    const Offered offered = lane.offered.front();
    lane.expected.pop_front();
    lane.offered.pop_front();
    EXPECT_EQ(KeyOf(expected.hop), KeyOf(offered.hop));
    EXPECT_EQ(expected.num_bytes, std::ssize(offered.block));
    Slot& slot = lane.slots.emplace_back();
    slot.hop = expected.hop;
    slot.bytes.assign(offered.block.begin(), offered.block.end());
    expected.arrival->block = slot.bytes;
    offered.departure->gone.Set();
    expected.arrival->here.Set();
  }

  int num_ranks_, index_;
  LoopRing* next_ = nullptr;
  std::map<std::pair<KvKind, int>, Lane> lanes_{};
};

// A ring of each rank.
inline std::vector<std::unique_ptr<LoopRing>> NewLoop(int num_ranks) {
  std::vector<std::unique_ptr<LoopRing>> rings;
  for (int index = 0; index < num_ranks; ++index) {
    rings.push_back(std::make_unique<LoopRing>(num_ranks, index));
  }
  for (size_t i = 0; i < rings.size(); ++i) rings[i]->Meet(*rings[(i + 1) % rings.size()]);
  return rings;
}

}  // namespace troupe::testing

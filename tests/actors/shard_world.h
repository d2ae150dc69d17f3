// Ranks of one process whose rows of weights are in shards. Every byte says by its value where it
// belongs and of which version it is. `Network` is the transport's, as in
// tests/runtime/collective/router_world.h.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "actors/rank_shards.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe::testing {

// One gather and what came of it. Stays where it is.
struct OpenGather {
  int rank = 0;
  int stage = 0;
  int row = 0;
  int64_t version = 0;
  std::vector<std::byte> whole{};
  RowArrival arrival{};
  bool ended() const { return arrival.here.happened(); }
};

template <typename Network>
class ShardWorld {
 public:
  // All ranks hold all of the stages. Stage i of `owner_bytes` is its rows, each the bytes of every
  // rank's run.
  using Rows = std::vector<std::vector<int64_t>>;
  ShardWorld(int size, const std::vector<Rows>& owner_bytes, int slots, int64_t block_bytes,
             RankGroups::Deadlines deadlines = {}) {
    options_ = {.slots = slots, .block_bytes = block_bytes};
    for (int rank = 0; rank < size; ++rank) options_.owners.emplace_back(rank);
    for (size_t stage = 0; stage < owner_bytes.size(); ++stage) {
      SharedRows shared{.stage = StageId(static_cast<int32_t>(stage))};
      for (const auto& bytes : owner_bytes[stage]) {
        shared.rows.push_back({"row " + std::to_string(shared.rows.size()), bytes});
      }
      options_.stages.push_back(std::move(shared));
    }
    for (const Rank rank : options_.owners) {
      ranks_.push_back(std::make_unique<Member>(network_, rank, options_, deadlines));
    }
    for (auto& from : ranks_) {
      for (auto& to : ranks_) {
        if (from == to) continue;
        CHECK(from->transport->Connect(to->rank, to->transport->LocalAddress()).ok());
      }
    }
    for (auto& member : ranks_) {
      const Status opened = member->shards->Open();
      CHECK(opened.ok(), "{}", opened.error().message);
    }
  }

  int size() const { return static_cast<int>(ranks_.size()); }
  Scheduler& scheduler(int rank) { return at(rank).scheduler; }
  RankShards& shards(int rank) { return *at(rank).shards; }
  RankTraffic& traffic(int rank) { return at(rank).traffic; }
  const std::vector<std::string>& errors(int rank) { return at(rank).errors; }
  int num_stages() const { return static_cast<int>(options_.stages.size()); }
  int num_rows(int stage) const { return static_cast<int>(Shared(stage).rows.size()); }

  // The rank's runs of all its rows become those of `version`.
  void Publish(int rank, int64_t version) {
    at(rank).version = version;
    for (int stage = 0; stage < num_stages(); ++stage) {
      for (int row = 0; row < num_rows(stage); ++row) {
        const auto whole = Expected(stage, row, version);
        const auto& counts = Shared(stage).rows[static_cast<size_t>(row)].owner_bytes;
        int64_t first = 0;
        for (int owner = 0; owner < rank; ++owner) first += counts[static_cast<size_t>(owner)];
        // In place, as an optimizer writes.
        auto& own = at(rank).own[{stage, row}];
        own.resize(static_cast<size_t>(counts[static_cast<size_t>(rank)]));
        std::copy_n(whole.begin() + first, own.size(), own.begin());
        Source(rank, stage).Publish(row, own, version);
      }
    }
  }
  void PublishAll(int64_t version) {
    for (int rank = 0; rank < size(); ++rank) Publish(rank, version);
  }

  OpenGather& Gather(int rank, int stage, int row) {
    OpenGather& gather = gathers_.emplace_back();
    gather.rank = rank;
    gather.stage = stage;
    gather.row = row;
    gather.version = at(rank).version;
    gather.whole.resize(Expected(stage, row, 0).size());
    Source(rank, stage).Gather(row, gather.whole, gather.arrival);
    return gather;
  }
  void GatherAll(int rank) {
    for (int stage = 0; stage < num_stages(); ++stage) {
      for (int row = 0; row < num_rows(stage); ++row) Gather(rank, stage, row);
    }
  }
  bool AllEnded() const { return std::ranges::all_of(gathers_, &OpenGather::ended); }
  // What has ended has the bytes of its version.
  void ExpectBytes() const {
    for (const OpenGather& gather : gathers_) {
      ASSERT_TRUE(gather.ended());
      ASSERT_TRUE(gather.arrival.status.ok()) << gather.arrival.status.error().message;
      ASSERT_EQ(gather.whole, Expected(gather.stage, gather.row, gather.version))
          << "rank " << gather.rank << ", stage " << gather.stage << ", row " << gather.row;
    }
  }
  const std::deque<OpenGather>& gathers() const { return gathers_; }
  void ForgetGathers() { gathers_.clear(); }

  void Stop(int rank) { at(rank).runs = false; }  // it does nothing any more
  void Kill(int rank) {
    Stop(rank);
    network_.Kill(Rank(rank), *at(rank).transport);
  }
  template <typename Done>
  bool Until(Done done) {
    return DrivenUntil(done, [this] { Pass(); });
  }
  bool UntilAllEnded() {
    return Until([this] { return AllEnded(); });
  }
  // Long enough for what is under way.
  void Settle() {
    for (int i = 0; i < 200; ++i) Pass();
  }

  std::vector<std::byte> Expected(int stage, int row, int64_t version) const {
    int64_t num_bytes = 0;
    for (const int64_t count : Shared(stage).rows[static_cast<size_t>(row)].owner_bytes) {
      num_bytes += count;
    }
    std::vector<std::byte> whole(static_cast<size_t>(num_bytes));
    for (size_t i = 0; i < whole.size(); ++i) {
      const uint64_t mixed = (i + 1) * 0x9e3779b97f4a7c15U + static_cast<uint64_t>(version) * 77 +
                             static_cast<uint64_t>(stage * 13 + row * 5);
      whole[i] = static_cast<std::byte>(mixed >> 24 ^ mixed);
    }
    return whole;
  }

 private:
  struct Member {
    Member(Network& network, Rank r, const RankShardsOptions& options,
           const RankGroups::Deadlines& deadlines)
        : rank(r),
          transport(network.NewTransport(r)),
          scheduler({.clock = &network.clock(), .spin_us = 0, .trace_handlers = false}),
          router(scheduler, *transport,
                 {.self = r,
                  .job = JobId(1),
                  .epoch = Epoch(1),
                  .on_peer_down = [this](Rank peer,
                                         const Error& cause) { shards->OnPeerDown(peer, cause); },
                  .on_credit =
                      [this](Rank peer, uint16_t channel) {
                        EXPECT_EQ(channel, kShardChannel);
                        shards->OnCredit(peer);
                      },
                  .on_drop =
                      [this](DropCause, const Envelope&, const Error& error) {
                        errors.push_back("dropped: " + error.message);
                      }}),
          shards(std::make_unique<RankShards>(router, options, deadlines, &traffic)) {
      scheduler.SetOnDown([this](const Down& down) { errors.push_back(down.error.message); });
      traffic.in_training_step = true;
    }
    const Rank rank;
    bool runs = true;
    int64_t version = 0;
    RankTraffic traffic{};
    std::vector<std::string> errors{};
    std::map<std::pair<int, int>, std::vector<std::byte>> own{};
    std::unique_ptr<Transport> transport;
    Scheduler scheduler;
    RankRouter router;
    std::unique_ptr<RankShards> shards;
  };

  Member& at(int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  const SharedRows& Shared(int stage) const { return options_.stages[static_cast<size_t>(stage)]; }
  RowSource& Source(int rank, int stage) { return *at(rank).shards->OfStage(StageId(stage)); }
  void Pass() {
    for (auto& member : ranks_) {
      if (member->runs) member->scheduler.RunUntilIdle();
    }
    network_.Idle();
  }

  RankShardsOptions options_{};
  std::deque<OpenGather> gathers_{};
  Network network_{};
  std::vector<std::unique_ptr<Member>> ranks_{};
};

}  // namespace troupe::testing

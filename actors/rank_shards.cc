#include "actors/rank_shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "actors/messages.h"

namespace troupe {
namespace {

// What the names of a unit's parameters have in common: "model.layers.3".
std::string RowName(const ParameterTable& table, const std::vector<int>& row) {
  const std::string_view first = table[row.front()].name;
  const std::string_view last = table[row.back()].name;
  const auto common = std::ranges::mismatch(first, last).in1 - first.begin();
  const size_t dot = first.substr(0, static_cast<size_t>(common)).rfind('.');
  return std::string(row.size() == 1 || dot == std::string_view::npos ? first
                                                                      : first.substr(0, dot));
}

SharedRows RowsOf(const JobPlan& plan, Rank rank, StageId stage) {
  const int64_t width = plan.widths.compute_bytes;
  const ShardPlace place = plan.ShardPlaceOf(rank, stage);
  SharedRows shared{.stage = stage};
  for (const ParameterRow& row :
       ShardRowsOf(plan.table, plan.stages[static_cast<size_t>(stage.value)], place)) {
    SharedRows::Row& added = shared.rows.emplace_back();
    added.name = RowName(plan.table, row.parameters);
    if (row.persists) continue;
    for (const int64_t elements : OwnerElements(plan.table, row, place)) {
      added.owner_bytes.push_back(elements * width);
    }
  }
  return shared;
}

// A stage's rows, each the matter of its actor.
class StageRows final : public RowSource {
 public:
  void Add(int row, ShardActor::SelfRef actor) { rows_[row] = actor; }

  void Gather(int row, std::span<std::byte> whole, RowArrival& arrival) override {
    Status sent = rows_.at(row).Send(GatherRow{whole, &arrival});
    if (sent.ok()) return;
    arrival.status = std::move(sent);  // its actor has ended: the job does, too
    arrival.here.Set();
  }
  void Publish(int row, std::span<const std::byte> own, int64_t version) override {
    // An actor that has ended publishes nothing, and the job ends.
    (void)rows_.at(row).Send(PublishRow{own, version});
  }

 private:
  std::map<int, ShardActor::SelfRef> rows_{};  // by place among the stage's
};

ShardChannels::Options ChannelsOf(const RankShardsOptions& options, Rank self) {
  ShardChannels::Options channels{.slots = options.slots, .slot_bytes = options.SlotBytes()};
  std::ranges::remove_copy(options.owners, std::back_inserter(channels.peers), self);
  return channels;
}

}  // namespace

int64_t RankShardsOptions::SlotBytes() const {
  int64_t most_bytes = 1;
  for (const SharedRows& stage : stages) {
    for (const SharedRows::Row& row : stage.rows) {
      for (const int64_t num_bytes : row.owner_bytes) most_bytes = std::max(most_bytes, num_bytes);
    }
  }
  return std::min(most_bytes, block_bytes);
}

RankShardsOptions ShardRowsOfRank(const JobPlan& plan, Rank rank) {
  RankShardsOptions options;
  if (!plan.GathersUnits()) return options;
  options.owners = plan.OwnersOf(rank);
  for (const StageId stage : plan.StagesOf(rank)) {
    options.stages.push_back(RowsOf(plan, rank, stage));
  }
  return options;
}

RankShards::RankShards(RankRouter& router, RankShardsOptions options,
                       const RankGroups::Deadlines& deadlines, const RankTraffic* traffic)
    : router_(router),
      options_(std::move(options)),
      deadlines_(deadlines),
      traffic_(traffic),
      channels_(router, ChannelsOf(options_, router.self())) {}

RankShards::~RankShards() {
  for (size_t i = 0; i < actors_.size(); ++i) {
    router_.Unregister(kFirstShardIndex + static_cast<uint32_t>(i));
    router_.scheduler().End(actors_[i]);
  }
}

Status RankShards::Open(const TraceWindow& trace) {
  if (options_.stages.empty()) return {};
  RETURN_IF_ERROR(channels_.Open());
  for (const SharedRows& stage : options_.stages) {
    auto rows = std::make_unique<StageRows>();
    for (int row = 0; row < static_cast<int>(stage.rows.size()); ++row) {
      if (stage.rows[static_cast<size_t>(row)].owner_bytes.empty()) continue;
      const auto index = kFirstShardIndex + static_cast<uint32_t>(actors_.size());
      actors_.push_back(Spawn(stage, row, index, trace));
      router_.Register<WithBulk<ShardWanted>, WithBulk<ShardBlock>>(index, actors_.back());
      rows->Add(row, actors_.back());
    }
    stages_[stage.stage] = std::move(rows);
  }
  return {};
}

ShardActor::SelfRef RankShards::Spawn(const SharedRows& stage, int32_t row, uint32_t index,
                                      const TraceWindow& trace) {
  const SharedRows::Row& cut = stage.rows[static_cast<size_t>(row)];
  ShardActorOptions options{.rank = router_.self(),
                            .name = cut.name,
                            .stage = stage.stage,
                            .row = row,
                            .tell_ms = deadlines_.tell_ms,
                            .end_ms = deadlines_.end_ms,
                            .trace = trace,
                            .traffic = traffic_};
  for (size_t i = 0; i < options_.owners.size(); ++i) {
    const Rank rank = options_.owners[i];
    options.owners.push_back(
        {.rank = rank,
         .num_bytes = cut.owner_bytes.at(i),
         .actor = router_.Remote<ShardWanted, WithBulk<ShardBlock>>(rank, index)});
  }
  // Of each other owner its slots' blocks, a request and its loss; of the stage a few.
  const auto bound = 16 + static_cast<int>(options_.owners.size()) * (options_.slots + 2);
  return router_.scheduler().Spawn<ShardActor>(
      {.name = fmt::format("shards of stage {}, row {}", stage.stage, row), .mailbox_bound = bound},
      std::move(options), std::ref(channels_));
}

RowSource* RankShards::OfStage(StageId stage) {
  const auto found = stages_.find(stage);
  return found == stages_.end() ? nullptr : found->second.get();
}

std::vector<CommunicationVolume> RankShards::Sent() const {
  std::vector<CommunicationVolume> rows;
  AddVolume(rows, {Axis::kDp, "shard", channels_.num_runs(), channels_.sent_bytes()});
  return rows;
}

void RankShards::OnPeerDown(Rank peer, const Error& cause) {
  channels_.OnPeerDown(peer);
  // Behind what the lost one sent. An actor that has ended waits for nobody.
  for (const auto& actor : actors_) (void)actor.Send(MemberLost{peer, cause});
}

}  // namespace troupe

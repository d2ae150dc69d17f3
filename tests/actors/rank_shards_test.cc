#include "actors/rank_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/actor/stream_wait.h"
#include "tests/actors/shard_world.h"
#include "tests/support/answering_stage.h"
#include "tests/support/idle_stage.h"
#include "tests/support/in_process_job.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::OpenGather;
using testing::ShardWorld;

using World = ShardWorld<InprocWorldNetwork>;

template <typename Network>
class RankShardsTest : public ::testing::Test {};
using Networks = ::testing::Types<InprocWorldNetwork, SimWorldNetwork, UcxWorldNetwork>;
TYPED_TEST_SUITE(RankShardsTest, Networks);

// Runs of a byte, of a slot, of many; some owners have nothing of a row.
std::vector<int64_t> SomeRow(std::mt19937& random, int size) {
  std::vector<int64_t> bytes;
  for (int owner = 0; owner < size; ++owner) {
    const int64_t sizes[] = {0, 1, 64, static_cast<int64_t>(random() % 1000)};
    bytes.push_back(sizes[random() % 4]);
  }
  if (*std::ranges::max_element(bytes) == 0) bytes.front() = 5;
  return bytes;
}

TYPED_TEST(RankShardsTest, EveryRankGathersEveryRowAtOnce) {
  std::mt19937 random(3);
  for (const int size : {2, 3, 4}) {
    for (const int slots : {1, 2}) {
      std::vector<std::vector<int64_t>> rows;
      for (int row = 0; row < 12; ++row) rows.push_back(SomeRow(random, size));
      ShardWorld<TypeParam> world(size, {rows}, slots, /*block_bytes=*/64);
      for (int64_t version = 0; version < 3; ++version) {
        world.PublishAll(version);
        for (int rank = 0; rank < size; ++rank) world.GatherAll(rank);
        ASSERT_TRUE(world.UntilAllEnded());
        world.ExpectBytes();
        world.ForgetGathers();
      }
      for (int rank = 0; rank < size; ++rank) EXPECT_THAT(world.errors(rank), ElementsAre());
    }
  }
}

// A rank may be a version ahead of another and ask for what that has yet to publish.
TYPED_TEST(RankShardsTest, ARequestWaitsForItsVersion) {
  ShardWorld<TypeParam> world(3, {{{200, 100, 0}, {0, 70, 70}}}, /*slots=*/2, /*block_bytes=*/64);
  world.Publish(0, 1);
  world.Publish(1, 0);
  world.Publish(2, 0);
  world.GatherAll(0);
  world.Settle();
  for (const OpenGather& gather : world.gathers()) EXPECT_FALSE(gather.ended());
  world.Publish(1, 1);
  world.Settle();
  EXPECT_TRUE(world.gathers()[0].ended()) << "it needs nothing of rank 2";
  EXPECT_FALSE(world.gathers()[1].ended());
  world.Publish(2, 1);
  ASSERT_TRUE(world.UntilAllEnded());
  world.ExpectBytes();
}

// Steps as they come: ranks gather rows in an order of their own, some twice, and nobody publishes
// before all have what they gathered.
TYPED_TEST(RankShardsTest, AnyOrderOfManyStepsBringsTheBytes) {
  std::mt19937 random(7);
  std::vector<std::vector<int64_t>> rows;
  for (int row = 0; row < 5; ++row) rows.push_back(SomeRow(random, 3));
  ShardWorld<TypeParam> world(3, {rows, rows}, /*slots=*/2, /*block_bytes=*/100);
  for (int64_t version = 0; version < 20; ++version) {
    for (int rank = 0; rank < 3; ++rank) {
      world.Publish((rank + static_cast<int>(version)) % 3, version);
      if (random() % 2 == 0) world.Until([&random] { return random() % 4 == 0; });
    }
    for (int turn = 0; turn < 2; ++turn) {
      std::vector<std::tuple<int, int, int>> wanted;
      for (int rank = 0; rank < 3; ++rank) {
        for (int stage = 0; stage < 2; ++stage) {
          for (int row = 0; row < 5; ++row) wanted.emplace_back(rank, stage, row);
        }
      }
      std::ranges::shuffle(wanted, random);
      for (const auto& [rank, stage, row] : wanted) {
        if (random() % 3 == 0) continue;
        world.Gather(rank, stage, row);
        if (random() % 2 == 0) world.Until([&random] { return random() % 4 == 0; });
      }
      ASSERT_TRUE(world.UntilAllEnded());
    }
    world.ExpectBytes();
    world.ForgetGathers();
  }
}

// As for an export: the others do nothing but answer.
TEST(RankShards, OneRankGathersAlone) {
  World world(4, {{{300, 300, 300, 300}, {10, 0, 0, 0}, {0, 0, 0, 10}}}, 1, 64);
  world.PublishAll(0);
  world.GatherAll(3);
  ASSERT_TRUE(world.UntilAllEnded());
  world.ExpectBytes();
}

TEST(RankShards, WhatOneOwnerHasWholeNeedsNobodyElse) {
  World world(2, {{{40, 0}}}, 1, 64);
  world.PublishAll(0);
  world.Stop(1);
  world.Gather(0, 0, 0);
  ASSERT_TRUE(world.UntilAllEnded());
  world.ExpectBytes();
}

// To each other owner its run once a gather, however many blocks that takes.
TEST(RankShards, SentIsTheRunsThatOthersGathered) {
  World world(3, {{{200, 100, 0}, {0, 64, 1}}, {{5, 6, 7}}}, 2, 64);
  world.PublishAll(0);
  for (int rank = 0; rank < 3; ++rank) world.GatherAll(rank);
  ASSERT_TRUE(world.UntilAllEnded());
  using Volume = CommunicationVolume;
  EXPECT_THAT(world.shards(0).Sent(), ElementsAre(Volume{Axis::kDp, "shard", 4, 2 * (200 + 5)}));
  EXPECT_THAT(world.shards(1).Sent(),
              ElementsAre(Volume{Axis::kDp, "shard", 6, 2 * (100 + 64 + 6)}));
  EXPECT_THAT(world.shards(2).Sent(), ElementsAre(Volume{Axis::kDp, "shard", 4, 2 * (1 + 7)}));
  world.ForgetGathers();
  for (int rank = 0; rank < 3; ++rank) world.traffic(rank).in_training_step = false;
  for (int rank = 0; rank < 3; ++rank) world.GatherAll(rank);
  ASSERT_TRUE(world.UntilAllEnded());
  EXPECT_THAT(world.shards(2).Sent(), ElementsAre(Volume{Axis::kDp, "shard", 4, 2 * (1 + 7)}))
      << "evaluating and exporting is not reported";
}

TYPED_TEST(RankShardsTest, ALostOwnerEndsEveryGatherThatNeedsIt) {
  ShardWorld<TypeParam> world(3, {{{5000, 5000, 5000}, {50, 0, 50}, {10, 10, 0}}}, 1, 64);
  world.PublishAll(0);
  world.GatherAll(0);
  world.GatherAll(2);
  for (int rank = 0; rank < 3; ++rank) world.scheduler(rank).RunUntilIdle();
  world.Kill(1);
  ASSERT_TRUE(world.UntilAllEnded());
  for (const OpenGather& gather : world.gathers()) {
    if (gather.row == 1) {
      EXPECT_TRUE(gather.arrival.status.ok()) << "rank 1 has nothing of it";
    }
    if (gather.row == 0) {
      ASSERT_FALSE(gather.arrival.status.ok());
      EXPECT_EQ(gather.arrival.status.error().code, ErrorCode::kPeerDown);
      EXPECT_THAT(gather.arrival.status.error().message, HasSubstr("rank 1"));
    }
  }
  const OpenGather& later = world.Gather(0, 0, 2);
  ASSERT_TRUE(world.UntilAllEnded());
  EXPECT_EQ(later.arrival.status.error().code, ErrorCode::kPeerDown);
}

TEST(RankShards, AGatherThatTakesTooLongIsToldOfAndEnded) {
  ShardWorld<SimWorldNetwork> world(3, {{{500, 500, 500}}}, 2, 64, {.tell_ms = 2, .end_ms = 4});
  std::vector<std::string> told;
  world.scheduler(0).waits().SetOnDeadline(
      [&told](const WaitRecord&, const std::string& sentence) { told.push_back(sentence); });
  world.PublishAll(0);
  world.Settle();
  world.Stop(2);
  const OpenGather& gather = world.Gather(0, 0, 0);
  std::vector<WaitRecord> waits;
  ASSERT_TRUE(world.Until([&] {
    waits = world.scheduler(0).waits().Snapshot();
    return waits.size() == 1 && waits[0].from_ranks.size() == 1;
  }));
  EXPECT_EQ(waits[0].waiter, "rank 0");
  EXPECT_EQ(waits[0].owed, "weights of row 0: shards");
  EXPECT_EQ(waits[0].from, "rank 2 (nothing from rank 2)");
  EXPECT_THAT(waits[0].from_ranks, ElementsAre(2));
  ASSERT_TRUE(world.UntilAllEnded());
  EXPECT_THAT(told, ElementsAre("rank 0: weights of row 0: shards from rank 2: deadline 2 ms "
                                "passed, nothing from rank 2"));
  EXPECT_EQ(gather.arrival.status.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(gather.arrival.status.error().message,
            "rank 0: weights of row 0: shards from rank 2: deadline 4 ms passed, nothing from rank "
            "2");
  EXPECT_EQ(world.scheduler(0).waits().size(), 0);
}

TEST(RankShards, SlotsAreNoLargerThanTheLargestRun) {
  RankShardsOptions options;
  options.stages.push_back({.rows = {{"a", {10, 900}}, {"b", {0, 1}}}});
  EXPECT_EQ(options.SlotBytes(), 900);
  options.stages.push_back({.rows = {{"c", {kShardBlockBytes + 1, 0}}}});
  EXPECT_EQ(options.SlotBytes(), kShardBlockBytes);
}

// A tied weight is a row of both stages that hold it.
JobPlan PlanOf(int zero_stage, int data_parallel) {
  testing::InProcessJobOptions options{
      .schedule = "interleaved-1f1b", .num_ranks = 1, .num_microbatches = 2};
  options.config = ModelConfig{.hidden_size = 32,
                               .intermediate_size = 48,
                               .num_hidden_layers = 2,
                               .num_attention_heads = 2,
                               .num_key_value_heads = 2,
                               .head_dim = 16,
                               .vocab_size = 100,
                               .tie_word_embeddings = true};
  options.batch = BatchArithmetic{.global_batch_size = 2 * data_parallel,
                                  .seq_len = 8,
                                  .num_microbatches = 2,
                                  .data_parallel = data_parallel};
  options.zero.stage = zero_stage;
  options.dtype = DType::kBFloat16;
  return testing::PlanByHand(options);
}

TEST(ShardRowsOfRank, NamesAndCutsEveryRowOfEveryStage) {
  const JobPlan plan = PlanOf(3, 3);
  const RankShardsOptions shards = ShardRowsOfRank(plan, Rank(1));
  EXPECT_THAT(shards.owners, ElementsAre(Rank(0), Rank(1), Rank(2)));
  std::vector<std::string> names;
  int64_t num_bytes = 0;
  for (const SharedRows& stage : shards.stages) {
    for (const SharedRows::Row& row : stage.rows) {
      names.push_back(std::to_string(stage.stage.value) + " " + row.name);
      ASSERT_EQ(row.owner_bytes.size(), 3u);
      for (const int64_t bytes : row.owner_bytes) num_bytes += bytes;
    }
  }
  EXPECT_THAT(
      names, ElementsAre("0 model.embed_tokens.weight", "0 model.layers.0",
                         "1 model.embed_tokens.weight", "1 model.layers.1", "1 model.norm.weight"));
  EXPECT_EQ(num_bytes, (plan.table.num_elements() + 100 * 32) * 2) << "bfloat16";
}

// Rows keep their numbers.
TEST(ShardRowsOfRank, AreOfTheOwnGroupAndHaveNoActorWhereTheyPersist) {
  JobPlan plan = PlanOf(3, 4);
  plan.zero.group = 2;
  plan.zero.persist_elements = 33;  // the norms' weights have 32
  const RankShardsOptions shards = ShardRowsOfRank(plan, Rank(3));
  EXPECT_THAT(shards.owners, ElementsAre(Rank(2), Rank(3)));
  std::vector<std::string> gathered, whole;
  for (const SharedRows::Row& row : shards.stages.back().rows) {
    (row.owner_bytes.empty() ? whole : gathered).push_back(row.name);
  }
  EXPECT_THAT(gathered, ElementsAre("model.embed_tokens.weight", "model.layers.1.self_attn",
                                    "model.layers.1.mlp"));
  EXPECT_THAT(whole,
              ElementsAre("model.layers.1.input_layernorm.weight",
                          "model.layers.1.post_attention_layernorm.weight", "model.norm.weight"));
}

TEST(ShardRowsOfRank, IsEmptyWhereWeightsAreWhole) {
  EXPECT_TRUE(ShardRowsOfRank(PlanOf(2, 3), Rank(0)).stages.empty());
  EXPECT_TRUE(ShardRowsOfRank(PlanOf(3, 1), Rank(0)).stages.empty());
  InprocNetwork network;
  const auto transport = network.NewTransport(Rank(0));
  Scheduler scheduler;
  RankRouter router(scheduler, *transport, {.self = Rank(0)});
  RankShards shards(router, {}, {}, nullptr);
  ASSERT_TRUE(shards.Open().ok());
  EXPECT_EQ(shards.OfStage(StageId(0)), nullptr);
  EXPECT_TRUE(shards.Sent().empty());
}

TEST(RankShards, TwoStagesOfARankBothHaveTheTiedRow) {
  const JobPlan plan = PlanOf(3, 2);
  std::vector<World::Rows> stages;
  for (const SharedRows& stage : ShardRowsOfRank(plan, Rank(0)).stages) {
    auto& rows = stages.emplace_back();
    for (const SharedRows::Row& row : stage.rows) rows.push_back(row.owner_bytes);
  }
  ASSERT_EQ(stages.size(), 2u);
  World world(2, stages, kShardSlots, 512);
  world.PublishAll(0);
  for (int rank = 0; rank < 2; ++rank) world.GatherAll(rank);
  ASSERT_TRUE(world.UntilAllEnded());
  world.ExpectBytes();
}

// A stage whose every action needs all of its rows, as its rank has published them last: an error
// where a byte is another. An update changes every byte.
class GatheringStage : public testing::AnsweringStage<GatheringStage> {
 public:
  GatheringStage(const RankPlace& place, StageId stage)
      : AnsweringStage(place, stage), scope_(place.stream) {
    const RankShardsOptions options = ShardRowsOfRank(plan(), place.rank);
    const auto index = std::ranges::find(options.owners, place.rank) - options.owners.begin();
    for (const SharedRows& shared : options.stages) {
      if (shared.stage != stage) continue;
      for (const SharedRows::Row& row : shared.rows) {
        first_.push_back(
            std::accumulate(row.owner_bytes.begin(), row.owner_bytes.begin() + index, int64_t{0}));
        own_.emplace_back(static_cast<size_t>(row.owner_bytes[static_cast<size_t>(index)]));
        row_bytes_.push_back(std::reduce(row.owner_bytes.begin(), row.owner_bytes.end()));
      }
    }
    Publish(0);
  }

  using AnsweringStage::On;
  Status On(const RunAction& run) {
    ActionDone done = AnswerTo(run);
    if (OutputOf(plan().train, run.action)) {
      const int64_t boundary =
          BoundaryBytes(plan().batch, plan().config.hidden_size, plan().widths);
      done.output = Buffer(ledger_, MemoryTag::kActivations, boundary);
    }
    auto answer = std::make_shared<ActionDone>(std::move(done));
    place().stream.LaunchTask(scope_, GatherAll(), [this, answer](const WorkTime&, Status status) {
      answer->status = std::move(status);
      (void)executor().Send(std::move(*answer));
    });
    return {};
  }
  Status On(CollectVote collect) {  // one of the data-parallel ranks
    if (plan().mesh.Coordinate(place().rank, Axis::kDp) == 0) return AnsweringStage::On(collect);
    return executor().Send(StageVote{.stage = stage(), .round = collect.round});
  }
  Status On(ApplyUpdate update) {
    Publish(version_ + 1);
    return executor().Send(UpdateDone{.stage = stage(), .step = update.step});
  }

 private:
  RowSource& rows() const { return *place().shards.OfStage(stage()); }
  std::byte ByteAt(size_t row, int64_t position) const {
    return static_cast<std::byte>(position * 7 + static_cast<int64_t>(row) * 13 + version_ * 29);
  }
  void Publish(int64_t version) {
    version_ = version;
    for (size_t row = 0; row < own_.size(); ++row) {
      for (size_t i = 0; i < own_[row].size(); ++i) {
        own_[row][i] = ByteAt(row, first_[row] + static_cast<int64_t>(i));
      }
      rows().Publish(static_cast<int>(row), own_[row], version);
    }
  }
  Task<Status> GatherAll() {
    std::deque<RowArrival> arrivals(own_.size());
    std::vector<std::vector<std::byte>> wholes;
    for (const int64_t bytes : row_bytes_) wholes.emplace_back(static_cast<size_t>(bytes));
    co_await OnScheduler([&] {
      for (size_t row = 0; row < wholes.size(); ++row) {
        rows().Gather(static_cast<int>(row), wholes[row], arrivals[row]);
      }
    });
    for (size_t row = 0; row < wholes.size(); ++row) {
      co_await arrivals[row].here;
      CO_RETURN_IF_ERROR(arrivals[row].status);
      for (size_t i = 0; i < wholes[row].size(); ++i) {
        if (wholes[row][i] == ByteAt(row, static_cast<int64_t>(i))) continue;
        co_return MakeError(ErrorCode::kFailed, "stage {}, row {}: byte {} is another", stage(),
                            row, i);
      }
    }
    co_return Status{};
  }

  MemoryLedger ledger_{};
  int64_t version_ = -1;
  std::vector<int64_t> first_{};
  std::vector<int64_t> row_bytes_{};
  std::vector<std::vector<std::byte>> own_{};
  const StreamScope scope_;
};

// In ranks as they are, with evaluations between the steps, which the report leaves out. A stage
// has more rows than a peer has slots.
TEST(RankShards, AJobsStagesGatherThroughTheirRanks) {
  testing::InProcessJobOptions options{.num_ranks = 2, .num_microbatches = 3};
  options.config = ModelConfig{.hidden_size = 32,
                               .intermediate_size = 48,
                               .num_hidden_layers = 12,
                               .num_attention_heads = 2,
                               .num_key_value_heads = 2,
                               .head_dim = 16,
                               .vocab_size = 100,
                               .tie_word_embeddings = true};
  options.batch = BatchArithmetic{
      .global_batch_size = 6, .seq_len = 1, .num_microbatches = 3, .data_parallel = 2};
  options.zero.stage = 3;
  options.steps = {.steps = 4, .evaluate_every = 2, .evaluate_rounds = 1};
  testing::InProcessJob job(
      options,
      [](const RankPlace& place, StageId stage) {
        return place.scheduler.Spawn<GatheringStage>({}, place, stage);
      },
      [](const RankPlace& place) { return place.scheduler.Spawn<testing::IdleLoader>({}); });
  job.Run();
  EXPECT_THAT(job.errors, ElementsAre());
  ASSERT_TRUE(job.ended);
  EXPECT_EQ(job.end_step, 4);
  EXPECT_EQ(job.evaluations.size(), 2u);
  for (int rank = 0; rank < 4; ++rank) {
    const RankShardsOptions shards = ShardRowsOfRank(job.plan(), Rank(rank));
    const auto index = std::ranges::find(shards.owners, Rank(rank)) - shards.owners.begin();
    int64_t runs = 0;
    int64_t bytes = 0;
    for (const SharedRows::Row& row : shards.stages.front().rows) {
      runs += row.owner_bytes[static_cast<size_t>(index)] > 0 ? 1 : 0;
      bytes += row.owner_bytes[static_cast<size_t>(index)];
    }
    const proto::CommunicationReport report = job.Communication(rank);
    const auto sent = std::ranges::find_if(
        report.rows(), [](const auto& row) { return row.operation() == "shard"; });
    ASSERT_NE(sent, report.rows().end());
    EXPECT_EQ(sent->axis(), "dp");
    EXPECT_EQ(sent->measured_count(), 4 * 2 * 3 * runs) << "a Forward and a Backward a microbatch";
    EXPECT_EQ(sent->measured_bytes(), 4 * 2 * 3 * bytes);
  }
}

}  // namespace
}  // namespace troupe

#include "actors/shard_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/trace/span.h"
#include "runtime/transport/inproc/inproc_transport.h"
#include "tests/runtime/actor/manual_clock.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// What another rank's actor of the row hears.
struct Heard {
  std::vector<ShardWanted> wanted{};
  std::vector<WithBulk<ShardBlock>> blocks{};
};
class Listener : public Actor<Listener, ShardWanted, WithBulk<ShardBlock>> {
 public:
  explicit Listener(Heard& heard) : heard_(heard) {}
  Status On(ShardWanted wanted) {
    heard_.wanted.push_back(wanted);
    return {};
  }
  Status On(WithBulk<ShardBlock> block) {
    heard_.blocks.push_back(std::move(block));
    return {};
  }

 private:
  Heard& heard_;
};

// Rank 0's actor of row 1 of stage 2, of which the ranks 0, 1 and 2 have 6, 5 and no bytes. The
// test speaks for those and for rank 3, which is no owner. Every channel has two slots of 4 bytes.
class RowOfThree {
 public:
  RowOfThree() {
    for (int rank = 0; rank < 4; ++rank) {
      transports_.push_back(network_.NewTransport(Rank(rank)));
      routers_.push_back(
          std::make_unique<RankRouter>(scheduler, *transports_.back(),
                                       RankRouter::Options{.self = Rank(rank),
                                                           .job = {},
                                                           .epoch = {},
                                                           .on_peer_down = {},
                                                           .on_credit =
                                                               [this, rank](Rank peer, uint16_t) {
                                                                 if (rank == 0)
                                                                   channels().OnCredit(peer);
                                                               },
                                                           .on_drop = {}}));
    }
    channels_.emplace(
        *routers_[0],
        ShardChannels::Options{.peers = {Rank(1), Rank(2), Rank(3)}, .slots = 2, .slot_bytes = 4});
    for (const int rank : {1, 2, 3}) Meet(rank);
    EXPECT_TRUE(channels().Open().ok());
    ShardActorOptions options{.rank = Rank(0),
                              .name = "model.layers.4",
                              .stage = StageId(2),
                              .row = 1,
                              .tell_ms = 100,
                              .end_ms = 300,
                              .trace = StepOne(),
                              .traffic = &traffic};
    for (const auto& [rank, num_bytes] : {std::pair(0, 6), std::pair(1, 5), std::pair(2, 0)}) {
      options.owners.push_back({Rank(rank), num_bytes, ActorOn(rank, 0)});
    }
    actor_ =
        scheduler.Spawn<ShardActor>({.name = "shards"}, std::move(options), std::ref(*channels_));
    routers_[0]->Register<WithBulk<ShardWanted>, WithBulk<ShardBlock>>(kFirstShardIndex, actor_);
    scheduler.SetOnDown([this](const Down& end) { down.push_back(end.error.message); });
  }

  ShardChannels& channels() { return *channels_; }
  void Publish(int64_t version) {
    ASSERT_TRUE(actor_.Send(PublishRow{std::as_bytes(std::span(own)), version}).ok());
    scheduler.RunUntilIdle();
  }
  void Gather(WeightPass pass = {}) {
    arrival = std::make_unique<RowArrival>();
    arrival->pass = pass;
    const auto bytes = std::as_writable_bytes(std::span(whole));
    ASSERT_TRUE(actor_.Send(GatherRow{bytes, arrival.get()}).ok());
    scheduler.RunUntilIdle();
  }
  // Of rank `from`.
  void Want(int64_t version, int from = 1, ShardWanted wanted = {.stage = 2, .row = 1}) {
    wanted.version = version;
    ASSERT_TRUE(ActorOn(0, from).Send(wanted).ok());
    scheduler.RunUntilIdle();
  }
  void Bring(const ShardBlock& block, const std::string& bytes, int from = 1) {
    kept_.push_back(std::make_unique<std::string>(bytes));
    ASSERT_TRUE(ActorOn(0, from)
                    .SendBulk(block, std::as_bytes(std::span(*kept_.back())), [this] { ++let_go; },
                              {.channel = kShardChannel})
                    .ok());
    scheduler.RunUntilIdle();
  }
  void Lose(int rank) {
    channels().OnPeerDown(Rank(rank));
    ASSERT_TRUE(
        actor_.Send(MemberLost{Rank(rank), Error{ErrorCode::kPeerDown, "it was lost"}}).ok());
    scheduler.RunUntilIdle();
  }
  std::string Ended() const {
    if (!arrival->here.happened()) return "gathering";
    return arrival->status.ok() ? "OK" : arrival->status.error().message;
  }
  // The blocks that rank `to` has not let go.
  std::string Sent(int to) const {
    std::string text;
    for (const auto& block : heard.at(to).blocks) {
      const auto bytes = block.bulk.bytes();
      text += std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) + "|";
    }
    return text;
  }

  std::string own = "abcdef";
  std::string whole = "...........";
  std::unique_ptr<RowArrival> arrival{};
  RankTraffic traffic{};
  std::vector<std::string> down{};
  int let_go = 0;  // of what Bring sent
  ManualClock clock{};
  Scheduler scheduler{{.clock = &clock, .rank = {}, .trace_handlers = false}};

 private:
  static TraceWindow StepOne() {
    proto::TraceWindow spec;
    spec.set_first(1);
    spec.set_steps(1);
    return {spec, /*first_step=*/1};
  }
  // As `from` sees the actor of the row on `to`.
  ShardRef ActorOn(int to, int from) {
    return routers_[static_cast<size_t>(from)]->Remote<ShardWanted, WithBulk<ShardBlock>>(
        Rank(to), kFirstShardIndex);
  }
  void Meet(int rank) {
    Transport& theirs = *transports_[static_cast<size_t>(rank)];
    EXPECT_TRUE(transports_[0]->Connect(Rank(rank), theirs.LocalAddress()).ok());
    EXPECT_TRUE(theirs.Connect(Rank(0), transports_[0]->LocalAddress()).ok());
    EXPECT_TRUE(theirs.PostSlots(Rank(0), kShardChannel, 2, 4).ok());
    theirs.SetCredits(Rank(0), kShardChannel, 2);
    routers_[static_cast<size_t>(rank)]->Register<ShardWanted, WithBulk<ShardBlock>>(
        kFirstShardIndex, scheduler.Spawn<Listener>({}, std::ref(heard[rank])));
  }

  std::vector<std::unique_ptr<std::string>> kept_{};
  InprocNetwork network_{};
  std::vector<std::unique_ptr<Transport>> transports_{};
  std::vector<std::unique_ptr<RankRouter>> routers_{};
  std::optional<ShardChannels> channels_{};
  ShardActor::SelfRef actor_{};

 public:
  std::map<int, Heard> heard{};  // by rank
};

ShardBlock Block(int64_t first_byte) {
  return {.version = 7, .stage = 2, .row = 1, .run_bytes = 5, .first_byte = first_byte};
}

TEST(ShardActor, AsksWhoeverHasARunAndPutsTheRunsTogether) {
  RowOfThree row;
  row.Publish(7);
  row.traffic.in_training_step = true;
  row.Gather();
  ASSERT_THAT(row.heard[1].wanted, SizeIs(1));
  EXPECT_THAT(row.heard[2].wanted, IsEmpty()) << "it has nothing of the row";
  EXPECT_EQ(row.heard[1].wanted[0].version, 7);
  EXPECT_EQ(row.heard[1].wanted[0].stage, 2);
  EXPECT_EQ(row.heard[1].wanted[0].row, 1);
  EXPECT_EQ(row.heard[1].wanted[0].training, 1u);
  row.Bring(Block(0), "fghi");
  EXPECT_EQ(row.Ended(), "gathering");
  EXPECT_EQ(row.let_go, 1) << "a block's slot is free at once";
  row.Bring(Block(4), "j");
  EXPECT_EQ(row.Ended(), "OK");
  EXPECT_EQ(row.whole, "abcdeffghij");
  EXPECT_EQ(row.scheduler.waits().size(), 0);
  EXPECT_THAT(row.down, IsEmpty());
}

TEST(ShardActor, AnswersFromWhereTheRunLiesInBlocksOfASlot) {
  RowOfThree row;
  row.Publish(7);
  row.Want(7, 1, {.stage = 2, .row = 1, .training = 1});
  row.Want(7, 2);
  EXPECT_EQ(row.Sent(1), "abcd|ef|");
  EXPECT_EQ(row.Sent(2), "abcd|ef|");
  const auto& last = row.heard[1].blocks[1];
  EXPECT_EQ(last.message.version, 7);
  EXPECT_EQ(last.message.stage, 2);
  EXPECT_EQ(last.message.row, 1);
  EXPECT_EQ(last.message.run_bytes, 6);
  EXPECT_EQ(last.message.first_byte, 4);
  EXPECT_EQ(static_cast<const void*>(last.bulk.bytes().data()), row.own.data() + 4);
  EXPECT_EQ(row.channels().num_runs(), 1) << "rank 2 does not train";
  EXPECT_EQ(row.channels().sent_bytes(), 6);
}

TEST(ShardActor, WithoutACreditARunWaitsAndTheOthersGoOn) {
  RowOfThree row;
  row.Publish(7);
  row.Want(7);
  row.Publish(8);  // the run has left, though it is still read
  row.Want(8);
  row.Want(8, 2);
  EXPECT_EQ(row.Sent(1), "abcd|ef|");
  EXPECT_EQ(row.Sent(2), "abcd|ef|");
  row.heard[1].blocks.erase(row.heard[1].blocks.begin());
  row.scheduler.RunUntilIdle();
  EXPECT_EQ(row.Sent(1), "ef|abcd|");
  row.heard[1].blocks.clear();
  row.scheduler.RunUntilIdle();
  EXPECT_EQ(row.Sent(1), "ef|");
  EXPECT_EQ(row.heard[1].blocks[0].message.version, 8);
  EXPECT_THAT(row.down, IsEmpty());
}

TEST(ShardActor, ARequestWaitsUntilItsVersionIsPublished) {
  RowOfThree row;
  row.Want(0);
  EXPECT_EQ(row.Sent(1), "");
  row.Publish(0);
  EXPECT_EQ(row.Sent(1), "abcd|ef|");
  row.Want(1, 2);
  EXPECT_EQ(row.Sent(2), "");
  row.own = "ABCDEF";
  row.Publish(1);
  EXPECT_EQ(row.Sent(2), "ABCD|EF|");
}

TEST(ShardActor, ARequestThatDoesNotFitEndsTheActorInASentence) {
  const struct {
    int64_t version;
    int from;
    ShardWanted wanted;
    std::string said;
  } cases[] = {
      {7, 3, {.stage = 2, .row = 1}, "rank 3: it is no other owner"},
      {7, 1, {.stage = 2, .row = 0}, "rank 1: row 0 of stage 2 is another than row 1 of stage 2"},
      {7, 1, {.stage = 1, .row = 1}, "rank 1: row 1 of stage 1 is another than row 1 of stage 2"},
      {6, 1, {.stage = 2, .row = 1}, "rank 1: version 6 has gone, version 7 is here"},
      {-1, 1, {.stage = 2, .row = 1}, "rank 1: version -1 has gone, version 7 is here"},
  };
  for (const auto& each : cases) {
    RowOfThree row;
    row.Publish(7);
    row.Want(each.version, each.from, each.wanted);
    EXPECT_THAT(row.down,
                ElementsAre("rank 0, weights of model.layers.4: a request of " + each.said));
  }
}

TEST(ShardActor, AnOwnerAsksAgainOnlyWhenItHasBeenAnswered) {
  const std::string said =
      "rank 0, weights of model.layers.4: a request of rank 1: it comes before the one before it "
      "was answered";
  RowOfThree waiting;
  waiting.Want(8);
  waiting.Want(9);
  EXPECT_THAT(waiting.down, ElementsAre(said));
  RowOfThree sending;
  sending.Publish(7);
  sending.Want(7);
  sending.Want(7);  // no slot is free
  sending.Want(7);
  EXPECT_THAT(sending.down, ElementsAre(said));
}

TEST(ShardActor, GathersOfTracedStepsLeaveSpansFromTheRequestToTheArrival) {
  RowOfThree row;
  row.Publish(7);
  (void)DrainTrace([](const SpanRecord&) {});
  for (const int step : {1, 2}) {
    row.Gather({.direction = PassDirection::kBackward, .step = step, .microbatch = 3});
    row.clock.AdvanceMs(5);
    row.Bring(Block(0), "ghij");
    row.Bring(Block(4), "k");
    ASSERT_EQ(row.Ended(), "OK");
  }
  std::vector<SpanRecord> spans;
  (void)DrainTrace([&spans](const SpanRecord& span) { spans.push_back(span); });
  ASSERT_THAT(spans, SizeIs(1)) << "step 2 is not traced";
  EXPECT_EQ(TraceName(spans[0].name), "gather model.layers.4 for backward, 11 B");
  EXPECT_EQ(spans[0].rank, 0);
  EXPECT_EQ(spans[0].stage, 2);
  EXPECT_EQ(spans[0].step, 1);
  EXPECT_EQ(spans[0].microbatch, 3);
  EXPECT_EQ(spans[0].end_ns - spans[0].start_ns, 5'000'000);
}

TEST(ShardActor, AVersionThatSomebodyStillGathersIsNotReplaced) {
  RowOfThree sending;
  sending.Publish(7);
  sending.Want(7);
  sending.Want(7);  // no slot is free
  sending.Publish(8);
  EXPECT_THAT(sending.down,
              ElementsAre("rank 0, weights of model.layers.4: rank 1 still gathers version 7 while "
                          "version 8 takes its place"));
  RowOfThree waiting;
  waiting.Publish(7);
  waiting.Want(8);
  waiting.Publish(9);
  EXPECT_THAT(waiting.down,
              ElementsAre("rank 0, weights of model.layers.4: rank 1 still gathers version 8 while "
                          "version 9 takes its place"));
}

TEST(ShardActor, ABlockThatDoesNotFitEndsTheGatherInASentence) {
  const std::string was_to_come =
      ", came where byte 0 of 5, of version 7 of row 1 of stage 2, was to come";
  const struct {
    int from;
    ShardBlock block;
    std::string bytes;
    std::string said;
  } cases[] = {
      {3, Block(0), "fghi", "rank 3: it is no other owner"},
      {2, Block(0), "fghi", "rank 2: it was not asked for"},
      {1, Block(1), "ghij",
       "rank 1: 4 bytes at byte 1 of 5, of version 7 of row 1 of stage 2" + was_to_come},
      {1, Block(0), "",
       "rank 1: 0 bytes at byte 0 of 5, of version 7 of row 1 of stage 2" + was_to_come},
      {1,
       {.version = 8, .stage = 2, .row = 1, .run_bytes = 5},
       "fghi",
       "rank 1: 4 bytes at byte 0 of 5, of version 8 of row 1 of stage 2" + was_to_come},
      {1,
       {.version = 7, .stage = 2, .row = 0, .run_bytes = 5},
       "fghi",
       "rank 1: 4 bytes at byte 0 of 5, of version 7 of row 0 of stage 2" + was_to_come},
      {1,
       {.version = 7, .stage = 3, .row = 1, .run_bytes = 5},
       "fghi",
       "rank 1: 4 bytes at byte 0 of 5, of version 7 of row 1 of stage 3" + was_to_come},
      {1,
       {.version = 7, .stage = 2, .row = 1, .run_bytes = 6},
       "fghi",
       "rank 1: 4 bytes at byte 0 of 6, of version 7 of row 1 of stage 2" + was_to_come},
      {1, Block(-1), "fghi",
       "rank 1: 4 bytes at byte -1 of 5, of version 7 of row 1 of stage 2" + was_to_come},
  };
  for (const auto& each : cases) {
    RowOfThree row;
    row.Publish(7);
    row.Gather();
    row.Bring(each.block, each.bytes, each.from);
    const std::string said = "rank 0, weights of model.layers.4: a block of " + each.said;
    EXPECT_EQ(row.Ended(), said);
    EXPECT_THAT(row.down, ElementsAre(said));
    EXPECT_EQ(row.whole, "...........");
    EXPECT_EQ(row.let_go, 1);
  }
}

TEST(ShardActor, MoreThanARunAndMoreThanWasAskedForEndInASentence) {
  RowOfThree more;
  more.Publish(7);
  more.Gather();
  more.Bring(Block(0), "fghi");
  more.Bring(Block(4), "jk");
  EXPECT_EQ(more.Ended(),
            "rank 0, weights of model.layers.4: a block of rank 1: 2 bytes at byte 4 of 5, of "
            "version 7 of row 1 of stage 2, came where byte 4 of 5, of version 7 of row 1 of stage "
            "2, was to come");
  RowOfThree unasked;
  unasked.Publish(7);
  unasked.Bring(Block(0), "fghi");
  EXPECT_THAT(unasked.down, ElementsAre("rank 0, weights of model.layers.4: a block of rank 1: it "
                                        "was not asked for"));
}

TEST(ShardActor, ALongGatherIsToldOfThenEndedAndWhatComesLateIsDropped) {
  RowOfThree row;
  std::vector<std::string> told;
  row.scheduler.waits().SetOnDeadline(
      [&told](const WaitRecord&, const std::string& sentence) { told.push_back(sentence); });
  row.Publish(7);
  row.Gather();
  row.Bring(Block(0), "fghi");
  row.clock.AdvanceMs(101);
  row.scheduler.RunUntilIdle();
  EXPECT_THAT(told, ElementsAre("rank 0: weights of model.layers.4: shards from rank 1: deadline "
                                "100 ms passed, 4 of 5 bytes from rank 1"));
  EXPECT_EQ(row.Ended(), "gathering");
  row.clock.AdvanceMs(200);
  row.scheduler.RunUntilIdle();
  const std::string ended =
      "rank 0: weights of model.layers.4: shards from rank 1: deadline 300 ms passed, 4 of 5 bytes "
      "from rank 1";
  EXPECT_EQ(row.Ended(), ended);
  EXPECT_EQ(row.arrival->status.error().code, ErrorCode::kDeadlineExceeded);
  row.Bring(Block(4), "j");
  EXPECT_EQ(row.let_go, 2);
  EXPECT_THAT(row.down, IsEmpty());
  row.Gather();
  EXPECT_EQ(row.Ended(), ended) << "an error is final";
  row.Want(7);
  EXPECT_EQ(row.Sent(1), "abcd|ef|") << "but others are answered";
}

TEST(ShardActor, ALostOwnerEndsWhatItOwes) {
  RowOfThree row;
  row.Publish(7);
  row.Want(8);
  row.Gather();
  row.Lose(2);
  EXPECT_EQ(row.Ended(), "gathering") << "it owes nothing";
  row.Bring(Block(0), "fghi");
  row.Lose(1);
  EXPECT_EQ(row.Ended(), "rank 0, weights of model.layers.4: it was lost");
  EXPECT_EQ(row.arrival->status.error().code, ErrorCode::kPeerDown);
  row.Publish(8);
  EXPECT_EQ(row.Sent(1), "") << "nobody waits there";
  row.Gather();
  EXPECT_EQ(row.Ended(), "rank 0, weights of model.layers.4: it was lost");
  EXPECT_THAT(row.down, IsEmpty());
}

}  // namespace
}  // namespace troupe

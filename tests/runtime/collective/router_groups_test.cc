#include "runtime/collective/router_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "tests/runtime/collective/router_world.h"

namespace troupe {
namespace {

// Rank 0 of two, and what rank 1 is said to have sent.
struct RouterGroupsTest : ::testing::Test {
  RouterGroupsTest() {
    for (int rank = 0; rank < 2; ++rank) {
      GroupSpec spec{
          .id = GroupId(5), .name = "g", .ranks = {Rank(0), Rank(1)}, .self = Rank(rank)};
      groups.push_back(world.Open(spec, 16));
    }
    scope.emplace(world.stream(0));
  }
  ~RouterGroupsTest() override {
    scope.reset();
    groups.clear();
  }

  void Launch(Task<Status> task) {
    world.stream(0).LaunchTask(*scope, std::move(task), [this](const WorkTime&, Status status) {
      ended = std::move(status);
    });
  }
  void Settle() {
    int passes = 0;
    ASSERT_TRUE(world.Until([&] { return ++passes > 100; }));
  }
  template <typename M>
  void Feed(const M& message, int from = 1, size_t bulk_bytes = 0) {
    Envelope envelope;
    envelope.type_id = WireTypeId<M>();
    envelope.job = envelope.epoch = 1;
    envelope.source_rank = from;
    envelope.destination_actor = 7;
    envelope.num_bulk = std::is_same_v<M, GroupBlock> ? 1 : 0;
    static std::byte bytes[2000];
    Bulk bulk;
    if (bulk_bytes > 0) bulk = Bulk(std::span(bytes, bulk_bytes), [this] { ++released; });
    world.router(0).Deliver({.envelope = envelope,
                             .payload = std::as_bytes(std::span(&message, 1)),
                             .bulk = std::move(bulk)});
  }

  RouterWorld<SimWorldNetwork> world{2};
  std::vector<std::unique_ptr<Group>> groups{};
  std::optional<StreamScope> scope{};
  std::optional<Status> ended{};
  int released = 0;
};

constexpr GroupBlock kBarrier{
    .sequence = 1, .group = 5, .kind = static_cast<uint8_t>(GroupOperationKind::kBarrier)};

TEST_F(RouterGroupsTest, WhatAMemberSentBeforeItWasLostCounts) {
  Launch(groups[0]->Barrier());
  Settle();
  EXPECT_FALSE(ended);
  Feed(kBarrier);
  world.groups(0).OnPeerDown(Rank(1), Error{ErrorCode::kPeerDown, "rank 1 was lost"});
  Settle();
  ASSERT_TRUE(ended);
  EXPECT_TRUE(ended->ok()) << ended->error().message;
  Launch(groups[0]->Barrier());
  Settle();
  EXPECT_EQ(ended->error().message, "group g: rank 1 was lost");
}

TEST_F(RouterGroupsTest, WhatIsForNobodyIsDropped) {
  GroupBlock block = kBarrier;
  block.group = 6;
  Feed(block);
  Feed(kBarrier, /*from=*/3);
  Feed(kBarrier, /*from=*/0);  // this rank itself
  GroupFault fault{.group = 5, .code = 200};
  Feed(fault);
  fault = {.group = 5, .text_bytes = GroupFault::kTextBytes + 1};
  Feed(fault);
  Settle();
  EXPECT_EQ(world.groups(0).num_dropped(), 5);
  Launch(groups[0]->Barrier());
  Feed(kBarrier);
  Settle();
  EXPECT_EQ(ended && ended->ok(), true);
}

// What is said about lending is checked as any other message.
TEST_F(RouterGroupsTest, WhatIsReadIsSaidByAMemberOfAnOpenOperation) {
  Feed(BlocksRead{.sequence = 1, .group = 6, .rank = 1});
  Feed(BlocksRead{.sequence = 1, .group = 5, .rank = 0});
  Feed(BlocksRead{.sequence = 1, .group = 5, .rank = -7});
  Feed(LendingOffer{.number = 3, .rank = 9});
  Feed(LendingOffer{.number = 3, .rank = 0});
  Settle();
  EXPECT_EQ(world.groups(0).num_dropped(), 5);
  Feed(BlocksRead{.sequence = 77, .group = 5, .rank = 1});
  Feed(LendingOffer{.number = 3, .rank = 1, .process_id = -1, .descriptor = -1});
  Feed(LendingAnswer{.number = 3, .rank = 1, .reads = 1});
  Launch(groups[0]->Barrier());
  Feed(kBarrier);
  Settle();
  EXPECT_EQ(ended && ended->ok(), true);
}

TEST_F(RouterGroupsTest, AFaultOfAMemberEndsTheGroupInItsWords) {
  Launch(groups[0]->Barrier());
  Settle();
  GroupFault fault{.group = 5, .code = static_cast<uint8_t>(ErrorCode::kDeadlineExceeded)};
  const std::string text = "rank 1: nothing from rank 9";
  fault.text_bytes = text.size();
  std::memcpy(fault.text, text.data(), text.size());
  Feed(fault);
  Settle();
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(ended->error().message, text);
}

// Elements alone, by kind; an operation counts when it has ended well.
TEST_F(RouterGroupsTest, CountsWhatItSent) {
  const auto sent = [this](GroupOperationKind kind) { return groups[0]->traffic(kind); };
  std::vector<float> data(10'000, 1.0F);
  const Elements elements{static_cast<uint8_t>(DType::kFloat32), data.data(), 10'000};
  StreamScope other(world.stream(1));
  std::vector<float> theirs(10'000, 2.0F);
  int done = 0;
  const auto both = [&](const std::function<Task<Status>(Group&, Elements)>& run) {
    done = 0;
    world.stream(0).LaunchTask(*scope, run(*groups[0], elements),
                               [&](const WorkTime&, const Status&) { ++done; });
    world.stream(1).LaunchTask(other,
                               run(*groups[1], {elements.dtype, theirs.data(), elements.count}),
                               [&](const WorkTime&, const Status&) { ++done; });
    ASSERT_TRUE(world.Until([&] { return done == 2; }));
  };
  both([](Group& group, Elements all) { return group.AllReduce(all); });
  EXPECT_EQ(data[9'999], 3.0F);
  EXPECT_EQ(sent(GroupOperationKind::kAllReduce).num_operations, 1);
  EXPECT_EQ(sent(GroupOperationKind::kAllReduce).sent_bytes, 10'000 * 4);
  both([](Group& group, Elements all) { return group.Broadcast(all, /*root=*/1); });
  both([](Group& group, Elements all) { return group.Broadcast(all, /*root=*/0); });
  EXPECT_EQ(sent(GroupOperationKind::kBroadcast).num_operations, 2);
  EXPECT_EQ(sent(GroupOperationKind::kBroadcast).sent_bytes, 10'000 * 4);
  both([](Group& group, Elements) { return group.Barrier(); });
  EXPECT_EQ(sent(GroupOperationKind::kBarrier).num_operations, 1);
  EXPECT_EQ(sent(GroupOperationKind::kBarrier).sent_bytes, 0);
  Launch(groups[0]->AllReduce(elements));
  world.groups(0).OnPeerDown(Rank(1), Error{ErrorCode::kPeerDown, "rank 1 was lost"});
  Settle();
  EXPECT_EQ(sent(GroupOperationKind::kAllReduce).num_operations, 1) << "it failed";
}

// Whatever a member says, the group ends in a sentence or takes no notice, and every slot is free
// again in the end.
TEST_F(RouterGroupsTest, NoiseHarmsNobody) {
  std::mt19937 random(9);
  int fed = 0;
  for (int round = 0; round < 300; ++round) {
    GroupSpec spec{.id = GroupId(100 + static_cast<uint32_t>(round)),
                   .name = "noise",
                   .ranks = {Rank(0), Rank(1)},
                   .self = Rank(0)};
    const auto channel = static_cast<uint16_t>(100 + round);
    auto group = world.Open(spec, channel);
    spec.self = Rank(1);
    auto honest = world.Open(spec, channel);  // never begins
    std::vector<int32_t> data(6000);
    const Elements elements{static_cast<uint8_t>(DType::kInt32), data.data(), 6000};
    ended.reset();
    Launch(group->AllReduce(elements));
    Settle();
    for (int i = 0; i < 8; ++i) {
      GroupBlock block{.sequence = random() % 4,
                       .group = spec.id.value,
                       .dtype = static_cast<uint8_t>(DType::kInt32),
                       .part = static_cast<BlockPart>(random() % 5),
                       .total = 6000,
                       .count = random() % 2 == 0 ? 3008 : 2992,
                       .expects = random() % 2 == 0 ? 2992 : 6000,
                       .first = static_cast<int64_t>(random() % 3) * 250};
      if (random() % 8 == 0) block.kind = static_cast<uint8_t>(random());
      if (random() % 8 == 0) block.dtype = static_cast<uint8_t>(random());
      if (random() % 8 == 0) block.total = static_cast<int64_t>(random()) << 32;
      if (random() % 8 == 0) block.peer = static_cast<int32_t>(random());
      if (random() % 8 == 0) {
        block.lent = {.buffer = random() % 3,
                      .buffer_bytes = static_cast<int64_t>(random()),
                      .offset = static_cast<int64_t>(random()) - (int64_t{1} << 31),
                      .num_bytes = static_cast<int64_t>(random() % 4) * 1000 - 1000,
                      .descriptor = static_cast<int32_t>(random() % 64),
                      .mark = static_cast<uint32_t>(random() % 8192)};
      }
      ++fed;
      Feed(block, 1, random() % 2 == 0 ? 1000 : 1 + random() % 2000);
    }
    Settle();
    scope.reset();
    group.reset();
    scope.emplace(world.stream(0));
  }
  Settle();
  EXPECT_EQ(released, fed);
}

TEST_F(RouterGroupsTest, ANumberIsOneGroups) {
  GroupSpec spec{.id = GroupId(5), .name = "h", .ranks = {Rank(0), Rank(1)}, .self = Rank(0)};
  const auto again = world.groups(0).Open(spec, 18);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().message, "group h: number 5 is group g already");
}

// D2: what is under way lies in as many buffers as there are slots.
TEST(RouterGroups, MemoryIsBoundedByTheSlots) {
  RouterWorld<InprocWorldNetwork> world(2);
  std::vector<std::unique_ptr<Group>> groups;
  std::vector<std::vector<float>> data(2, std::vector<float>(100'000));
  std::vector<std::unique_ptr<StreamScope>> scopes;
  int ended = 0;
  for (int rank = 0; rank < 2; ++rank) {
    const GroupSpec spec{
        .id = GroupId(5), .name = "g", .ranks = {Rank(0), Rank(1)}, .self = Rank(rank)};
    groups.push_back(world.Open(spec, 16));
    scopes.push_back(std::make_unique<StreamScope>(world.stream(rank)));
  }
  for (int rank = 0; rank < 2; ++rank) {
    auto& mine = data[static_cast<size_t>(rank)];
    world.stream(rank).LaunchTask(
        *scopes[static_cast<size_t>(rank)],
        groups[static_cast<size_t>(rank)]->AllReduce(
            {static_cast<uint8_t>(DType::kFloat32), mine.data(), std::ssize(mine)}),
        [&](const WorkTime&, const Status& status) { ended += status.ok() ? 1 : 0; });
  }
  ASSERT_TRUE(world.Until([&] { return ended == 2; }));
  const auto comm = static_cast<size_t>(MemoryTag::kComm);
  EXPECT_EQ(world.ledger(0).Snapshot().peak_bytes[comm], 2 * 1000);
  scopes.clear();
}

}  // namespace
}  // namespace troupe

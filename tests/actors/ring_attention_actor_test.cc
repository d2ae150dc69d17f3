#include "actors/ring_attention_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/trace/span.h"
#include "tests/actors/middle_of_three.h"

namespace troupe {
namespace {

using testing::Backward;
using ::testing::ElementsAre;
using testing::Gradient;
using testing::Hop;
using ::testing::IsEmpty;
using testing::kBlockBytes;
using testing::MiddleOfThree;
using ::testing::SizeIs;

TEST(RingAttentionActor, GivesOutABlockAndSendsItOnFromItsSlot) {
  MiddleOfThree ring;
  ring.traffic.in_training_step = true;
  const KvArrival& first = ring.Expect(Hop(1));
  EXPECT_EQ(ring.End(first), "waits");
  const KvDeparture& own = ring.Send(Hop(1), "own.");
  ASSERT_THAT(ring.heard[6].blocks, SizeIs(1));
  const KvBlock& sent = ring.heard[6].blocks[0].message;
  EXPECT_EQ(sent.step, 1);
  EXPECT_EQ(sent.microbatch, 2);
  EXPECT_EQ(sent.layer, 7);
  EXPECT_EQ(sent.hop, 1);
  EXPECT_EQ(sent.phase, 0u);
  EXPECT_EQ(sent.tensor.num_bytes, kBlockBytes);
  EXPECT_EQ(sent.tensor.dtype, static_cast<uint8_t>(DType::kBFloat16));
  EXPECT_EQ(ring.End(own), "waits") << "rank 6 has not read it";
  EXPECT_EQ(ring.TakeNext(), "1own. ");
  EXPECT_EQ(ring.End(own), "gone");

  ASSERT_TRUE(ring.Bring(Hop(1), "four"));
  EXPECT_EQ(ring.End(first), "four");
  EXPECT_EQ(ring.scheduler.waits().size(), 0);
  const KvDeparture& onward = ring.Send(Hop(2), first.block);
  ASSERT_THAT(ring.heard[6].blocks, SizeIs(1));
  EXPECT_EQ(static_cast<const void*>(ring.heard[6].blocks[0].bulk.bytes().data()),
            first.block.data())
      << "no copy is made";
  ring.Let(Hop(1));
  EXPECT_EQ(ring.let_go, 0) << "it has not gone";
  EXPECT_EQ(ring.TakeNext(), "2four ");
  EXPECT_EQ(ring.End(onward), "gone");
  EXPECT_EQ(ring.let_go, 1);
  EXPECT_THAT(ring.down, IsEmpty());
}

TEST(RingAttentionActor, ASlotIsFreeWhenItsBlockHasGoneAndIsLet) {
  MiddleOfThree ring;
  const KvArrival& first = ring.Expect(Hop(1));
  ring.Bring(Hop(1), "four");
  ring.Send(Hop(2), first.block);
  ring.TakeNext();
  EXPECT_EQ(ring.let_go, 0) << "the pass computes with it";
  ring.Let(Hop(1));
  EXPECT_EQ(ring.let_go, 1);
}

TEST(RingAttentionActor, GradientsAreChangedInTheirSlotsAndSentOn) {
  MiddleOfThree ring;
  const KvArrival& first = ring.Expect(Gradient(1));
  ring.Bring(Gradient(1), "abcd");
  ASSERT_EQ(ring.End(first), "abcd");
  first.block[0] = std::byte{'A'};
  ring.Send(Gradient(2), first.block);
  ring.Let(Gradient(1));
  EXPECT_EQ(ring.TakeNext(), "g2Abcd ");
  EXPECT_EQ(ring.let_go, 1);
}

TEST(RingAttentionActor, BlocksThatComeEarlyWaitInTheirSlots) {
  MiddleOfThree ring;
  ASSERT_TRUE(ring.Bring(Hop(1), "aaaa"));
  ASSERT_TRUE(ring.Bring(Hop(2), "bbbb"));
  const KvArrival& first = ring.Expect(Hop(1));
  EXPECT_EQ(ring.End(first), "aaaa");
  ring.Let(Hop(1));
  EXPECT_EQ(ring.let_go, 1);
  EXPECT_EQ(ring.End(ring.Expect(Hop(2))), "bbbb");
  EXPECT_THAT(ring.down, IsEmpty());
}

TEST(RingAttentionActor, ThereAreNoMoreBlocksThanSlots) {
  const std::string said = "rank 5, ring attention: a block of rank 4: there is no slot for it";
  MiddleOfThree early;
  for (const int hop : {1, 2, 3}) ASSERT_TRUE(early.Bring(Hop(hop), "aaaa"));
  EXPECT_THAT(early.down, ElementsAre(said));
  MiddleOfThree held;
  const KvArrival& first = held.Expect(Hop(1));
  held.Bring(Hop(1), "aaaa");
  held.Bring(Hop(2), "bbbb");
  held.Bring(Hop(3), "cccc");
  EXPECT_THAT(held.down, ElementsAre(said));
  EXPECT_EQ(held.End(first), "aaaa");
}

TEST(RingAttentionActor, WithoutACreditBlocksWaitInOrder) {
  MiddleOfThree ring;
  const KvDeparture& first = ring.Send(Hop(1), "aaaa");
  const KvDeparture& second = ring.Send(Hop(2), "bbbb");
  const KvDeparture& third = ring.Send(Hop(1, {.layer = 8}), "cccc");
  const KvDeparture& fourth = ring.Send(Hop(2, {.layer = 8}), "dddd");
  const KvDeparture& other = ring.Send(Backward(1), "back");
  const KvDeparture& gradient = ring.Send(Gradient(1), "grad");
  ASSERT_THAT(ring.heard[6].blocks, SizeIs(3)) << "the other lane has its own credits";
  const auto waits = ring.scheduler.waits().Snapshot();
  ASSERT_THAT(waits, SizeIs(1)) << "the first of those without";
  EXPECT_EQ(waits[0].waiter, "rank 5");
  EXPECT_EQ(waits[0].owed, "microbatch 2 attention of layer 8: a slot for the block of hop 1");
  EXPECT_EQ(waits[0].from, "rank 6");
  EXPECT_THAT(waits[0].from_ranks, ElementsAre(6));
  EXPECT_EQ(ring.TakeNext(), "1aaaa 2bbbb 1back g1grad ");
  EXPECT_EQ(ring.End(first), "gone");
  EXPECT_EQ(ring.End(second), "gone");
  EXPECT_EQ(ring.End(other), "gone");
  EXPECT_EQ(ring.End(gradient), "gone");
  EXPECT_EQ(ring.End(third), "waits");
  EXPECT_EQ(ring.TakeNext(), "1cccc 2dddd ");
  EXPECT_EQ(ring.End(third), "gone");
  EXPECT_EQ(ring.End(fourth), "gone");
  EXPECT_EQ(ring.scheduler.waits().size(), 0);
}

TEST(RingAttentionActor, LanesAndGradientsDoNotMix) {
  MiddleOfThree ring;
  const KvArrival& forward = ring.Expect(Hop(1));
  const KvArrival& backward = ring.Expect(Backward(1));
  const KvArrival& gradient = ring.Expect(Gradient(1));
  ring.Bring(Gradient(1), "grad");
  ring.Bring(Backward(1), "back");
  EXPECT_EQ(ring.End(forward), "waits");
  ring.Bring(Hop(1), "forw");
  EXPECT_EQ(ring.End(forward), "forw");
  EXPECT_EQ(ring.End(backward), "back");
  EXPECT_EQ(ring.End(gradient), "grad");
  // What is computed again goes on the lane of backward.
  ring.Let(Backward(1));
  const KvHop again = Hop(1, {.phase = KvPhase::kRecompute});
  const KvArrival& recomputed = ring.Expect(again);
  ring.Bring(again, "agai");
  EXPECT_EQ(ring.End(recomputed), "agai");
  EXPECT_THAT(ring.down, IsEmpty());
}

TEST(RingAttentionActor, HandedOverByPointerBlocksAreCopiedWhenThePassComes) {
  MiddleOfThree ring(/*copies=*/true);
  ring.Bring(Hop(1), "aaaa");
  ring.Bring(Hop(2), "bbbb");
  EXPECT_EQ(ring.let_go, 0) << "they are early";
  const KvArrival& first = ring.Expect(Hop(1));
  EXPECT_EQ(ring.let_go, 1);
  const KvArrival& second = ring.Expect(Hop(2));
  EXPECT_EQ(ring.let_go, 2);
  EXPECT_EQ(ring.End(first), "aaaa");
  EXPECT_EQ(ring.End(second), "bbbb");
  // There are as many places for copies as slots.
  ring.Send(Hop(2), first.block);
  ring.Let(Hop(1));
  ring.Bring(Hop(3), "cccc");
  const KvArrival& third = ring.Expect(Hop(3));
  EXPECT_EQ(ring.End(third), "waits") << "the first has not gone";
  EXPECT_EQ(ring.TakeNext(), "2aaaa ");
  EXPECT_EQ(ring.End(third), "cccc");
  EXPECT_EQ(third.block.data(), first.block.data());
  EXPECT_THAT(ring.down, IsEmpty());
}

TEST(RingAttentionActor, CountsWhatTrainingStepsSendAndHowLongTheyWait) {
  MiddleOfThree ring;
  for (const bool trains : {true, false}) {
    ring.traffic.in_training_step = trains;
    ring.Expect(Backward(1));
    ring.Pass(3);
    ring.Bring(Backward(1), "aaaa");
    ring.Pass(5);
    ring.Let(Backward(1), 2'000'000);
    ring.Send(Backward(1), "own.");
    ring.Send(Gradient(1), "grad");
    ring.Send(Gradient(2), "grad");
    ring.TakeNext();
  }
  const auto& [keys_values, gradients] = ring.blocks.sent;
  EXPECT_EQ(keys_values.hops, 1);
  EXPECT_EQ(keys_values.bytes, 4);
  EXPECT_EQ(gradients.hops, 2);
  EXPECT_EQ(gradients.bytes, 8);
  EXPECT_EQ(ring.blocks.under_way_ns, 3'000'000);
  EXPECT_EQ(ring.blocks.idle_ns, 2'000'000);
}

TEST(RingAttentionActor, SaysWhichHopItsPassesHaveComeTo) {
  MiddleOfThree ring;
  ring.Expect(Hop(1));
  ring.Bring(Hop(1), "aaaa");
  ring.Expect(Hop(2));
  ring.Let(Hop(1));
  ring.Bring(Hop(2), "bbbb");
  ring.Let(Hop(2));
  EXPECT_THAT(ring.came_to, ElementsAre("1", "2", "-"));
}

TEST(RingAttentionActor, HopsOfTracedStepsLeaveSpansThatArrowsJoin) {
  MiddleOfThree ring;
  (void)DrainTrace([](const SpanRecord&) {});
  for (const int64_t step : {1, 2}) {
    ring.Expect(Hop(1, {.step = step}));
    ring.Send(Hop(1, {.step = step}), "own.");
    ring.Pass(5);
    ASSERT_THAT(ring.heard[6].blocks, SizeIs(1));
    EXPECT_EQ(ring.heard[6].blocks[0].envelope.flow_id != 0, step == 1) << "step 2 is not traced";
    ring.TakeNext();
    ring.Bring(Hop(1, {.step = step}), "four");
    ring.Let(Hop(1, {.step = step}));
  }
  std::vector<SpanRecord> spans;
  (void)DrainTrace([&spans](const SpanRecord& span) { spans.push_back(span); });
  ASSERT_THAT(spans, SizeIs(2));
  for (const SpanRecord& span : spans) {
    EXPECT_EQ(TraceName(span.name), "keys and values of rank 4, hop 1, layer 7, forward");
    EXPECT_EQ(span.rank, 5);
    EXPECT_EQ(span.microbatch, 2);
    EXPECT_EQ(span.step, 1);
  }
  EXPECT_EQ(spans[0].category, SpanCategory::kSend);
  EXPECT_NE(spans[0].flow_out, 0u);
  EXPECT_EQ(spans[0].end_ns - spans[0].start_ns, 5'000'000);
  EXPECT_EQ(spans[1].category, SpanCategory::kReceive);
  EXPECT_EQ(spans[1].flow_in, 77u);
}

}  // namespace
}  // namespace troupe

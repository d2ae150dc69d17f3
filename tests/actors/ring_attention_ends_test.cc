// How blocks that nobody expects, losses and long waits end, and what they say.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "actors/ring_attention_actor.h"
#include "tests/actors/middle_of_three.h"

namespace troupe {
namespace {

using testing::BlockOfBytes;
using ::testing::ElementsAre;
using testing::Gradient;
using ::testing::HasSubstr;
using testing::Hop;
using ::testing::IsEmpty;
using testing::MiddleOfThree;

// What is said of a block for the forward.
struct Said {
  int hop = 1;
  std::string_view whose = "rank 4";
  int layer = 7;
  int microbatch = 2;
  int step = 1;
  int num_bytes = 4;
  std::string_view tensor = "(1, 2) bfloat16";
};
std::string InWords(const Said& said) {
  return fmt::format(
      "hop {} with keys and values of {} for the forward of layer {}, microbatch {}, step {}, {} "
      "bytes, {}",
      said.hop, said.whose, said.layer, said.microbatch, said.step, said.num_bytes, said.tensor);
}

struct Unexpected {
  KvHop hop{};
  std::string text{};
  MiddleOfThree::Odd odd{};
  Said said{};
};
std::vector<Unexpected> UnexpectedBlocks() {
  TensorDescriptor float32 = BlockOfBytes(DType::kFloat32);
  TensorDescriptor wider = BlockOfBytes(DType::kBFloat16);
  wider.shape[1] = 3;
  TensorDescriptor longer = BlockOfBytes(DType::kBFloat16);
  longer.num_bytes = 5;
  KvHop of_home = Hop(1);
  of_home.origin = 1;
  KvHop of_none = Hop(1);
  of_none.origin = 9;
  return {{Hop(2), "aaaa", {}, {.hop = 2, .whose = "rank 6"}},
          {of_home, "aaaa", {}, {.whose = "rank 5"}},
          {of_none, "aaaa", {}, {.whose = "place 9"}},
          {Hop(1, {.layer = 8}), "aaaa", {}, {.layer = 8}},
          {Hop(1, {.microbatch = 3}), "aaaa", {}, {.microbatch = 3}},
          {Hop(1, {.step = 2}), "aaaa", {}, {.step = 2}},
          {Hop(1), "aaaaa", {}, {.num_bytes = 5}},
          {Hop(1), "", {}, {.num_bytes = 0}},
          {Hop(1), "aaaa", {.tensor = float32}, {.tensor = "(1, 2) float32"}},
          {Hop(1), "aaaa", {.tensor = wider}, {.tensor = "(1, 3) bfloat16"}},
          {Hop(1), "aaaa", {.tensor = longer}, {}}};
}

TEST(RingAttentionActor, ABlockThatIsNotExpectedEndsInASentenceThatSaysBoth) {
  for (const Unexpected& each : UnexpectedBlocks()) {
    const std::string said =
        fmt::format("rank 5, ring attention: a block of rank 4: {}, came where {}, was to come",
                    InWords(each.said), InWords({}));
    MiddleOfThree ring;
    const KvArrival& expected = ring.Expect(Hop(1));
    ASSERT_TRUE(ring.Bring(each.hop, each.text, each.odd));
    EXPECT_EQ(ring.End(expected), said);
    EXPECT_EQ(expected.status.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(ring.down, ElementsAre(said));
    EXPECT_EQ(ring.let_go, 1);
    MiddleOfThree early;  // the same when it is there before
    ASSERT_TRUE(early.Bring(each.hop, each.text, each.odd));
    EXPECT_THAT(early.down, IsEmpty());
    EXPECT_EQ(early.End(early.Expect(Hop(1))), said);
    EXPECT_THAT(early.down, ElementsAre(said));
  }
}

TEST(RingAttentionActor, ABlockThatNobodyMaySendEndsInASentence) {
  const struct {
    KvHop hop;
    MiddleOfThree::Odd odd;
    std::string said;
  } cases[] = {
      {Hop(1), {.from = 6}, "rank 6: rank 4 comes before this one"},
      {Hop(1), {.from = 0}, "rank 0: rank 4 comes before this one"},
      {Hop(1), {.phase = 3}, "rank 4: phase 3 has none"},
      {Hop(1), {.phase = 256}, "rank 4: phase 256 has none"},
      {Gradient(1), {.phase = 0}, "rank 4: phase 0 has none"},
      {Hop(1), {.channel = kKvGradientChannel}, "rank 4: it came on channel 6, not 4"},
      {Hop(1), {.phase = 1}, "rank 4: it came on channel 4, not 5"},
  };
  for (const auto& each : cases) {
    MiddleOfThree ring;
    const KvArrival& expected = ring.Expect(Hop(1));
    const KvDeparture& departure = ring.Send(Hop(1), "own.");
    ASSERT_TRUE(ring.Bring(each.hop, "aaaa", each.odd));
    const std::string said = "rank 5, ring attention: a block of " + each.said;
    EXPECT_THAT(ring.down, ElementsAre(said));
    EXPECT_EQ(ring.End(expected), said);
    EXPECT_EQ(ring.End(departure), said);
    EXPECT_EQ(ring.let_go, 1);
  }
}

TEST(RingAttentionActor, ALostMemberEndsWhatIsOpenAndNamesTheHop) {
  MiddleOfThree before;
  const KvArrival& expected = before.Expect(Hop(1));
  before.Lose(0);
  EXPECT_EQ(before.End(expected), "waits") << "it is no member";
  before.Lose(4);
  const std::string said =
      "rank 5, attention of layer 7, microbatch 2: block of hop 1 from rank 4 to rank 5: it was "
      "lost";
  EXPECT_EQ(before.End(expected), said);
  EXPECT_EQ(expected.status.error().code, ErrorCode::kPeerDown);
  EXPECT_EQ(before.End(before.Expect(Hop(2))), said) << "an error is final";
  EXPECT_EQ(before.End(before.Send(Hop(1), "own.")), said);
  EXPECT_EQ(before.scheduler.waits().size(), 0);
  EXPECT_THAT(before.down, IsEmpty());

  MiddleOfThree behind;
  const KvArrival& gradient = behind.Expect(Gradient(2));
  const KvDeparture& departure = behind.Send(Gradient(1), "grad");
  behind.Lose(6);
  const std::string to_next =
      "rank 5, attention of layer 7, microbatch 2: gradient of hop 1 from rank 5 to rank 6: it was "
      "lost";
  EXPECT_EQ(behind.End(gradient), to_next);
  EXPECT_EQ(behind.End(departure), to_next);

  MiddleOfThree idle;
  idle.Lose(6);
  EXPECT_EQ(idle.End(idle.Expect(Hop(1, {.microbatch = 4}))),
            "rank 5, ring attention: it was lost");
}

TEST(RingAttentionActor, WhatWasGivenOutStaysWhenAMemberIsLost) {
  MiddleOfThree ring;
  const KvArrival& first = ring.Expect(Hop(1));
  ring.Bring(Hop(1), "aaaa");
  ring.Lose(6);
  ring.Let(Hop(1));
  EXPECT_EQ(ring.End(first), "aaaa");
  EXPECT_EQ(ring.let_go, 0) << "the stream may still compute with it";
}

TEST(RingAttentionActor, ALongWaitIsToldOfThenEndedAndWhatComesLateIsDropped) {
  MiddleOfThree ring;
  std::vector<std::string> told;
  ring.scheduler.waits().SetOnDeadline(
      [&told](const WaitRecord&, const std::string& sentence) { told.push_back(sentence); });
  const KvArrival& expected = ring.Expect(Hop(1));
  ring.Pass(101);
  const std::string sentence =
      "rank 5: microbatch 2 attention of layer 7: block of hop 1 from rank 4: deadline ";
  EXPECT_THAT(told, ElementsAre(sentence + "100 ms passed in step 1"));
  EXPECT_EQ(ring.End(expected), "waits");
  ring.Pass(200);
  EXPECT_EQ(ring.End(expected), sentence + "300 ms passed in step 1");
  EXPECT_EQ(expected.status.error().code, ErrorCode::kDeadlineExceeded);
  ring.Bring(Hop(1), "late");
  EXPECT_EQ(ring.let_go, 1);
  EXPECT_THAT(ring.down, IsEmpty());

  MiddleOfThree in_time;
  in_time.Expect(Hop(1));
  in_time.Pass(250);
  in_time.Bring(Hop(1), "aaaa");
  const KvArrival& second = in_time.Expect(Hop(2));
  in_time.Pass(250);
  EXPECT_EQ(in_time.End(second), "waits") << "its deadline is its own";
}

using RingAttentionActorDeathTest = ::testing::Test;

TEST(RingAttentionActorDeathTest, PassesKeepWhatTheyAgreedOn) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  MiddleOfThree ring;
  ring.Expect(Hop(1));
  EXPECT_DEATH(ring.Let(Hop(1)), HasSubstr("block of hop 1 is let go and was not here"));
  ring.Expect(Hop(2));
  EXPECT_DEATH(ring.Expect(Hop(3)), HasSubstr("block of hop 3 is expected beside 2 others"));
  EXPECT_DEATH(ring.Send(Hop(1), "12345"), HasSubstr("5 bytes of 4 are sent"));
}

}  // namespace
}  // namespace troupe

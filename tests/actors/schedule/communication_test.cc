#include "actors/schedule/communication.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(Communication, StandsRightAfterWhatItSends) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = 2});
  EXPECT_EQ(*ToCsvWithCommunication(schedule),
            "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\r\n"
            "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\r\n");
}

TEST(Communication, ListsWhereSendsEnd) {
  const Schedule schedule = *ParseCsv("0F0,0F1,0B0,0B1,0REDUCE_GRAD\n1F0,1B0,1F1,1B1\n", "waits");
  EXPECT_EQ(*ToCsvWithCommunication(schedule, Dialect::kPyTorch),
            "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0WAIT_SEND_F0,0RECV_B1,0B1,0WAIT_SEND_F1,"
            "0REDUCE_GRAD,0WAIT_REDUCE_GRAD\r\n"
            "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1,1WAIT_SEND_B0,1WAIT_SEND_B1\r\n");
}

// What has a wait in the list keeps it where it is.
TEST(Communication, ListsNoSecondWaitForSums) {
  const Schedule schedule =
      *ParseCsv("0F0,1F0,1B0,1REDUCE_GRAD,0B0,0REDUCE_GRAD,1WAIT_REDUCE_GRAD\n", "waits");
  EXPECT_EQ(*ToCsvWithCommunication(schedule, Dialect::kPyTorch),
            "0F0,1F0,1B0,1REDUCE_GRAD,0B0,0REDUCE_GRAD,0WAIT_REDUCE_GRAD,1WAIT_REDUCE_GRAD\r\n");
}

TEST(Communication, WithoutBackwardSendsEndLast) {
  Schedule schedule = GenerateForwardOnly(2, 2, 2);
  schedule.ranks = *WithCommunication(schedule, Waits::kListed);
  EXPECT_EQ(
      ToCsv(schedule),
      "0F0,0SEND_F0,0F1,0SEND_F1,0WAIT_SEND_F0,0WAIT_SEND_F1\r\n1RECV_F0,1F0,1RECV_F1,1F1\r\n");
}

TEST(Communication, StagesOfOneRankHandOver) {
  const Schedule schedule = *Generate({.name = "zb-v", .num_ranks = 2, .num_microbatches = 1});
  EXPECT_EQ(*ToCsvWithCommunication(schedule),
            "0F0,0SEND_F0,3RECV_F0,3F0,3I0,3SEND_B0,3W0,0RECV_B0,0I0,0W0\r\n"
            "1RECV_F0,1F0,2F0,2SEND_F0,2RECV_B0,2I0,2W0,1I0,1SEND_B0,1W0\r\n");
}

TEST(Communication, APairSendsAtItsEnd) {
  const Schedule schedule =
      *Generate({.name = "dualpipe-v", .num_ranks = 2, .num_microbatches = 4});
  const std::string text = *ToCsvWithCommunication(schedule);
  EXPECT_THAT(text, HasSubstr("(0F3;3B1)OVERLAP_F_B,0SEND_F3,3SEND_B1,"));
}

TEST(Communication, EveryScheduleReadsBackWithIt) {
  for (const ScheduleInfo& known : KnownSchedules()) {
    const Schedule schedule =
        *Generate({.name = std::string(known.name), .num_ranks = 4, .num_microbatches = 12});
    for (const Waits waits : {Waits::kImplied, Waits::kListed}) {
      Schedule sent = schedule;
      sent.ranks = *WithCommunication(schedule, waits);
      CsvNotes notes;
      const auto read = ParseCsv(ToCsv(sent), known.name, &notes);
      ASSERT_TRUE(read.ok()) << read.error().message;
      EXPECT_TRUE(notes.with_communication);
      EXPECT_EQ(read->ranks, schedule.ranks) << known.name;
    }
  }
}

// Runs the lists where a send does not end before the peer has come to its receive.
bool RunsWithBlockingSends(const std::vector<std::vector<Action>>& lists) {
  std::vector<size_t> next(lists.size(), 0);
  const auto head = [&](size_t rank) {
    return next[rank] < lists[rank].size() ? &lists[rank][next[rank]] : nullptr;
  };
  const auto meets = [](const Action& send, const Action& receive) {
    const bool forward =
        send.kind == ActionKind::kSendForward && receive.kind == ActionKind::kRecvForward;
    const bool backward =
        send.kind == ActionKind::kSendBackward && receive.kind == ActionKind::kRecvBackward;
    return send.microbatch == receive.microbatch &&
           ((forward && receive.stage.value == send.stage.value + 1) ||
            (backward && receive.stage.value == send.stage.value - 1));
  };
  for (bool progress = true; progress;) {
    progress = false;
    for (size_t rank = 0; rank < lists.size(); ++rank) {
      while (head(rank) != nullptr && !IsCommunication(head(rank)->kind)) {
        ++next[rank];
        progress = true;
      }
      for (size_t peer = 0; peer < lists.size() && head(rank) != nullptr; ++peer) {
        if (head(peer) != nullptr && meets(*head(rank), *head(peer))) {
          ++next[rank];
          ++next[peer];
          progress = true;
        }
      }
    }
  }
  for (size_t rank = 0; rank < lists.size(); ++rank) {
    if (head(rank) != nullptr) {
      return false;
    }
  }
  return true;
}

TEST(Communication, RunsEvenWhereSendsWaitForTheirReceives) {
  for (const ScheduleInfo& known : KnownSchedules()) {
    const Schedule schedule =
        *Generate({.name = std::string(known.name), .num_ranks = 4, .num_microbatches = 8});
    EXPECT_TRUE(RunsWithBlockingSends(*WithCommunication(schedule))) << known.name;
  }
  // The check can fail: both ranks send first.
  const auto crossed = ParseCsv("0F0,1F0,2F0\n", "shape");
  ASSERT_TRUE(crossed.ok());
  const Action up{.stage = StageId(0), .kind = ActionKind::kSendForward};
  const Action got_up{.stage = StageId(1), .kind = ActionKind::kRecvForward};
  const Action down{.stage = StageId(1), .kind = ActionKind::kSendBackward};
  const Action got_down{.stage = StageId(0), .kind = ActionKind::kRecvBackward};
  EXPECT_TRUE(RunsWithBlockingSends({{up, got_down}, {got_up, down}}));
  EXPECT_FALSE(RunsWithBlockingSends({{up, got_down}, {down, got_up}}));
}

TEST(Communication, RefusesWhatHasNoOrder) {
  // As ordinary actions 0F1 goes first and all is well; a pair there waits for both its inputs.
  const auto pair = ParseCsv("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1F1,1B0,1B1\n", "pair");
  ASSERT_TRUE(pair.ok()) << pair.error().message;
  const auto lists = WithCommunication(*pair);
  ASSERT_FALSE(lists.ok());
  EXPECT_THAT(lists.error().message,
              HasSubstr("row 1, cell 2 (0F1): no order of sends and receives gets past it"));
  const auto incomplete = WithCommunication(*ParseCsv("0F0,0F1,0B0\n", "incomplete"));
  ASSERT_FALSE(incomplete.ok());
  EXPECT_THAT(incomplete.error().message, HasSubstr("lacks B"));
}

}  // namespace
}  // namespace troupe

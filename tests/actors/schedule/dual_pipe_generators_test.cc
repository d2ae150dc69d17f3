#include "actors/schedule/dual_pipe_generators.h"

#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

// Expanded from the eight phases on paper; PyTorch prints the same list for this shape.
TEST(DualPipeGenerators, DualPipeVAsPublished) {
  const Schedule schedule =
      *Generate({.name = "dualpipe-v", .num_ranks = 4, .num_microbatches = 10});
  EXPECT_EQ(
      ToCsv(schedule),
      "0F0,0F1,0F2,0F3,0F4,0F5,0F6,7F0,7I0,7W0,7F1,7I1,7W1,7F2,7I2,7W2,7F3,"
      "(0F7;7B3)OVERLAP_F_B,(7F4;0B0)OVERLAP_F_B,(0F8;7B4)OVERLAP_F_B,(7F5;0B1)OVERLAP_F_B,"
      "(0F9;7B5)OVERLAP_F_B,(7F6;0B2)OVERLAP_F_B,7B6,(7F7;0B3)OVERLAP_F_B,7B7,"
      "(7F8;0B4)OVERLAP_F_B,7B8,(7F9;0B5)OVERLAP_F_B,7B9,0I6,0W6,0I7,0W7,0I8,0W8,0I9,0W9\r\n"
      "1F0,1F1,1F2,1F3,1F4,6F0,1F5,6F1,6I0,6W0,6F2,6I1,6W1,6F3,(1F6;6B2)OVERLAP_F_B,"
      "(6F4;1B0)OVERLAP_F_B,(1F7;6B3)OVERLAP_F_B,(6F5;1B1)OVERLAP_F_B,(1F8;6B4)OVERLAP_F_B,"
      "(6F6;1B2)OVERLAP_F_B,(1F9;6B5)OVERLAP_F_B,(6F7;1B3)OVERLAP_F_B,6B6,(6F8;1B4)OVERLAP_F_B,"
      "6B7,(6F9;1B5)OVERLAP_F_B,6B8,1B6,6I9,1I7,6W9,1I8,1W7,1I9,1W8,1W9\r\n"
      "2F0,2F1,2F2,5F0,2F3,5F1,2F4,5F2,5I0,5W0,5F3,(2F5;5B1)OVERLAP_F_B,(5F4;2B0)OVERLAP_F_B,"
      "(2F6;5B2)OVERLAP_F_B,(5F5;2B1)OVERLAP_F_B,(2F7;5B3)OVERLAP_F_B,(5F6;2B2)OVERLAP_F_B,"
      "(2F8;5B4)OVERLAP_F_B,(5F7;2B3)OVERLAP_F_B,(2F9;5B5)OVERLAP_F_B,(5F8;2B4)OVERLAP_F_B,5B6,"
      "(5F9;2B5)OVERLAP_F_B,5B7,2B6,5B8,2I7,5I9,2I8,2W7,2I9,5W9,2W8,2W9\r\n"
      "3F0,4F0,3F1,4F1,3F2,4F2,3F3,4F3,3F4,4B0,(4F4;3B0)OVERLAP_F_B,(3F5;4B1)OVERLAP_F_B,"
      "(4F5;3B1)OVERLAP_F_B,(3F6;4B2)OVERLAP_F_B,(4F6;3B2)OVERLAP_F_B,(3F7;4B3)OVERLAP_F_B,"
      "(4F7;3B3)OVERLAP_F_B,(3F8;4B4)OVERLAP_F_B,(4F8;3B4)OVERLAP_F_B,(3F9;4B5)OVERLAP_F_B,"
      "(4F9;3B5)OVERLAP_F_B,4B6,3B6,4B7,3B7,4I8,3I8,4I9,3I9,4W8,3W8,4W9,3W9\r\n");
}

// Rank 0 feeds direction 0 (microbatches 0 to 3), rank 3 direction 1.
TEST(DualPipeGenerators, DualPipeAsPublished) {
  const Schedule schedule = *Generate({.name = "dualpipe", .num_ranks = 4, .num_microbatches = 8});
  EXPECT_EQ(
      ToCsv(schedule),
      "0F0,0F1,0F2,7F4,7I4,7W4,7F5,(0F3;7B5)OVERLAP_F_B,(7F6;0B0)OVERLAP_F_B,7B6,"
      "(7F7;0B1)OVERLAP_F_B,7B7,0I2,0W2,0I3,0W3\r\n"
      "1F0,6F4,1F1,6F5,1F2,6B4,(6F6;1B0)OVERLAP_F_B,(1F3;6B5)OVERLAP_F_B,(6F7;1B1)OVERLAP_F_B,"
      "6B6,1B2,6I7,1I3,6W7,1W3\r\n"
      "5F4,2F0,5F5,2F1,5F6,2B0,(2F2;5B4)OVERLAP_F_B,(5F7;2B1)OVERLAP_F_B,(2F3;5B5)OVERLAP_F_B,"
      "2B2,5B6,2I3,5I7,2W3,5W7\r\n"
      "4F4,4F5,4F6,3F0,3I0,3W0,3F1,(4F7;3B1)OVERLAP_F_B,(3F2;4B4)OVERLAP_F_B,3B2,"
      "(3F3;4B5)OVERLAP_F_B,3B3,4I6,4W6,4I7,4W7\r\n");
}

// How often each phase repeats for p = 8, m = 20 on rank 0: 6, 1, 3, 3, 3, 1, 3, 1.
TEST(DualPipeGenerators, PhasesOfTheFirstRank) {
  const Schedule schedule = *Generate({.name = "dualpipe", .num_ranks = 8, .num_microbatches = 20});
  const std::vector<Action>& actions = schedule.ranks[0];
  int num_pairs = 0;
  int num_split = 0;
  for (const Action& action : actions) {
    num_pairs += action.pair != kNotPaired && action.kind == ActionKind::kForward;
    num_split += action.kind == ActionKind::kBackwardInput;
  }
  EXPECT_EQ(num_pairs, 2 * 3 + 3);
  EXPECT_EQ(num_split, 3 + 1 + 3);
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(ToString(actions[i]), "0F" + std::to_string(i));
  }
  EXPECT_EQ(ToString(actions[7]), "15F10");  // the first of direction 1
}

TEST(DualPipeGenerators, BothDirectionsMirrorEachOther) {
  const Schedule schedule = *Generate({.name = "dualpipe", .num_ranks = 6, .num_microbatches = 16});
  for (int rank = 0; rank < 6; ++rank) {
    const std::vector<Action>& actions = schedule.ranks[rank];
    const std::vector<Action>& mirrored = schedule.ranks[5 - rank];
    ASSERT_EQ(actions.size(), mirrored.size());
    for (size_t i = 0; i < actions.size(); ++i) {
      EXPECT_EQ(actions[i].kind, mirrored[i].kind);
      EXPECT_EQ((actions[i].stage.value + 6) % 12, mirrored[i].stage.value);
      EXPECT_EQ((actions[i].microbatch.value + 8) % 16, mirrored[i].microbatch.value);
      EXPECT_EQ(actions[i].pair, mirrored[i].pair);
    }
  }
}

TEST(DualPipeGenerators, FewestMicrobatchesAndRanks) {
  for (const char* name : {"dualpipe", "dualpipe-v"}) {
    for (const int p : {1, 2, 4, 6}) {
      if (p > 1 || std::string(name) == "dualpipe-v") {
        const auto schedule = Generate({.name = name, .num_ranks = p, .num_microbatches = 2 * p});
        ASSERT_TRUE(schedule.ok()) << schedule.error().message;
        const auto report = Validate(*schedule);
        EXPECT_TRUE(report.ok()) << report.error().message;
      }
    }
  }
}

}  // namespace
}  // namespace troupe

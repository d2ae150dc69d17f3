#include "actors/schedule/validator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/activations.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "tests/support/two_chains.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string Refusal(const char* csv, const ValidateOptions& options = {}) {
  const auto schedule = ParseCsv(csv, "test");
  EXPECT_TRUE(schedule.ok()) << schedule.error().message;
  const auto report = Validate(*schedule, options);
  return report.ok() ? "valid" : report.error().message;
}

TEST(Validator, ReportsPeaksSlotsAndMessages) {
  const auto report = Validate(*Generate({.name = "1f1b", .num_ranks = 4, .num_microbatches = 8}));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->peak_activations, (std::vector<double>{4, 3, 2, 1}));
  EXPECT_EQ(report->messages_per_microbatch, 6);
  EXPECT_TRUE(report->ascending);
  EXPECT_EQ(SlotsFor(report->channels, PipelineRank(0), PipelineRank(1), InputKind::kActivation),
            4);
}

TEST(Validator, NamesRowCellAndReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"0F0,0F0,0B0\n", "row 1, cell 2 (0F0): this Forward stands here a second time"},
      {"0B0,0F0\n", "row 1, cell 1 (0B0): it stands before 0F0"},
      {"0F0,0W0,0I0\n", "row 1, cell 2 (0W0): it stands before 0I0"},
      {"0F0,0B0,0B0\n", "row 1, cell 3 (0B0): this microbatch's input gradient"},
      {"0F0,0B0,0W0,0F1,0I1,0W1\n", "row 1, cell 3 (0W0): this microbatch's weight gradient"},
      {"0F0,0I0,0W0/2of2\n", "part 1 comes next"},
      {"0F0,0I0,0W0/1of2,0W0/2of3\n", "was cut into 2 parts, not 3"},
      {"0F0,0F1,0B0\n", "row 1: stage 0 lacks B (or I and W) of microbatch 1"},
      {"0F1,0B1\n", "row 1: stage 0 lacks F of microbatch 0"},
      {"0F0,0I0\n", "lacks W (all parts) of microbatch 0"},
      {"0F0,0I0,0W0/1of2\n", "lacks W (all parts) of microbatch 0"},
      {"0F0,0REDUCE_GRAD,0B0\n", "row 1, cell 2 (0REDUCE_GRAD): stage 0 still has"},
      {"0F0,0B0,0REDUCE_GRAD,0REDUCE_GRAD\n", "reduced a second time"},
      {"0F0,0B0,5UNSHARD\n",
       "row 1, cell 3 (5UNSHARD): no row runs stage 5; leave it out, or add the stage's compute"},
      {"0F0,0B0,0RESHARD\n",
       "row 1, cell 3 (0RESHARD): the stage's parameters are not gathered; leave it out, or put "
       "0UNSHARD before it"},
      {"0UNSHARD,0UNSHARD,0F0,0B0\n",
       "row 1, cell 2 (0UNSHARD): the stage's parameters are gathered already; leave it out, or "
       "put 0RESHARD before it"},
      {"0UNSHARD,0F0,0B0\n",
       "row 1, cell 1 (0UNSHARD): the stage's parameters are still gathered at the end of the row; "
       "add 0RESHARD"},
      {"0F0,0I0,0REDUCE_GRAD0,0W0\n",
       "row 1, cell 3 (0REDUCE_GRAD0): it stands before the weight gradient of its microbatch, 0B0 "
       "or 0W0"},
      {"0F0,0B0,0REDUCE_GRAD0,0REDUCE_GRAD0\n", "row 1, cell 4 (0REDUCE_GRAD0): this microbatch's"},
      {"0F0,0B0,0REDUCE_GRAD0,0REDUCE_GRAD\n",
       "row 1, cell 4 (0REDUCE_GRAD): this stage's gradients are reduced microbatch by microbatch"},
      {"0F0,0B0,0REDUCE_GRAD,0REDUCE_GRAD0\n", "row 1, cell 4 (0REDUCE_GRAD0): this microbatch's"},
      {"0F0,0B0,0REDUCE_GRAD1\n",
       "row 1, cell 3 (0REDUCE_GRAD1): stage 0 takes microbatches 0 to 0"},
      {"0F0,0B0,0WAIT_REDUCE_GRAD\n",
       "row 1, cell 3 (0WAIT_REDUCE_GRAD): no REDUCE_GRAD of its stage stands before it; add "
       "0REDUCE_GRAD, or leave the wait out"},
      {"0F0,0F1,0B0,0REDUCE_GRAD0,0WAIT_REDUCE_GRAD,0B1\n",
       "row 1, cell 5 (0WAIT_REDUCE_GRAD): stage 0 still has weight gradients after it"},
      {"0F0,0B0,0REDUCE_GRAD,0WAIT_REDUCE_GRAD,0WAIT_REDUCE_GRAD\n",
       "row 1, cell 5 (0WAIT_REDUCE_GRAD): this stage's sums are waited for a second time"},
      {"0F0,0REDUCE_GRAD\n", "row 1, cell 2 (0REDUCE_GRAD): stage 0 has no backward, and so no"},
      {"0F0,1UNSHARD,0B0\n1F0,1B0\n", "row 1, cell 2 (1UNSHARD): stage 1 is placed on rank 1"},
  };
  for (const auto& [csv, reason] : cases) {
    EXPECT_THAT(Refusal(csv), HasSubstr(reason)) << csv;
  }
}

TEST(Validator, TakesParametersThatAreGatheredAndDropped) {
  EXPECT_EQ(Refusal("0UNSHARD,0F0,0RESHARD,0UNSHARD,0B0,0RESHARD,0REDUCE_GRAD\n"), "valid");
  // Passes outside gather for themselves.
  EXPECT_EQ(Refusal("0F0,0UNSHARD,0F1,0RESHARD,0B0,0B1\n"), "valid");
}

TEST(Validator, TakesReductionsAndTheirWaits) {
  EXPECT_EQ(Refusal("0F0,0F1,0B0,0REDUCE_GRAD0,0B1,0REDUCE_GRAD1,0WAIT_REDUCE_GRAD\n"), "valid");
  EXPECT_EQ(Refusal("0F0,1F0,1I0,0I0,0W0,0REDUCE_GRAD,1W0,1REDUCE_GRAD,0WAIT_REDUCE_GRAD\n"),
            "valid");
}

// A stage's sums are those of its copy on another rank, too.
TEST(Validator, InTwoDirectionsAWaitComesAfterAllReductionsOfTheRow) {
  EXPECT_EQ(Refusal("0F0,3F1,3B1,0B0,0REDUCE_GRAD,3REDUCE_GRAD,0WAIT_REDUCE_GRAD\n"
                    "1F0,2F1,1B0,2B1\n"),
            "valid");
  EXPECT_THAT(Refusal("0F0,3F1,3B1,0B0,0REDUCE_GRAD,0WAIT_REDUCE_GRAD,3REDUCE_GRAD\n"
                      "1F0,2F1,1B0,2B1\n"),
              HasSubstr("row 1, cell 6 (0WAIT_REDUCE_GRAD): in two directions ranks wait for each "
                        "other's sums; put it after the last gradient and the REDUCE_GRAD of stage "
                        "3"));
}

TEST(Validator, RefusesSendsAndReceives) {
  Schedule schedule = *ParseCsv("0F0,0B0\n", "sends");
  schedule.ranks[0].push_back({.stage = StageId(0), .kind = ActionKind::kSendForward});
  EXPECT_THAT(Validate(schedule).error().message, HasSubstr("sends and receives follow"));
}

TEST(Validator, CountsAPairAsOneCell) {
  EXPECT_EQ(Refusal("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n"), "valid");
  EXPECT_THAT(Refusal("0F0,(0F1;0B0)OVERLAP_F_B,0B0\n"), HasSubstr("row 1, cell 3 (0B0)"));
  Schedule torn = *ParseCsv("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n", "torn");
  std::swap(torn.ranks[0][0], torn.ranks[0][1]);
  EXPECT_THAT(Validate(torn).error().message, HasSubstr("torn apart"));
}

TEST(Validator, TakesAPairForOneForwardAndOneBackward) {
  const char kWhy[] = "an overlapped pair is one Forward and then one B or I";
  EXPECT_EQ(Refusal("0F0,(0F1;0I0)OVERLAP_F_B,0W0,0B1\n"), "valid");
  EXPECT_THAT(Refusal("0F0,(0B0;0F1)OVERLAP_F_B,0B1\n"), HasSubstr(kWhy));
  EXPECT_THAT(Refusal("0F0,(0F1;0F2)OVERLAP_F_B,0B0,0B1,0B2\n"), HasSubstr(kWhy));
  Schedule three = *ParseCsv("0F0,(0F1;0I0)OVERLAP_F_B,0W0,0B1\n", "three");
  three.ranks[0][3].pair = three.ranks[0][2].pair;
  EXPECT_THAT(Validate(three).error().message, HasSubstr(kWhy));
  Schedule one = *ParseCsv("0F0,0B0\n", "one");
  one.ranks[0][0].pair = 0;
  EXPECT_THAT(Validate(one).error().message, HasSubstr("torn apart"));
}

TEST(Validator, CountsBothDirections) {
  const auto report =
      Validate(*Generate({.name = "dualpipe", .num_ranks = 4, .num_microbatches = 8}));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->messages_per_microbatch, 6);  // each passes the ranks in one direction only
  EXPECT_EQ(report->parameter_replicas, 2);
  EXPECT_EQ(report->peak_activations, (std::vector<double>{5, 5, 5, 5}));
  Schedule strayed = *Generate({.name = "dualpipe", .num_ranks = 2, .num_microbatches = 4});
  strayed.ranks[0][0].microbatch = MicrobatchId(2);
  EXPECT_THAT(Validate(strayed).error().message, HasSubstr("stage 0 takes microbatches 0 to 1"));
}

TEST(Validator, CountsSeveralChunksARank) {
  const auto report = Validate(*Generate(
      {.name = "interleaved-1f1b", .num_ranks = 4, .num_microbatches = 8, .chunks_per_rank = 2}));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->messages_per_microbatch, 14);  // also from the last rank to the first
  EXPECT_EQ(report->parameter_replicas, 1);
  EXPECT_DOUBLE_EQ(report->peak_activations[0], 5.5);
}

TEST(Validator, RefusesAShapeThatDoesNotFit) {
  Schedule schedule = *Generate({.num_ranks = 2, .num_microbatches = 2});
  schedule.placement[1] = PipelineRank(5);
  EXPECT_THAT(Validate(schedule).error().message, HasSubstr("stage 1 is placed on rank 5"));
  schedule.placement.pop_back();
  EXPECT_THAT(Validate(schedule).error().message, HasSubstr("2 rows for 2 ranks"));
  schedule = *Generate({.num_ranks = 1, .num_microbatches = 3});
  schedule.num_directions = 2;
  EXPECT_THAT(Validate(schedule).error().message, HasSubstr("do not divide by 2 directions"));
}

TEST(Validator, TellsTheCycleOfADeadlock) {
  // Rank 0 wants 0B0 before 0F1, rank 1 wants 1F1 before 1B0.
  EXPECT_EQ(Refusal("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n"),
            "row 1, cell 2 (0B0): deadlock: rank 0 stands before 0B0, which waits for 1B0, which "
            "rank 1 runs after 1F1; 1F1 waits for 0F1, which rank 0 runs after 0B0");
}

TEST(Validator, BlamesTheCycleRatherThanItsVictims) {
  // Rank 0 only waits for the cycle between ranks 1 and 2.
  const std::string words = Refusal("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n2F0,2F1,2B0,2B1\n");
  EXPECT_THAT(words, HasSubstr("row 2, cell 2 (1B0): deadlock: rank 1"));
  EXPECT_THAT(words, HasSubstr("1B0, which waits for 2B0, which rank 2 runs after 2F1"));
  EXPECT_THAT(words, HasSubstr("2F1 waits for 1F1, which rank 1 runs after 1B0"));
}

// Rank 1 reads microbatch 1 first: with one slot, microbatch 0 fills it and 1 can never come.
constexpr char kOutOfOrder[] = "0F0,0F1,0B1,0B0\n1F1,1B1,1F0,1B0\n";

TEST(Validator, FindsADeadlockOfSlots) {
  EXPECT_EQ(Refusal(kOutOfOrder), "valid");
  EXPECT_EQ(Refusal(kOutOfOrder, {.slots_per_channel = 2}), "valid");
  EXPECT_EQ(
      Refusal(kOutOfOrder, {.slots_per_channel = 1}),
      "row 2, cell 1 (1F1): deadlock: rank 1 stands before 1F1, which waits for the output of "
      "0F1, which rank 0 holds back because every slot of the channel is taken by what is read "
      "later");
}

TEST(Validator, SeesDescendingOrder) {
  EXPECT_FALSE(Validate(*ParseCsv("0F0,0F1,0B1,0B0\n", "bfs"))->ascending);
}

TEST(Validator, PeakFollowsTheHeldShare) {
  const Schedule schedule = *ParseCsv("0F0,0I0,0F1,0W0,0I1,0W1\n", "halves");
  EXPECT_DOUBLE_EQ(PeakActivations(schedule, PipelineRank(0)), 2.0);
  EXPECT_DOUBLE_EQ(PeakActivations(schedule, PipelineRank(0), 0.5), 1.5);
  EXPECT_DOUBLE_EQ(PeakActivations(schedule, PipelineRank(0), 0.0), 1.0);
}

TEST(Validator, AStageMayReadASecondChain) {
  const auto report = Validate(testing::TwoChains(testing::SameSender(), 3));
  ASSERT_TRUE(report.ok()) << report.error().message;
  const auto slots = [&](int from, int to, InputKind kind) {
    return SlotsFor(report->channels, PipelineRank(from), PipelineRank(to), kind);
  };
  EXPECT_EQ(slots(0, 2, InputKind::kActivation), 6) << "two a microbatch";
  EXPECT_EQ(slots(2, 0, InputKind::kGradient), 3);
  EXPECT_EQ(slots(2, 1, InputKind::kGradient), 0) << "the teacher gets none back";
  // The student's half of rank 0 keeps three; the teacher's nothing beyond its Forward.
  EXPECT_THAT(report->peak_activations, ::testing::ElementsAre(2, 1, 3));
}

// Both inputs of the loss are on one channel, and neither leaves its slot before both are there.
TEST(Validator, SeveralInputsOfOneActionNeedASlotEach) {
  const Schedule schedule = testing::TwoChains(testing::SameSender(), 3);
  EXPECT_TRUE(Validate(schedule, {.slots_per_channel = 2}).ok());
  const auto narrow = Validate(schedule, {.slots_per_channel = 1});
  ASSERT_FALSE(narrow.ok());
  EXPECT_THAT(narrow.error().message, HasSubstr("deadlock"));
  EXPECT_THAT(narrow.error().message, HasSubstr("every slot of the channel is taken"));
}

TEST(Validator, NamesWhatAStageThatIsOnlyReadCannotDo) {
  Schedule schedule = testing::TwoChains(testing::SameSender(), 1);
  schedule.ranks[1].push_back({.stage = StageId(1), .kind = ActionKind::kBackward});
  const Status refused = ValidateStructure(schedule);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message,
            "row 2, cell 2 (1B0): stage 1 is only read by stage 2: it has no backward");
}

TEST(Validator, RefusesEdgesThatGiveAnActionTwoOutputs) {
  const auto refusal = [](std::vector<StageEdge> edges) {
    Schedule schedule = testing::TwoChains(testing::SameSender(), 1);
    schedule.edges = std::move(edges);
    const Status refused = ValidateStructure(schedule);
    return refused.ok() ? std::string() : refused.error().message;
  };
  const auto edge = [](int from, int to, bool gradient = true) {
    return StageEdge{StageId(from), StageId(to), gradient};
  };
  EXPECT_EQ(refusal({edge(0, 1), edge(0, 3)}),
            "schedule two chains: stage 0 feeds stage 3: it feeds another one too");
  EXPECT_EQ(refusal({edge(0, 3), edge(2, 3)}),
            "schedule two chains: stage 2 feeds stage 3: its gradient goes back to another stage");
  EXPECT_EQ(refusal({edge(2, 1)}),
            "schedule two chains: stage 2 feeds stage 1: a stage feeds a later one of 4");
  EXPECT_EQ(refusal({edge(1, 2), edge(2, 3, false)}),
            "schedule two chains: stage 1 feeds stage 2: the gradient that it waits for is never "
            "there, for that stage has no backward");
}

}  // namespace
}  // namespace troupe

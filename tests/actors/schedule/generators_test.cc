#include "actors/schedule/generators.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "actors/schedule/csv.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(Generators, NamesAndAliases) {
  const std::pair<const char*, const char*> cases[] = {
      {"AFAB", "gpipe"},
      {"GPipe", "gpipe"},
      {"PipeDream_Flush", "1f1b"},
      {"interleaved", "interleaved-1f1b"},
      {"1F1B-Interleaved", "interleaved-1f1b"},
      {"Interleaved1F1B", "interleaved-1f1b"},
      {"LoopedBFS", "looped-bfs"},
      {"breadth_first", "looped-bfs"},
      {"zb1p", "zb-h1"},
      {"ZB_H1", "zb-h1"},
      {"zb2p", "zb-h2"},
      {"InterleavedZeroBubble", "interleaved-zb"},
      {"zbv", "zb-v"},
      {"zbv-zero-bubble", "zb-v"},
      {"ZBVZeroBubble", "zb-v"},
      {"DualPipe", "dualpipe"},
      {"dualpipev", "dualpipe-v"},
  };
  for (const auto& [typed, name] : cases) {
    const auto canonical = CanonicalScheduleName(typed);
    ASSERT_TRUE(canonical.ok()) << typed;
    EXPECT_EQ(*canonical, name);
    EXPECT_EQ(Generate({.name = typed, .num_ranks = 2, .num_microbatches = 4})->name, name);
  }
  const auto unknown = CanonicalScheduleName("2f2b");
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(unknown.error().message, HasSubstr("use one of 1f1b (= pipedream-flush), gpipe"));
}

TEST(Generators, NoTwoSchedulesShareAName) {
  std::set<std::string> names;
  for (const ScheduleInfo& known : KnownSchedules()) {
    EXPECT_TRUE(names.insert(std::string(known.name)).second) << known.name;
    EXPECT_EQ(*CanonicalScheduleName(known.name), known.name);
    for (const std::string_view alias : known.aliases) {
      if (!alias.empty()) {
        EXPECT_TRUE(names.insert(std::string(alias)).second) << alias;
        EXPECT_EQ(*CanonicalScheduleName(alias), known.name);
      }
    }
  }
}

TEST(Generators, ShapesAreAsListed) {
  for (const ScheduleInfo& known : KnownSchedules()) {
    const auto schedule =
        Generate({.name = std::string(known.name), .num_ranks = 4, .num_microbatches = 8});
    ASSERT_TRUE(schedule.ok()) << schedule.error().message;
    EXPECT_EQ(schedule->num_directions, known.parameter_replicas) << known.name;
    EXPECT_EQ(schedule->num_stages, 4 * known.chunks_default * known.parameter_replicas);
    EXPECT_EQ(schedule->RankOf(StageId(schedule->num_stages - 1)),
              PipelineRank(known.placement == PlacementKind::kLoop ? 3 : 0))
        << known.name;
    EXPECT_FALSE(known.constraint.empty() || known.bubble.empty() || known.peak.empty() ||
                 known.messages.empty())
        << known.name;
  }
  const auto deep =
      Generate({.name = "looped-bfs", .num_ranks = 2, .num_microbatches = 1, .chunks_per_rank = 3});
  EXPECT_EQ(ToCsv(*deep), "0F0,2F0,4F0,4B0,2B0,0B0\r\n1F0,3F0,5F0,5B0,3B0,1B0\r\n");
}

std::string Refusal(const ScheduleSpec& spec) {
  const auto schedule = Generate(spec);
  EXPECT_FALSE(schedule.ok()) << spec.name;
  return schedule.ok() ? "" : schedule.error().message;
}

TEST(Generators, RefuseWithTheRuleAndAWayOut) {
  const std::pair<ScheduleSpec, const char*> cases[] = {
      {{.num_ranks = 0}, "both must be at least 1"},
      {{.num_microbatches = 0}, "both must be at least 1"},
      {{.num_ranks = 2, .num_microbatches = 2, .chunks_per_rank = 2},
       "schedule 1f1b: it holds 1 model chunk a rank, not 2; set virtual_stages to 1"},
      {{.name = "zbv", .num_ranks = 2, .num_microbatches = 2, .chunks_per_rank = 3},
       "it holds 2 model chunks a rank, not 3; set virtual_stages to 2 or leave it out"},
      {{.name = "interleaved", .num_ranks = 2, .num_microbatches = 2, .chunks_per_rank = 1},
       "at least 2 model chunks a rank, not 1; set virtual_stages to 2"},
      {{.name = "looped-bfs", .num_ranks = 2, .num_microbatches = 2, .chunks_per_rank = -1},
       "at least 1 model chunk a rank, not -1"},
      {{.name = "looped-bfs", .num_ranks = 1 << 14, .num_microbatches = 1, .chunks_per_rank = 3},
       "16384 ranks of 3 model chunks make 49152 stages, more than 32768; take fewer"},
      {{.name = "zb-v", .num_ranks = 2, .num_microbatches = 4, .group = 2},
       "it takes no groups of microbatches; leave the group out"},
      {{.name = "interleaved", .num_ranks = 4, .num_microbatches = 10},
       "10 microbatches in groups of 4 leave 2, which must be 0 or at least the 4 ranks; take 12 "
       "microbatches, or set the group to 10"},
      {{.name = "interleaved-zb", .num_ranks = 4, .num_microbatches = 8, .group = 3},
       "at least the 4 ranks and at most the 8 microbatches"},
      {{.name = "zb-h1", .num_ranks = 4, .num_microbatches = 3},
       "4 ranks need at least 4 microbatches, not 3; take more, or use 1f1b"},
      {{.name = "zb-h2", .num_ranks = 4, .num_microbatches = 6},
       "at least 2p-1 = 7 microbatches, not 6; take more, or use zb-h1"},
      {{.name = "dualpipe", .num_ranks = 3, .num_microbatches = 8},
       "an even number of ranks, not 3; take 4 ranks, or use dualpipe-v"},
      {{.name = "dualpipe", .num_ranks = 4, .num_microbatches = 9},
       "an even number of microbatches, at least 2p = 8, not 9; take 10"},
      {{.name = "dualpipe", .num_ranks = 4, .num_microbatches = 6}, "not 6; take 8"},
      {{.name = "dualpipe-v", .num_ranks = 4, .num_microbatches = 7},
       "at least 2p = 8 microbatches, not 7; take more, or use zb-v"},
  };
  for (const auto& [spec, reason] : cases) {
    EXPECT_THAT(Refusal(spec), HasSubstr(reason));
  }
}

TEST(Generators, ForwardOnlyCoversAnyPlacement) {
  const Schedule loop = GenerateForwardOnly(2, 4, 3);
  EXPECT_EQ(ToCsv(loop), "0F0,0F1,2F0,2F1,0F2,2F2\r\n1F0,1F1,3F0,3F1,1F2,3F2\r\n");
  const Schedule fold = GenerateForwardOnly(
      2, {PipelineRank(0), PipelineRank(1), PipelineRank(1), PipelineRank(0)}, 2);
  EXPECT_EQ(ToCsv(fold), "0F0,0F1,3F0,3F1\r\n1F0,1F1,2F0,2F1\r\n");
  for (const Schedule& schedule : {loop, fold}) {
    const auto report = Validate(schedule);
    ASSERT_TRUE(report.ok()) << report.error().message;
    EXPECT_EQ(report->peak_activations, (std::vector<double>{0.5, 0.5}));
  }
}

}  // namespace
}  // namespace troupe

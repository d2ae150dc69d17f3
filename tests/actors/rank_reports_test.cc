#include "actors/rank_reports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <map>
#include <string>

#include "runtime/base/file_system.h"
#include "runtime/base/vector_isa.h"
#include "runtime/trace/span.h"
#include "tests/runtime/actor/manual_clock.h"
#include "tests/support/rank_stages.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::RankStages;
using testing::SmallSpec;

std::map<int32_t, uint64_t> DigestsOf(const RankStages& ranks, int rank) {
  proto::Finished finished;
  AddParameterDigests(ranks.parameters(rank), finished);
  std::map<int32_t, uint64_t> digests;
  for (const auto& digest : finished.parameter_digests()) {
    digests[digest.parameter()] = digest.sum();
  }
  return digests;
}

std::map<int32_t, uint64_t> DigestsOf(const RankStages& ranks) {
  std::map<int32_t, uint64_t> all;
  for (int rank = 0; rank < ranks.num_ranks(); ++rank) all.merge(DigestsOf(ranks, rank));
  return all;
}

TEST(ParameterDigestsTest, TheRanksOfAnyLayoutAddUpToTheSame) {
  RankStages one(SmallSpec({.tied = true}));
  one.FillBySeed(3);
  const auto wanted = DigestsOf(one);
  ASSERT_EQ(wanted.size(), static_cast<size_t>(one.plan().table.size()));
  for (const auto& [rank, p] : one.All()) {
    const std::string bytes = testing::BytesAt(p->weight);
    EXPECT_EQ(wanted.at(p->index), XXH64(bytes.data(), bytes.size(), 0)) << p->spec->name;
  }
  for (const char* schedule : {"1f1b", "dualpipe", "zb-v"}) {
    RankStages two(SmallSpec({.pp = 2, .schedule = schedule, .tied = true}));
    two.FillBySeed(3);
    EXPECT_EQ(DigestsOf(two), wanted) << schedule;
    EXPECT_EQ(DigestsOf(two, 0).size() + DigestsOf(two, 1).size(), wanted.size())
        << "a parameter is reported twice under " << schedule;
  }
}

TEST(ParameterDigestsTest, OneBitOfAMasterChangesItsDigestAlone) {
  RankStages one(SmallSpec());
  one.FillBySeed(3);
  const auto before = DigestsOf(one);
  for (const auto& [rank, p] : one.All()) {
    auto* last = static_cast<unsigned char*>(p->weight.data()) + p->weight.num_bytes() - 1;
    *last ^= 1;
    auto after = DigestsOf(one);
    EXPECT_NE(after.at(p->index), before.at(p->index)) << p->spec->name;
    after[p->index] = before.at(p->index);
    EXPECT_EQ(after, before) << p->spec->name;
    *last ^= 1;
  }
  // The optimizer's state is not the model.
  one.All().front().second->m.as<float>()[0] += 1;
  EXPECT_EQ(DigestsOf(one), before);
}

TEST(ReportMemoryTest, MeasuredStandsBesidePredictedAndTheRestIsOther) {
  MemoryLedger ledger;
  const Buffer params(ledger, MemoryTag::kParams, 4096);
  { const Buffer gone(ledger, MemoryTag::kWorkspace, 1 << 20); }
  MemoryPrediction predicted{};
  predicted[static_cast<size_t>(MemoryTag::kParams)] = 4096;
  predicted[static_cast<size_t>(MemoryTag::kWorkspace)] = 77;
  const proto::MemoryReport report = ReportMemory(ledger, predicted, 12);
  EXPECT_EQ(report.step(), 12);
  ASSERT_EQ(report.tags_size(), kNumMemoryTags);
  int64_t tagged = 0;
  for (const auto& tag : report.tags()) {
    tagged += tag.current_bytes();
    if (tag.tag() == "params") {
      EXPECT_EQ(tag.predicted_bytes(), 4096);
      EXPECT_EQ(tag.current_bytes(), 4096);
    } else if (tag.tag() == "workspace") {
      EXPECT_EQ(tag.predicted_bytes(), 77);
      EXPECT_EQ(tag.current_bytes(), 0);
      EXPECT_EQ(tag.peak_bytes(), 1 << 20);
    } else {
      EXPECT_EQ(tag.peak_bytes(), 0) << tag.tag();
    }
  }
  EXPECT_EQ(tagged, 4096);
  EXPECT_GT(report.resident_bytes(), 1 << 20);
  EXPECT_EQ(report.other_bytes(), report.resident_bytes() - tagged);
}

TEST(ReportCommunicationTest, MeasuredStandsBesidePredictedByAxisAndOperation) {
  const proto::CommunicationReport report =
      ReportCommunication({{Axis::kPp, "activation", 4, 64}, {Axis::kDp, "all-reduce", 1, 100}},
                          {{Axis::kDp, "all-reduce", 3, 300}, {Axis::kPp, "all-reduce", 3, 9}}, 3);
  EXPECT_EQ(report.steps(), 3);
  ASSERT_EQ(report.rows_size(), 3);
  EXPECT_EQ(report.rows(0).operation(), "activation");
  EXPECT_EQ(report.rows(0).predicted_bytes(), 64);
  EXPECT_EQ(report.rows(0).measured_bytes(), 0);
  EXPECT_EQ(report.rows(1).axis(), "dp");
  EXPECT_EQ(report.rows(1).predicted_count(), 1);
  EXPECT_EQ(report.rows(1).measured_count(), 3);
  EXPECT_EQ(report.rows(1).measured_bytes(), 300);
  EXPECT_EQ(report.rows(2).axis(), "pp");
  EXPECT_EQ(report.rows(2).predicted_bytes(), 0) << "nobody foresaw it";
}

TEST(AddPredictedAttentionTest, StandsBesideWhatWasMeasuredByPhaseAndHop) {
  proto::JobSpec spec;
  auto& model = *spec.mutable_model();
  model.set_hidden_size(16);
  model.set_intermediate_size(32);
  model.set_num_hidden_layers(3);
  model.set_num_attention_heads(2);
  model.set_vocab_size(50);
  spec.mutable_batch()->set_micro_batch_size(2);
  spec.mutable_batch()->set_global_batch_size(8);
  spec.mutable_batch()->set_seq_len(12);
  spec.mutable_parallelism()->set_cp(3);
  spec.mutable_parallelism()->set_cp_load_balance("contiguous");
  spec.mutable_parallelism()->set_schedule("1f1b");
  spec.mutable_optimizer()->set_lr(0.001);
  spec.mutable_train()->set_steps(1);
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  proto::CommunicationReport::Attention report;
  report.add_phases()->add_pairs(7);
  AddPredictedAttention(*plan, Rank(1), report);
  EXPECT_EQ(report.method(), "ring");
  EXPECT_EQ(report.index(), 1);
  EXPECT_EQ(report.num_ranks(), 3);
  ASSERT_EQ(report.phases_size(), 3);
  EXPECT_THAT(report.phases(0).pairs(), ElementsAre(7));
  const int64_t passes = 3 * 4 * 2;  // layers, microbatches, sequences
  EXPECT_THAT(report.phases(0).predicted_pairs(), ElementsAre(passes * 10, passes * 16, 0));
  EXPECT_THAT(report.phases(1).predicted_pairs(), ElementsAre()) << "nothing is computed again";
  EXPECT_THAT(report.phases(2).predicted_pairs(), ElementsAre(passes * 10, passes * 16, 0));
}

TEST(ReportSpansTest, EachIsToldOnceAndHandlersAreLeftOut) {
  (void)ReportSpans();
  {
    Span span(SystemClock(), InternTraceName("forward"), SpanCategory::kCompute);
    span.record.stage = 2;
    span.record.microbatch = 5;
    span.record.step = 9;
    const Span handler(SystemClock(), InternTraceName("a handler"), SpanCategory::kHandler);
  }
  const proto::SpanBatch batch = ReportSpans();
  ASSERT_EQ(batch.spans_size(), 1) << batch.ShortDebugString();
  const proto::Span& span = batch.spans(0);
  EXPECT_EQ(span.name(), "forward");
  EXPECT_EQ(span.category(), SpanCategoryName(SpanCategory::kCompute));
  EXPECT_EQ(span.stage(), 2);
  EXPECT_EQ(span.microbatch(), 5);
  EXPECT_EQ(span.step(), 9);
  EXPECT_GE(span.end_ns(), span.start_ns());
  EXPECT_EQ(batch.dropped(), 0);
  EXPECT_EQ(ReportSpans().spans_size(), 0);
  for (uint64_t i = 0; i < TraceRing::kCapacity + 10; ++i) {
    const Span more(SystemClock(), InternTraceName("more"), SpanCategory::kCompute);
  }
  EXPECT_GE(ReportSpans().dropped(), 10);
}

TEST(ReportWaitsTest, NamesWhoWaitsForWhomSinceWhen) {
  ManualClock clock;
  int64_t now_ns = clock.NowNs();
  TimerWheel wheel{now_ns};
  WaitBoard board{wheel, now_ns};
  const WaitHandle wait = board.Begin({.waiter = "stage 2 (rank 5)",
                                       .activity = "forward",
                                       .owed = "activation",
                                       .from = "stage 1 (rank 1)",
                                       .step = 812,
                                       .microbatch = 17});
  clock.AdvanceMs(250);
  const proto::Waits waits = ReportWaits(board, clock);
  ASSERT_EQ(waits.edges_size(), 1);
  EXPECT_EQ(waits.edges(0).waiter(), "stage 2 (rank 5)");
  EXPECT_EQ(waits.edges(0).owed(), "microbatch 17 forward: activation");
  EXPECT_EQ(waits.edges(0).from(), "stage 1 (rank 1)");
  EXPECT_EQ(waits.edges(0).step(), 812);
  EXPECT_EQ(waits.edges(0).microbatch(), 17);
  EXPECT_EQ(waits.edges(0).waited_ms(), 250);
}

TEST(BuildIdTest, IsTheDigestOfTheRunningProgramsFile) {
  const auto program = SystemFiles().ReadFile("/proc/self/exe", int64_t{1} << 30);
  ASSERT_TRUE(program.ok()) << program.error().message;
  EXPECT_EQ(BuildId(), fmt::format("{:016x}", XXH64(program->data(), program->size(), 0)));
}

TEST(CpuNameTest, EndsWithTheVectorInstructionsThatAreUsed) {
  EXPECT_THAT(CpuName(), ::testing::EndsWith(fmt::format(" ({})", VectorIsaName(ThisVectorIsa()))));
}

}  // namespace
}  // namespace troupe

#include "coordinator/report/plan_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(PlanReportTest, SaysWhatTheJobWillDo) {
  const auto job = JobFolder().Load();
  ASSERT_TRUE(job.ok());
  const auto plan = MakeJobPlan(job->spec);
  ASSERT_TRUE(plan.ok());
  const std::string text = PlanText(job->spec, *plan, {.cores = 1}, /*columns=*/80);
  EXPECT_THAT(text, HasSubstr("small: 17,552 parameters in 4 layers, float32, seed 7"));
  EXPECT_THAT(text, HasSubstr("pp2: 2 workers"));
  EXPECT_THAT(text, HasSubstr("1 sequence x 4 microbatches = 4 sequences = 32 tokens a step"));
  EXPECT_THAT(text, HasSubstr("1f1b: 2 ranks x 4 microbatches, makespan bubble"));
  EXPECT_THAT(text, HasSubstr("2 workers share 1 core"));
  EXPECT_THAT(text, HasSubstr("what a rank sends in a step"));
  EXPECT_THAT(text, HasSubstr("rank 1 |"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("rank ")) {
      EXPECT_LE(line.size(), 120u) << line;
    }
  }
  EXPECT_THAT(PlanText(job->spec, *plan, {.cores = 2}), Not(HasSubstr("share")));
}

TEST(PlanReportTest, SaysForWhichCpuItIs) {
  auto job = JobFolder().Load();
  ASSERT_TRUE(job.ok());
  const auto said = [&](VectorIsa isa) {
    const auto plan = MakeJobPlan(job->spec);
    CHECK(plan.ok());
    return PlanText(job->spec, *plan, {.isa = isa});
  };
  EXPECT_THAT(said(VectorIsa::kAvx512), HasSubstr("memory    on CPUs with AVX-512, as here\n"));
  job->spec.mutable_train()->set_dtype("bfloat16");
  EXPECT_THAT(said(VectorIsa::kAvx2),
              HasSubstr("on CPUs with AVX2, as here: bfloat16 is multiplied in float32\n"));
  EXPECT_THAT(said(VectorIsa::kAvx512Bf16), Not(HasSubstr("multiplied in float32")));
}

TEST(PlanReportTest, TheJsonAddsUpToTheModel) {
  const auto job = JobFolder().Load();
  ASSERT_TRUE(job.ok());
  const auto plan = MakeJobPlan(job->spec);
  ASSERT_TRUE(plan.ok());
  const auto json = nlohmann::json::parse(PlanJson(job->spec, *plan, {}));
  EXPECT_EQ(json["workers"], 2);
  EXPECT_EQ(json["vector_isa"], "AVX2");
  EXPECT_EQ(json["tokens_per_step"], 32);
  int layers = 0;
  int64_t params = 0;
  for (const auto& rank : json["ranks"]) {
    for (const auto& stage : rank["stages"]) layers += stage["num_layers"].get<int>();
    params += rank["memory"]["params"].get<int64_t>();
  }
  ASSERT_EQ(json["memory"].size(), 2u);
  for (size_t rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(json["memory"][rank]["rank"], rank);
    EXPECT_EQ(json["memory"][rank]["params"], json["ranks"][rank]["memory"]["params"]);
    EXPECT_GT(json["memory"][rank]["total"], json["memory"][rank]["params"]);
  }
  ASSERT_EQ(json["communication"].size(), 2u);
  EXPECT_EQ(json["communication"][1].dump(),
            R"({"axis":"pp","bytes":2048,"count":4,"operation":"gradient","rank":1})");
  EXPECT_EQ(layers, 4);
  EXPECT_GE(params, 4 * json["parameters"].get<int64_t>());
}

TEST(PlanReportTest, NumbersInWords) {
  EXPECT_EQ(WithThousands(0), "0");
  EXPECT_EQ(WithThousands(999), "999");
  EXPECT_EQ(WithThousands(1234567), "1,234,567");
  EXPECT_EQ(BytesInWords(512), "512 B");
  EXPECT_EQ(BytesInWords(1536), "1.5 KiB");
  EXPECT_EQ(BytesInWords(200.0 * (1 << 20)), "200 MiB");
}

TEST(PlanReportTest, SaysWhatGradientsAreKeptIn) {
  const auto said = [](const std::vector<std::string>& sets) {
    const auto job = JobFolder().Load(sets);
    CHECK(job.ok(), "{}", job.error().message);
    const auto plan = MakeJobPlan(job->spec);
    CHECK(plan.ok(), "{}", plan.error().message);
    const auto json = nlohmann::json::parse(PlanJson(job->spec, *plan, {}));
    EXPECT_EQ(json["grad_dtype"], job->spec.train().grad_dtype());
    EXPECT_EQ(json["reduction"], "ordered");
    EXPECT_EQ(json["algorithm"], "all_reduce");
    return PlanText(job->spec, *plan, {});
  };
  EXPECT_THAT(said({}), HasSubstr("layers, float32, seed"));
  EXPECT_THAT(said({"train.grad_dtype=bfloat16"}),
              HasSubstr("layers, float32, gradients bfloat16, seed"));
  EXPECT_THAT(said({"train.grad_dtype=bfloat16", "train.dtype=bfloat16"}),
              HasSubstr("layers, bfloat16, gradients too, seed"));
}

TEST(PlanReportTest, SaysWhatDataParallelRanksShareOut) {
  const auto said = [](const std::vector<std::string>& sets) {
    const auto job = JobFolder().Load(sets);
    CHECK(job.ok(), "{}", job.error().message);
    const auto plan = MakeJobPlan(job->spec);
    CHECK(plan.ok(), "{}", plan.error().message);
    const auto json = nlohmann::json::parse(PlanJson(job->spec, *plan, {}));
    EXPECT_EQ(json["zero_stage"], plan->zero.stage);
    EXPECT_EQ(json["grad_reduce"].get<std::string>(), GradReduceName(plan->batch.grad_reduce));
    return PlanText(job->spec, *plan, {});
  };
  EXPECT_THAT(said({}), Not(HasSubstr("zero")));
  const std::string dp = "parallelism.dp=2";
  EXPECT_THAT(said({dp}),
              HasSubstr("  zero      stage 0: nothing is shared out; gradients added up once a"));
  EXPECT_THAT(said({dp, "parallelism.zero_stage=1"}),
              HasSubstr("stage 1: optimizer state in shards of 2 ranks; gradients added up once"));
  EXPECT_THAT(said({dp, "parallelism.zero_stage=2"}),
              HasSubstr("stage 2: gradients and optimizer state in shards of 2 ranks; gradients "
                        "added up every microbatch\n"));
  const std::string three = said({dp, "parallelism.zero_stage=3"});
  EXPECT_THAT(three, HasSubstr("stage 3: weights, gradients and optimizer state in shards of 2 "
                               "ranks; 1 unit gathered ahead, each kept for one pass; gradients"));
  EXPECT_THAT(three, HasSubstr("dp shard"));
  const std::string groups =
      said({"parallelism.dp=4", "parallelism.zero_stage=1", "parallelism.zero_group=2",
            "parallelism.persist_elements=1000", "parallelism.reduction=ring"});
  EXPECT_THAT(groups, HasSubstr("stage 1: optimizer state in shards within groups of 2 ranks, 2 "
                                "copies; parameters of fewer than 1,000 elements whole; gradients "
                                "added up once a step along rings\n"));
  EXPECT_THAT(groups, HasSubstr("dp all-gather"));
  EXPECT_THAT(said({dp, "data_parallel.algorithm=reduce_broadcast"}),
              HasSubstr("gradients added up once a step along a chain of ranks and back\n"));
  EXPECT_THAT(said({dp, "parallelism.zero_stage=3", "parallelism.grad_reduce=step",
                    "parallelism.zero_prefetch=2", "parallelism.reshard_after_forward=false"}),
              HasSubstr("stage 3: weights and optimizer state in shards of 2 ranks; 2 units "
                        "gathered ahead, each kept from a Forward to its backward; gradients added "
                        "up once a step\n"));
}

class ContextPlanTest : public ::testing::Test {
 protected:
  // Text, and `json`, with what `machine` is.
  std::string Said(const std::vector<std::string>& sets, const PlanMachine& machine = {}) {
    const auto job = JobFolder().Load(sets);
    CHECK(job.ok(), "{}", job.error().message);
    const auto plan = MakeJobPlan(job->spec);
    CHECK(plan.ok(), "{}", plan.error().message);
    json = nlohmann::json::parse(PlanJson(job->spec, *plan, machine));
    return PlanText(job->spec, *plan, machine);
  }
  nlohmann::json json{};
};

TEST_F(ContextPlanTest, SaysHowRanksShareSequences) {
  EXPECT_THAT(Said({}), Not(HasSubstr("context")));
  EXPECT_EQ(json["context"], nullptr);
  const std::string text = Said({"parallelism.cp=2"});
  EXPECT_THAT(text, HasSubstr("  context   ring, zigzag: 2 ranks share each sequence, 4 of its "
                              "tokens each; balance 1.000; a hop carries 256 B, of gradients 256 "
                              "B\n"));
  EXPECT_THAT(text, HasSubstr("cp kv_hop"));
  EXPECT_THAT(text, HasSubstr("cp kv_gradient_hop"));
  EXPECT_THAT(text, Not(HasSubstr("hidden")));
  EXPECT_EQ(json["context"]["ranks"], 2);
  EXPECT_EQ(json["context"]["method"], "ring");
  EXPECT_EQ(json["context"]["load_balance"], "zigzag");
  EXPECT_EQ(json["context"]["chunk"], 4);
  EXPECT_FALSE(json["context"].contains("hiding_chunk"));
  int hops = 0;
  for (const auto& row : json["communication"]) {
    EXPECT_EQ(row.contains("bytes_per_hop"), row["axis"] == "cp") << row;
    if (row["axis"] != "cp") continue;
    EXPECT_EQ(row["bytes_per_hop"], 256);
    EXPECT_EQ(row["bytes"], row["count"].get<int64_t>() * 256);
    ++hops;
  }
  EXPECT_EQ(hops, 2 * 4) << "of each rank two kinds";
  EXPECT_THAT(Said({"parallelism.cp=2", "parallelism.cp_method=ulysses"}),
              HasSubstr("  context   ulysses, contiguous: 2 ranks share each sequence, 4 of its "
                        "tokens each; balance 1.000\n"));
  EXPECT_THAT(Said({"parallelism.cp=2", "parallelism.cp_load_balance=contiguous"}),
              HasSubstr("balance 0.692; a hop"));
  EXPECT_THAT(Said({"parallelism.cp=2", "data.document_separator=10"}),
              HasSubstr("balance 1.000 of one document a sequence; of several, at most its work; a "
                        "hop"));
}

TEST_F(ContextPlanTest, SaysFromWhichChunkHopsAreHidden) {
  const PlanMachine machine{.flops_per_second = 600e12, .bytes_per_second = 450e9};
  EXPECT_THAT(Said({"parallelism.cp=2", "train.dtype=bfloat16"}, machine),
              HasSubstr("  hops      hidden from 1,334 tokens a rank on, in a backward from 1,600, "
                        "at 6e+14 operations and 4.5e+11 B a second; a rank has 4\n"));
  EXPECT_EQ(json["context"]["hiding_chunk"]["forward"], 1334);
  EXPECT_EQ(json["context"]["hiding_chunk"]["backward"], 1600);
  EXPECT_THAT(Said({"parallelism.cp=2", "parallelism.cp_method=all_gather"}, machine),
              Not(HasSubstr("hidden")));
}

TEST_F(ContextPlanTest, SaysWhatIsComputedAgain) {
  EXPECT_THAT(Said({}), Not(HasSubstr("recompute")));
  EXPECT_EQ(json["recompute"], "none");
  EXPECT_THAT(
      Said({"train.recompute=full"}),
      HasSubstr("  recompute full: a backward computes all of a layer but its input again\n"));
  EXPECT_EQ(json["recompute"], "full");
}

}  // namespace
}  // namespace troupe::testing

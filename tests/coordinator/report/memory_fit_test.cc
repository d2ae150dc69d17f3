#include "coordinator/report/memory_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr VectorIsa kIsa = VectorIsa::kAvx2;
constexpr int64_t kMebibyte = int64_t{1} << 20;

class MemoryFitTest : public ::testing::Test {
 protected:
  MemoryFitTest() { small_.folder.Write("text.txt", std::string(100'000, 'x')); }
  // Activations are most of what it needs.
  proto::JobSpec Spec(const std::vector<std::string>& sets = {}) {
    std::vector<std::string> all = {"batch.seq_len=64", "batch.micro_batch_size=64",
                                    "batch.global_batch_size=256", "model.hidden_size=64",
                                    "model.intermediate_size=512"};
    all.insert(all.end(), sets.begin(), sets.end());
    auto job = small_.Load(all);
    CHECK(job.ok(), "{}", job.error().message);
    return job->spec;
  }
  MemoryFit Fit(const proto::JobSpec& spec, const HostMemory& memory) {
    const auto plan = MakeJobPlan(spec);
    CHECK(plan.ok());
    return FitOnHost(spec, *plan, kIsa, memory);
  }
  JobFolder small_;
};

HostMemory Host(int64_t total, int64_t available = -1) {
  return {.total_bytes = total, .available_bytes = available < 0 ? total : available};
}

TEST_F(MemoryFitTest, AddsUpTheRanksOfTheHost) {
  const proto::JobSpec spec = Spec();
  const auto plan = MakeJobPlan(spec);
  int64_t sum = 0;
  for (int rank = 0; rank < 2; ++rank) {
    const MemoryPrediction bytes = plan->MemoryOf(Rank(rank), kIsa);
    sum = std::accumulate(bytes.begin(), bytes.end(), sum);
  }
  const MemoryFit fit = Fit(spec, Host(sum + 2 * kRankProcessBytes));
  EXPECT_EQ(fit.needed_bytes(), sum + 2 * kRankProcessBytes);
  EXPECT_TRUE(fit.fits() && fit.fits_now());
  EXPECT_TRUE(CheckFit(fit).ok());
  EXPECT_THAT(fit.remedies, IsEmpty());
  EXPECT_THAT(FitText(fit, 2), HasSubstr("  host      2 ranks: "));
  const MemoryFit busy = Fit(spec, Host(sum + 2 * kRankProcessBytes, sum));
  EXPECT_TRUE(busy.fits());
  EXPECT_FALSE(busy.fits_now());
  const MemoryFit lacking = Fit(spec, Host(sum + 2 * kRankProcessBytes - 1));
  EXPECT_FALSE(lacking.fits());
}

// What it names is planned and weighed: taken, it fits, and the next larger value does not.
TEST_F(MemoryFitTest, NamesWhatWouldFit) {
  const proto::JobSpec spec = Spec();
  const int64_t room = Fit(spec, Host(int64_t{1} << 40)).needed_bytes() * 3 / 4;
  const MemoryFit fit = Fit(spec, Host(room));
  ASSERT_FALSE(fit.fits());
  ASSERT_THAT(fit.remedies, Contains(StartsWith("batch.micro_batch_size=")));
  const Status refused = CheckFit(fit);
  EXPECT_EQ(refused.error().code, ErrorCode::kInfeasible);
  EXPECT_THAT(refused.error().message, HasSubstr("the job does not fit this host: "));
  EXPECT_THAT(refused.error().message, HasSubstr("what would: batch.micro_batch_size="));
  const int value = std::stoi(fit.remedies[0].substr(fit.remedies[0].find('=') + 1));
  const auto with = [&](int size) {
    return Fit(Spec({"batch.micro_batch_size=" + std::to_string(size)}), Host(room)).fits();
  };
  EXPECT_TRUE(with(value));
  EXPECT_FALSE(with(2 * value));
}

// A length below an eighth is no advice.
TEST_F(MemoryFitTest, ShortensNoSequenceToUselessness) {
  const proto::JobSpec spec = Spec({"batch.micro_batch_size=1", "parallelism.pp=1"});
  const auto needed = [&](int length) {
    return Fit(Spec({"batch.micro_batch_size=1", "parallelism.pp=1",
                     "batch.seq_len=" + std::to_string(length)}),
               Host(int64_t{1} << 40))
        .needed_bytes();
  };
  EXPECT_THAT(Fit(spec, Host(needed(8))).remedies, Contains(StartsWith("batch.seq_len=8 (")));
  for (const std::string& remedy : Fit(spec, Host(needed(4))).remedies) {
    EXPECT_THAT(remedy, ::testing::Not(HasSubstr("batch.seq_len=4")));
    EXPECT_THAT(remedy, ::testing::Not(StartsWith("batch.seq_len=")));
  }
}

// Ranks that share out more need less; when they add up gradients follows the stage.
TEST_F(MemoryFitTest, SharingOutMoreIsARemedy) {
  const auto spec = [this](const std::string& stage) {
    return Spec({"parallelism.pp=1", "parallelism.dp=4", "batch.seq_len=8",
                 "batch.micro_batch_size=1", "batch.global_batch_size=8", "model.hidden_size=256",
                 "model.intermediate_size=2048", "parallelism.zero_stage=" + stage});
  };
  const int64_t room = Fit(spec("2"), Host(int64_t{1} << 40)).needed_bytes();
  ASSERT_FALSE(Fit(spec("1"), Host(room)).fits());
  EXPECT_THAT(Fit(spec("0"), Host(room)).remedies,
              Contains(StartsWith("parallelism.zero_stage=2")));
}

TEST_F(MemoryFitTest, MoreHostsAreARemedyWhereARankFits) {
  const proto::JobSpec spec = Spec({"parallelism.pp=4"});
  const MemoryFit wide = Fit(spec, Host(int64_t{1} << 40));
  const MemoryFit fit = Fit(spec, Host(wide.largest_bytes + kMebibyte));
  ASSERT_FALSE(fit.fits());
  EXPECT_THAT(fit.remedies, Contains(HasSubstr(" hosts like this (each rank at most ")));
  const MemoryFit none = Fit(spec, Host(kMebibyte));
  EXPECT_THAT(none.remedies, ::testing::ElementsAre(StartsWith("a smaller model")));
}

TEST_F(MemoryFitTest, ComputingAgainIsARemedy) {
  const auto needed = [this](const char* recompute) {
    return Fit(Spec({std::string("train.recompute=") + recompute}), Host(int64_t{1} << 40))
        .needed_bytes();
  };
  EXPECT_GT(needed("none"), needed("attention"));
  EXPECT_GT(needed("attention"), needed("full"));
  EXPECT_THAT(Fit(Spec(), Host(needed("full"))).remedies,
              Contains(StartsWith("train.recompute=full (")));
  EXPECT_THAT(Fit(Spec(), Host(needed("attention"))).remedies,
              Contains(StartsWith("train.recompute=attention (")));
  for (const std::string& remedy : Fit(Spec({"train.recompute=full"}), Host(kMebibyte)).remedies) {
    EXPECT_THAT(remedy, ::testing::Not(HasSubstr("recompute")));
  }
}

// A rank of the deepest pipeline is too large; with half of each sequence it fits.
TEST_F(MemoryFitTest, SharingSequencesOverMoreHostsIsARemedy) {
  const auto largest = [this](const char* cp) {
    return Fit(Spec({"parallelism.pp=4", std::string("parallelism.cp=") + cp}),
               Host(int64_t{1} << 40))
        .largest_bytes;
  };
  ASSERT_GT(largest("1"), largest("2") + kMebibyte);
  EXPECT_THAT(Fit(Spec({"parallelism.pp=4"}), Host(largest("2") + kMebibyte)).remedies,
              Contains(HasSubstr(" hosts like this with parallelism.cp=2 (each rank at most ")));
}

TEST_F(MemoryFitTest, TheOneWorkerOfAComparisonCounts) {
  const proto::JobSpec spec = Spec({"eval.check_against=single_worker", "parallelism.pp=4"});
  const MemoryFit fit = Fit(spec, Host(int64_t{1} << 40));
  EXPECT_GT(fit.reference_bytes, 0);
  EXPECT_THAT(FitText(fit, 4), HasSubstr(" for one worker"));
}

TEST_F(MemoryFitTest, AProcessMayHaveALimitOfItsOwn) {
  HostMemory memory = Host(int64_t{1} << 40);
  memory.process_bytes = kRankProcessBytes;
  const MemoryFit fit = Fit(Spec(), memory);
  EXPECT_FALSE(fit.fits());
  EXPECT_THAT(CheckFit(fit).error().message, HasSubstr("ulimit leaves a process 40.0 MiB"));
}

}  // namespace
}  // namespace troupe::testing

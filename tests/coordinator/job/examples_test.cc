// The job files in examples/ load, and the annotated one names every key there is.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <numeric>

#include "actors/plan/job_plan.h"
#include "tests/support/load_job.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::LoadJob;

const std::string kExamples = std::string(TROUPE_SOURCE_DIR) + "/examples";

// Every example trains on the licence texts that Debian has; elsewhere any text will do.
std::vector<Override> WithSomeText(const testing::TemporaryFolder& folder) {
  return {{"data.train", folder.Write("text.txt", std::string(40'000, 'x'))}};
}

TEST(ExamplesTest, EveryExampleIsAGoodJob) {
  const testing::TemporaryFolder folder;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kExamples)) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    const auto job = LoadJob(SystemFiles(), entry.path(), WithSomeText(folder));
    EXPECT_TRUE(job.ok()) << job.error().message;
  }
  EXPECT_GE(files, 8);
}

// Each shares out more than the one before it.
TEST(ExamplesTest, TheStaircaseOfZeroStagesKeepsLessAndLess) {
  const testing::TemporaryFolder folder;
  int64_t before = std::numeric_limits<int64_t>::max();
  for (const char* name : {"data-parallel", "zero-1", "zero-2", "zero-3"}) {
    const auto job = LoadJob(SystemFiles(), kExamples + "/" + name + ".yaml", WithSomeText(folder));
    ASSERT_TRUE(job.ok()) << job.error().message;
    EXPECT_EQ(job->spec.name(), name);
    const auto plan = MakeJobPlan(job->spec);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    const MemoryPrediction memory = plan->MemoryOf(Rank(0), VectorIsa::kAvx2);
    int64_t kept = 0;
    for (const MemoryTag tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kOptimizer}) {
      kept += memory[static_cast<size_t>(tag)];
    }
    EXPECT_LT(kept, before) << name;
    before = kept;
  }
}

// The more workers share its sequences, the less each holds of them.
TEST(ExamplesTest, ALongContextIsSharedOut) {
  const testing::TemporaryFolder folder;
  int64_t before = std::numeric_limits<int64_t>::max();
  for (const char* workers : {"1", "2", "4", "8"}) {
    std::vector<Override> overrides = WithSomeText(folder);
    overrides.push_back({"parallelism.cp", workers});
    const auto job = LoadJob(SystemFiles(), kExamples + "/long-context.yaml", overrides);
    ASSERT_TRUE(job.ok()) << job.error().message;
    const auto plan = MakeJobPlan(job->spec);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    const MemoryPrediction memory = plan->MemoryOf(Rank(0), VectorIsa::kAvx2);
    const int64_t bytes = std::accumulate(memory.begin(), memory.end(), int64_t{0});
    EXPECT_LT(bytes, before) << workers << " workers";
    before = bytes;
  }
}

void ExpectNamed(const google::protobuf::Descriptor& type, const std::string& text) {
  for (int i = 0; i < type.field_count(); ++i) {
    const auto& field = *type.field(i);
    // Axes that are not built yet, and ids that only config.json has.
    if (field.name() == "tp" || field.name() == "ep" || field.name().ends_with("_token_id") ||
        field.name().ends_with("_bias") || field.name() == "hidden_act") {
      continue;
    }
    EXPECT_THAT(text, HasSubstr(field.name() + ":")) << field.full_name();
    if (field.message_type() != nullptr) ExpectNamed(*field.message_type(), text);
  }
}

TEST(ExamplesTest, TheAnnotatedExampleNamesEveryKey) {
  const auto text = SystemFiles().ReadFile(kExamples + "/every-key.yaml", 1 << 20);
  ASSERT_TRUE(text.ok());
  ExpectNamed(*proto::JobSpec::descriptor(), *text);
}

}  // namespace
}  // namespace troupe

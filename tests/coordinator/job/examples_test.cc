// The job files in examples/ load, and the annotated one names every key there is.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "actors/plan/job_plan.h"
#include "tests/support/load_job.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::LoadJob;

const std::string kExamples = std::string(TROUPE_SOURCE_DIR) + "/examples";

// Every example trains on the licence texts that Debian has; elsewhere any file will do.
std::vector<Override> WithSomeText() {
  return {{"data.train", std::string(TROUPE_SOURCE_DIR) + "/tests/layering/tidy_test.cc"}};
}

TEST(ExamplesTest, EveryExampleIsAGoodJob) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kExamples)) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    const auto job = LoadJob(SystemFiles(), entry.path(), WithSomeText());
    EXPECT_TRUE(job.ok()) << job.error().message;
  }
  EXPECT_GE(files, 7);
}

// Each shares out more than the one before it.
TEST(ExamplesTest, TheStaircaseOfZeroStagesKeepsLessAndLess) {
  int64_t before = std::numeric_limits<int64_t>::max();
  for (const char* name : {"data-parallel", "zero-1", "zero-2", "zero-3"}) {
    const auto job = LoadJob(SystemFiles(), kExamples + "/" + name + ".yaml", WithSomeText());
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

void ExpectNamed(const google::protobuf::Descriptor& type, const std::string& text) {
  for (int i = 0; i < type.field_count(); ++i) {
    const auto& field = *type.field(i);
    // Axes that are not built yet, and ids that only config.json has.
    if (field.name() == "cp" || field.name() == "tp" || field.name() == "ep" ||
        field.name().ends_with("_token_id") || field.name().ends_with("_bias") ||
        field.name() == "hidden_act") {
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

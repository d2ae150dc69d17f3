#include "coordinator/cli/validate_command.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

TEST(ValidateCommandTest, JsonHasEveryFindingWithItsPlace) {
  const JobFolder folder(std::string(kTinyJob) + "optimizer:\n  lr: -1\n  eps: 0\n");
  const JobReading reading =
      ReadJobOf({.job_file = folder.path, .sets = {"kind=x", "train.seed="}});
  const auto report = nlohmann::json::parse(ValidationJson(reading, -1));
  EXPECT_EQ(report["ok"], false);
  EXPECT_EQ(report["job"], folder.path);
  ASSERT_EQ(report["errors"].size(), 3u) << report;
  const auto& rate = report["errors"][0];
  EXPECT_EQ(rate["file"], folder.path);
  EXPECT_EQ(rate["line"], 14);
  EXPECT_EQ(rate["column"], 7);
  EXPECT_EQ(rate["key"], "optimizer.lr");
  EXPECT_EQ(rate["message"], "optimizer.lr = -1: use a positive number, as 3e-4");
  const auto& kind = report["errors"][1];
  EXPECT_EQ(kind["file"], "--set kind=x");
  EXPECT_TRUE(kind["line"].is_null());
  EXPECT_EQ(kind["key"], "kind");
}

TEST(ValidateCommandTest, JsonOfAGoodJobHasItsWarnings) {
  const JobFolder folder;
  const JobReading reading =
      ReadJobOf({.job_file = folder.path, .sets = {"lr_scheduler.warmup_steps=50"}});
  const auto report = nlohmann::json::parse(ValidationJson(reading, 2));
  EXPECT_EQ(report["ok"], true);
  EXPECT_EQ(report["errors"].size(), 0u);
  ASSERT_EQ(report["warnings"].size(), 1u);
  EXPECT_EQ(report["warnings"][0]["key"], "lr_scheduler.warmup_steps");
}

TEST(ValidateCommandTest, AnOverrideThatIsNoneIsAnErrorBesideTheOthers) {
  const JobFolder folder;
  const JobReading reading =
      ReadJobOf({.job_file = folder.path, .sets = {"nothing", "optimizer.eps=0"}});
  ASSERT_EQ(reading.errors.size(), 2u);
  EXPECT_EQ(reading.errors[0].Line(), "--set nothing: write it as key.key=value");
  EXPECT_EQ(reading.errors[1].key, "optimizer.eps");
}

TEST(ValidateCommandTest, TheCheckpointToGoOnFromIsJudged) {
  const JobFolder folder;
  JobReading good = ReadJobOf({.job_file = folder.path, .resume = folder.folder / "nothing"});
  EXPECT_TRUE(good.errors.empty());
  EXPECT_TRUE(JudgeResume(good).empty());
  ASSERT_EQ(good.errors.size(), 1u);
  EXPECT_EQ(good.errors[0].key, "checkpoint.resume");
  EXPECT_EQ(ExitCode(Joined(good.errors).code), 2);
  // Beside other errors too.
  const JobReading bad = ReadJobOf(
      {.job_file = folder.path, .sets = {"optimizer.eps=0"}, .resume = folder.folder / "nothing"});
  ASSERT_EQ(bad.errors.size(), 2u);
  EXPECT_EQ(bad.errors[1].key, "checkpoint.resume");
}

}  // namespace
}  // namespace troupe::testing

#include "runtime/base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "runtime/base/ids.h"

namespace troupe {
namespace {

Result<int> Half(int number) {
  if (number % 2 != 0) return MakeError(ErrorCode::kInvalidSpec, "{} is odd", number);
  return number / 2;
}
Result<int> Quarter(int number) {
  ASSIGN_OR_RETURN(const int half, Half(number));
  return Half(half);
}
Status CheckEven(int number) {
  RETURN_IF_ERROR(Half(number));
  return {};
}

TEST(ResultTest, PassesValuesAndErrorsOn) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).error().message, "3 is odd");
  EXPECT_TRUE(CheckEven(2).ok());
  EXPECT_EQ(CheckEven(1).error().code, ErrorCode::kInvalidSpec);
}

TEST(ResultTest, MovesWhatItHolds) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(5));
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 5);
}

TEST(ErrorTest, ReadsOutermostNounFirst) {
  EXPECT_EQ(Context("stage 2", Context("microbatch 7", {ErrorCode::kIo, "disk"})).message,
            "stage 2: microbatch 7: disk");
}

TEST(ErrorTest, ExitCodesAreTheDocumentedOnes) {
  EXPECT_EQ(ExitCode(ErrorCode::kInvalidSpec), 2);
  EXPECT_EQ(ExitCode(ErrorCode::kInfeasible), 3);
  EXPECT_EQ(ExitCode(ErrorCode::kUnavailable), 4);
  EXPECT_EQ(ExitCode(ErrorCode::kPeerDown), 5);
  EXPECT_EQ(ExitCode(ErrorCode::kGateFailed), 6);
  EXPECT_EQ(ExitCode(ErrorCode::kCancelled), 130);
  EXPECT_EQ(ExitCode(ErrorCode::kOutOfSpace), 1);
}

TEST(CheckDeathTest, NamesTheBrokenLaw) {
  EXPECT_DEATH(CHECK(1 > 2, "rank {}", 3), "CHECK\\(1 > 2\\) failed: rank 3");
  EXPECT_DEATH((void)Half(3).value(), "3 is odd");
}

TEST(IdTest, ComparesAndPrints) {
  EXPECT_LT(Rank(1), Rank(2));
  EXPECT_EQ(StageId(1).Next(), StageId(2));
  EXPECT_EQ(fmt::format("rank {}", Rank(4)), "rank 4");
}

}  // namespace
}  // namespace troupe

#include "coordinator/report/step_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::vector<LinePiece> Pieces() {
  proto::StepMetrics metrics;
  metrics.set_step(7);
  metrics.set_loss(2.5);
  metrics.set_grad_norm(0);
  metrics.set_tokens_per_second(12'345);
  return StepPieces(metrics, 120, 4, 61);
}

TEST(StepLineTest, TheWholeLineHasEveryPiece) {
  const std::string line = WholeLine(Pieces());
  EXPECT_THAT(line, StartsWith("step     7/120 | loss 2.5000 | grad_norm 0.000 | lr 0.00e+00 | "
                               "tok/s 12,345 (3,086/worker) | bubble 0.0%"));
  EXPECT_THAT(line, HasSubstr(" | eta 61s"));
  EXPECT_THAT(line, Not(HasSubstr("mfu"))) << "not known";
}

TEST(StepLineTest, TheLossStaysToTheLast) {
  for (size_t columns = WholeLine(Pieces()).size(); columns > 11; --columns) {
    const std::string line = FittedBesideBar(Pieces(), columns);
    EXPECT_LE(line.size(), columns);
    EXPECT_THAT(line, HasSubstr("loss 2.5000"));
  }
  EXPECT_EQ(FittedBesideBar(Pieces(), 11), "loss 2.5000");
}

TEST(StepLineTest, ABarHasItsRoomWhereTheStepHas) {
  const std::string line = FittedBesideBar(Pieces(), 80);
  EXPECT_THAT(line, StartsWith("step     7/120"));
  EXPECT_LE(line.size() + kBarColumns + 3, 80u);
}

TEST(StepLineTest, DurationsAreShort) {
  EXPECT_EQ(DurationText(59), "59s");
  EXPECT_EQ(DurationText(723), "12m03s");
  EXPECT_EQ(DurationText(7500), "2h05m");
  EXPECT_EQ(DurationText(1e12), "?");
}

}  // namespace
}  // namespace troupe

#include "actors/plan/microbatch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr BatchArithmetic kTwoOfThree{.micro_batch_size = 2, .seq_len = 3};

TEST(Microbatch, PositionsRestartInEachSequence) {
  EXPECT_THAT(*PositionsOfSequences(kTwoOfThree), ElementsAre(0, 1, 2, 0, 1, 2));
}

TEST(Microbatch, LabelsAreTheTokensShiftedByOne) {
  const std::vector<int32_t> rows = {1, 2, 3, 4, 5, 6, 7, 8};
  const TokenPositions positions = std::make_shared<const std::vector<int32_t>>(6, 9);
  const Microbatch all = MicrobatchOf(
      rows, kTwoOfThree, {.tokens = true, .labels = true, .positions = true}, positions);
  EXPECT_THAT(all.tokens, ElementsAre(1, 2, 3, 5, 6, 7));
  EXPECT_THAT(all.labels, ElementsAre(2, 3, 4, 6, 7, 8));
  EXPECT_EQ(all.positions, positions) << "as they are, and shared";
  const Microbatch labels = MicrobatchOf(rows, kTwoOfThree, {.labels = true}, positions);
  EXPECT_THAT(labels.tokens, IsEmpty());
  EXPECT_EQ(labels.labels, all.labels);
  EXPECT_EQ(labels.positions, nullptr);
}

TEST(Microbatch, RowsOfAnotherShapeAreRefused) {
  const std::vector<int32_t> rows(7);
  EXPECT_DEATH((void)MicrobatchOf(rows, kTwoOfThree, {}, nullptr),
               "a microbatch has 7 tokens instead of 2 rows of 4");
}

TEST(Microbatch, AStageReadsWhatItsUnitsName) {
  const ModelSpec model(ModelConfig{.num_hidden_layers = 3});
  const auto fields = [&model](int stage) {
    return FieldsOf(model,
                    {.stage = stage, .num_stages = 3, .first_layer = stage, .num_layers = 1});
  };
  EXPECT_EQ(fields(0), (MicrobatchFields{.tokens = true, .positions = true}));
  EXPECT_EQ(fields(1), (MicrobatchFields{.positions = true}));
  EXPECT_EQ(fields(2), (MicrobatchFields{.labels = true, .positions = true}));
}

}  // namespace
}  // namespace troupe

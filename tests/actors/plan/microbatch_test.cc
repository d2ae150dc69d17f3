#include "actors/plan/microbatch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "runtime/base/random.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr BatchArithmetic kTwoOfThree{.micro_batch_size = 2, .seq_len = 3};
constexpr MicrobatchFields kAll{
    .tokens = true, .labels = true, .positions = true, .document_starts = true};
constexpr int32_t kNone = kNoLabel;

std::vector<ContextParallel> LayoutsOf(int num_ranks) {
  return {{.num_ranks = num_ranks, .layout = SequenceLayout::kContiguous},
          {.num_ranks = num_ranks, .layout = SequenceLayout::kStriped},
          {.num_ranks = num_ranks, .layout = SequenceLayout::kZigzag}};
}

TEST(Microbatch, PositionsRestartInEachSequence) {
  EXPECT_THAT(*PositionsOfSequences(kTwoOfThree), ElementsAre(0, 1, 2, 0, 1, 2));
}

TEST(Microbatch, PositionsOfARankAreThoseOfItsPlace) {
  const BatchArithmetic batch{
      .micro_batch_size = 2, .seq_len = 8, .context = {.num_ranks = 2}};  // zigzag
  EXPECT_THAT(*PositionsOfSequences(batch, 0), ElementsAre(0, 1, 6, 7, 0, 1, 6, 7));
  EXPECT_THAT(*PositionsOfSequences(batch, 1), ElementsAre(2, 3, 4, 5, 2, 3, 4, 5));
}

TEST(Microbatch, LabelsAreTheTokensShiftedByOne) {
  const std::vector<int32_t> rows = {1, 2, 3, 4, 5, 6, 7, 8};
  const TokenPositions positions = PositionsOfSequences(kTwoOfThree);
  const Microbatch all = MicrobatchOf(
      rows, kTwoOfThree, {.tokens = true, .labels = true, .positions = true}, positions);
  EXPECT_THAT(all.tokens, ElementsAre(1, 2, 3, 5, 6, 7));
  EXPECT_THAT(all.labels, ElementsAre(2, 3, 4, 6, 7, 8));
  EXPECT_EQ(all.positions, positions) << "as they are, and shared";
  EXPECT_THAT(all.document_starts, IsEmpty());
  const Microbatch labels = MicrobatchOf(rows, kTwoOfThree, {.labels = true}, positions);
  EXPECT_THAT(labels.tokens, IsEmpty());
  EXPECT_EQ(labels.labels, all.labels);
  EXPECT_EQ(labels.positions, nullptr);
}

TEST(Microbatch, RowsOfAnotherShapeAreRefused) {
  const TokenPositions positions = PositionsOfSequences(kTwoOfThree);
  EXPECT_DEATH((void)MicrobatchOf(std::vector<int32_t>(7), kTwoOfThree, {}, positions),
               "a microbatch has 7 tokens instead of 2 rows of 4");
  EXPECT_DEATH((void)MicrobatchOf(std::vector<int32_t>(8), kTwoOfThree, {},
                                  PositionsOfSequences({.seq_len = 3})),
               "3 positions of 6 tokens");
}

// One sequence, shared by two.
TEST(Microbatch, ALabelIsOfTheSequenceWhoeverHasTheNextToken) {
  const std::vector<int32_t> rows = {10, 11, 12, 13, 14};
  const auto labels = [&rows](SequenceLayout layout, int rank) {
    const BatchArithmetic batch{.seq_len = 4, .context = {.num_ranks = 2, .layout = layout}};
    return MicrobatchOf(rows, batch, kAll, PositionsOfSequences(batch, rank)).labels;
  };
  EXPECT_THAT(labels(SequenceLayout::kContiguous, 0), ElementsAre(11, 12));
  EXPECT_THAT(labels(SequenceLayout::kContiguous, 1), ElementsAre(13, 14));
  EXPECT_THAT(labels(SequenceLayout::kStriped, 0), ElementsAre(11, 13));
  EXPECT_THAT(labels(SequenceLayout::kStriped, 1), ElementsAre(12, 14));
  EXPECT_THAT(labels(SequenceLayout::kZigzag, 0), ElementsAre(11, 14));
  EXPECT_THAT(labels(SequenceLayout::kZigzag, 1), ElementsAre(12, 13));
}

TEST(Microbatch, ASeparatorIsOfTheDocumentThatItEnds) {
  const BatchArithmetic batch{.micro_batch_size = 2, .seq_len = 6};
  const std::vector<int32_t> rows = {1, 2, 0, 3, 0, 0, 4,  //
                                     0, 5, 6, 7, 8, 0, 9};
  const Microbatch data =
      MicrobatchOf(rows, batch, kAll, PositionsOfSequences(batch), {.document_separator = 0});
  EXPECT_THAT(data.document_starts, ElementsAre(0, 0, 0, 3, 3, 5, 0, 1, 1, 1, 1, 1));
  EXPECT_THAT(data.labels, ElementsAre(2, 0, kNone, 0, kNone, kNone,  //
                                       kNone, 6, 7, 8, 0, kNone))
      << "what follows a separator does not count; a separator does";
  EXPECT_THAT(data.tokens, ElementsAre(1, 2, 0, 3, 0, 0, 0, 5, 6, 7, 8, 0)) << "inputs stay";
  EXPECT_THAT(*data.positions, ElementsAre(0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5)) << "they go on";
}

TEST(Microbatch, ASeparatorMayNotCountEither) {
  const BatchArithmetic batch{.seq_len = 6};
  const std::vector<int32_t> rows = {1, 0, 2, 7, 3, 0, 4};
  const auto labels = [&](const SpecialTokens& special) {
    return MicrobatchOf(rows, batch, kAll, PositionsOfSequences(batch), special).labels;
  };
  EXPECT_THAT(labels({.ignore_label = 0, .document_separator = 0}),
              ElementsAre(kNone, kNone, 7, 3, kNone, kNone));
  EXPECT_THAT(labels({.ignore_label = 7, .document_separator = 0}),
              ElementsAre(0, kNone, kNone, 3, 0, kNone));
  EXPECT_THAT(labels({.ignore_label = 0}), ElementsAre(kNone, 2, 7, 3, kNone, 4));
}

TEST(Microbatch, WithoutASeparatorASequenceIsOneDocument) {
  const std::vector<int32_t> rows(8);
  EXPECT_THAT(
      MicrobatchOf(rows, kTwoOfThree, kAll, PositionsOfSequences(kTwoOfThree)).document_starts,
      ::testing::Each(0));
}

// Whatever falls at the borders of chunks: separators often, and labels that do not count.
TEST(Microbatch, RanksTogetherHaveTheSequences) {
  constexpr SpecialTokens kSpecial{.ignore_label = 1, .document_separator = 0};
  for (const int num_ranks : {2, 3, 4, 6, 8}) {
    for (const ContextParallel& context : LayoutsOf(num_ranks)) {
      SCOPED_TRACE(fmt::format("{} of {}", SequenceLayoutName(context.layout), num_ranks));
      BatchArithmetic batch{.micro_batch_size = 3, .seq_len = 4 * num_ranks};
      std::vector<int32_t> rows(static_cast<size_t>(3 * (batch.seq_len + 1)));
      const uint64_t key = RandomKey(static_cast<uint64_t>(num_ranks), "tokens");
      for (size_t i = 0; i < rows.size(); ++i) {
        rows[i] = static_cast<int32_t>(UniformAt(key, i) * 5);
      }
      const Microbatch whole =
          MicrobatchOf(rows, batch, kAll, PositionsOfSequences(batch), kSpecial);
      batch.context = context;
      for (int rank = 0; rank < num_ranks; ++rank) {
        const Microbatch part =
            MicrobatchOf(rows, batch, kAll, PositionsOfSequences(batch, rank), kSpecial);
        ASSERT_EQ(std::ssize(part.tokens), batch.tokens_per_microbatch());
        for (size_t t = 0; t < part.tokens.size(); ++t) {
          const auto sequence = t / static_cast<size_t>(batch.local_seq_len());
          const auto position = static_cast<size_t>((*part.positions)[t]);
          const size_t at = sequence * static_cast<size_t>(batch.seq_len) + position;
          EXPECT_EQ(part.tokens[t], whole.tokens[at]);
          EXPECT_EQ(part.labels[t], whole.labels[at]);
          EXPECT_EQ(part.document_starts[t], whole.document_starts[at]);
        }
      }
    }
  }
}

TEST(Microbatch, AStageReadsWhatItsUnitsName) {
  const ModelSpec model(ModelConfig{.num_hidden_layers = 3});
  const auto fields = [&model](int stage) {
    return FieldsOf(model, {.stage = stage, .num_stages = 3, .first_layer = stage, .num_layers = 1},
                    kTwoOfThree);
  };
  EXPECT_EQ(fields(0), (MicrobatchFields{.tokens = true, .positions = true}));
  EXPECT_EQ(fields(1), (MicrobatchFields{.positions = true}));
  EXPECT_EQ(fields(2), (MicrobatchFields{.labels = true, .positions = true}));
}

TEST(Microbatch, DocumentsAreOfThoseThatPackThem) {
  const ModelSpec model(ModelConfig{.num_hidden_layers = 3});
  const StageLayout middle{.stage = 1, .num_stages = 3, .first_layer = 1, .num_layers = 1};
  BatchArithmetic batch = kTwoOfThree;
  EXPECT_FALSE(FieldsOf(model, middle, batch).any_of_file());
  batch.packs_documents = true;
  EXPECT_EQ(FieldsOf(model, middle, batch),
            (MicrobatchFields{.positions = true, .document_starts = true}));
  EXPECT_TRUE(FieldsOf(model, middle, batch).any_of_file()) << "documents end in the file alone";
}

}  // namespace
}  // namespace troupe

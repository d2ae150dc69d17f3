// Layouts against what they mean: a query sees a key where the key stands at or before it, in the
// same document.
#include "actors/plan/sequence_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "runtime/base/random.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kLocal = 12;  // positions of a rank; even, for zigzag

std::vector<ContextParallel> EveryLayout(int num_ranks) {
  std::vector<ContextParallel> all;
  for (const auto layout :
       {SequenceLayout::kContiguous, SequenceLayout::kStriped, SequenceLayout::kZigzag}) {
    all.push_back({.num_ranks = num_ranks, .layout = layout});
  }
  return all;
}

std::string NameOf(const ContextParallel& context) {
  return std::string(SequenceLayoutName(context.layout)) + " of " +
         std::to_string(context.num_ranks);
}

// One for all layouts: N = 1 to 16, powers of two and others.
template <typename Check>
void ForEveryLayout(const Check& check) {
  for (const int num_ranks : {1, 2, 3, 4, 6, 8, 16}) {
    for (const ContextParallel& context : EveryLayout(num_ranks)) {
      SCOPED_TRACE(NameOf(context));
      check(context, num_ranks * kLocal);
    }
  }
}

TEST(SequenceLayout, EveryPositionIsOfOneRank) {
  ForEveryLayout([](const ContextParallel& context, int64_t seq_len) {
    std::vector<int32_t> all;
    for (int index = 0; index < context.num_ranks; ++index) {
      const std::vector<int32_t> positions = PositionsOf(context, index, seq_len);
      EXPECT_EQ(std::ssize(positions), kLocal);
      EXPECT_TRUE(std::ranges::is_sorted(positions)) << index;
      all.insert(all.end(), positions.begin(), positions.end());
    }
    std::ranges::sort(all);
    std::vector<int32_t> expected(static_cast<size_t>(seq_len));
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(all, expected);
  });
}

TEST(SequenceLayout, APlaceIsWhereAPositionIs) {
  ForEveryLayout([](const ContextParallel& context, int64_t seq_len) {
    for (int index = 0; index < context.num_ranks; ++index) {
      const std::vector<int32_t> positions = PositionsOf(context, index, seq_len);
      for (int64_t row = 0; row < std::ssize(positions); ++row) {
        EXPECT_EQ(PlaceOf(context, positions[static_cast<size_t>(row)], seq_len),
                  (SequencePlace{.index = index, .row = row}));
      }
    }
  });
}

TEST(SequenceLayout, LayoutsAreTheseOnes) {
  const auto of = [](SequenceLayout layout, int index) {
    return PositionsOf({.num_ranks = 3, .layout = layout}, index, 12);
  };
  EXPECT_THAT(of(SequenceLayout::kContiguous, 1), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(of(SequenceLayout::kStriped, 1), ElementsAre(1, 4, 7, 10));
  EXPECT_THAT(of(SequenceLayout::kZigzag, 0), ElementsAre(0, 1, 10, 11));
  EXPECT_THAT(of(SequenceLayout::kZigzag, 2), ElementsAre(4, 5, 6, 7));
}

TEST(SequenceLayout, OneRankMayHaveAnOddNumber) {
  EXPECT_THAT(PositionsOf({}, 0, 3), ElementsAre(0, 1, 2));
  EXPECT_EQ(PlaceOf({}, 2, 3), (SequencePlace{.index = 0, .row = 2}));
}

TEST(SequenceLayout, ASequenceThatDoesNotDivideIsRefused) {
  EXPECT_DEATH((void)PositionsOf({.num_ranks = 4, .layout = SequenceLayout::kStriped}, 0, 10),
               "4 ranks share 10 positions");
  EXPECT_DEATH((void)PositionsOf({.num_ranks = 2}, 0, 6), "zigzag halves a rank's 3 positions");
}

// Of each query the keys that it sees, by looking at each.
void ExpectRangesOf(const KeyRanges& ranges, const std::vector<int32_t>& queries,
                    const std::vector<int32_t>& keys, const std::vector<int32_t>& starts) {
  ASSERT_EQ(ranges.first_key.size(), queries.size());
  ASSERT_EQ(ranges.end_key.size(), queries.size());
  EXPECT_TRUE(std::ranges::is_sorted(ranges.first_key));
  EXPECT_TRUE(std::ranges::is_sorted(ranges.end_key));
  int64_t num_pairs = 0;
  for (size_t i = 0; i < queries.size(); ++i) {
    ASSERT_LE(0, ranges.first_key[i]);
    ASSERT_LE(ranges.first_key[i], ranges.end_key[i]);
    ASSERT_LE(ranges.end_key[i], std::ssize(keys));
    for (size_t j = 0; j < keys.size(); ++j) {
      const bool visible = keys[j] <= queries[i] && (starts.empty() || keys[j] >= starts[i]);
      const bool in_range =
          std::cmp_less_equal(ranges.first_key[i], j) && std::cmp_less(j, ranges.end_key[i]);
      ASSERT_EQ(visible, in_range) << "query " << queries[i] << ", key " << keys[j];
      num_pairs += visible ? 1 : 0;
    }
  }
  EXPECT_EQ(ranges.num_pairs, num_pairs);
}

TEST(SequenceLayout, AQuerySeesTheKeysBeforeIt) {
  ForEveryLayout([](const ContextParallel& context, int64_t seq_len) {
    for (int rank = 0; rank < context.num_ranks; ++rank) {
      const std::vector<int32_t> queries = PositionsOf(context, rank, seq_len);
      for (int other = 0; other < context.num_ranks; ++other) {
        const std::vector<int32_t> keys = PositionsOf(context, other, seq_len);
        ExpectRangesOf(CausalRanges(queries, keys), queries, keys, {});
      }
    }
  });
}

// Of each position where its document begins. Documents have `mean_length` tokens in the mean.
std::vector<int32_t> RandomDocuments(int64_t seq_len, double mean_length) {
  const uint64_t key = RandomKey(static_cast<uint64_t>(mean_length), "documents");
  std::vector<int32_t> starts;
  int32_t start = 0;
  for (int32_t position = 0; position < seq_len; ++position) {
    starts.push_back(start);
    if (UniformAt(key, static_cast<uint64_t>(position)) * mean_length < 1) start = position + 1;
  }
  return starts;
}

TEST(SequenceLayout, AQuerySeesOfItsDocumentAlone) {
  for (const double mean_length : {1.0, 2.0, 5.0, 30.0}) {
    ForEveryLayout([mean_length](const ContextParallel& context, int64_t seq_len) {
      const std::vector<int32_t> documents = RandomDocuments(seq_len, mean_length);
      int64_t num_pairs = 0;
      for (int rank = 0; rank < context.num_ranks; ++rank) {
        const std::vector<int32_t> queries = PositionsOf(context, rank, seq_len);
        std::vector<int32_t> starts;
        for (const int32_t query : queries) starts.push_back(documents[static_cast<size_t>(query)]);
        for (int other = 0; other < context.num_ranks; ++other) {
          const std::vector<int32_t> keys = PositionsOf(context, other, seq_len);
          const KeyRanges ranges = CausalRanges(queries, keys, starts);
          ExpectRangesOf(ranges, queries, keys, starts);
          num_pairs += ranges.num_pairs;
        }
      }
      int64_t expected = 0;  // however the sequence is shared
      for (int64_t position = 0; position < seq_len; ++position) {
        expected += position - documents[static_cast<size_t>(position)] + 1;
      }
      EXPECT_EQ(num_pairs, expected);
    });
  }
}

TEST(SequenceLayout, ClosedFormsCountThePairs) {
  ForEveryLayout([](const ContextParallel& context, int64_t seq_len) {
    for (int rank = 0; rank < context.num_ranks; ++rank) {
      const std::vector<int32_t> queries = PositionsOf(context, rank, seq_len);
      for (int other = 0; other < context.num_ranks; ++other) {
        EXPECT_EQ(VisiblePairs(context, rank, other, seq_len),
                  CausalRanges(queries, PositionsOf(context, other, seq_len)).num_pairs)
            << rank << " of " << other;
      }
    }
  });
}

TEST(SequenceLayout, BlocksComeFromEachRankOnce) {
  EXPECT_EQ(OriginAfter(4, 1, 0), 1);
  EXPECT_EQ(OriginAfter(4, 1, 1), 0);
  EXPECT_EQ(OriginAfter(4, 1, 2), 3);
  EXPECT_EQ(OriginAfter(4, 1, 4), 1) << "a gradient's last hop brings it home";
  EXPECT_EQ(OriginAfter(1, 0, 1), 0);
}

TEST(SequenceLayout, NamesAreThoseThatUsersWrite) {
  EXPECT_EQ(SequenceLayoutName(SequenceLayout::kContiguous), "contiguous");
  EXPECT_EQ(SequenceLayoutName(SequenceLayout::kStriped), "striped");
  EXPECT_EQ(SequenceLayoutName(SequenceLayout::kZigzag), "zigzag");
  EXPECT_EQ(ContextMethodName(ContextMethod::kRing), "ring");
  EXPECT_EQ(ContextMethodName(ContextMethod::kAllGather), "all_gather");
  EXPECT_EQ(ContextMethodName(ContextMethod::kUlysses), "ulysses");
}

}  // namespace
}  // namespace troupe

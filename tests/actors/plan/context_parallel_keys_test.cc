#include "actors/plan/context_parallel_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StrEq;

auto Says(const char* text) { return Field(&Error::message, HasSubstr(text)); }

proto::JobSpec Keys(const char* method, const char* layout = nullptr) {
  proto::JobSpec spec;
  if (method != nullptr) spec.mutable_parallelism()->set_cp_method(method);
  if (layout != nullptr) spec.mutable_parallelism()->set_cp_load_balance(layout);
  return spec;
}

TEST(ReadContext, TakesWhatIsGivenAndElseTheMethodsDefaults) {
  std::vector<Error> errors;
  EXPECT_EQ(ReadContext({}, 4, errors),
            (ContextParallel{4, ContextMethod::kRing, SequenceLayout::kZigzag}));
  EXPECT_EQ(ReadContext(Keys("all_gather"), 2, errors),
            (ContextParallel{2, ContextMethod::kAllGather, SequenceLayout::kZigzag}));
  EXPECT_EQ(ReadContext(Keys("all-gather", "striped"), 2, errors),
            (ContextParallel{2, ContextMethod::kAllGather, SequenceLayout::kStriped}));
  EXPECT_EQ(ReadContext(Keys("ulysses"), 2, errors),
            (ContextParallel{2, ContextMethod::kUlysses, SequenceLayout::kContiguous}));
  EXPECT_EQ(ReadContext(Keys("ulysses", "contiguous"), 2, errors),
            (ContextParallel{2, ContextMethod::kUlysses, SequenceLayout::kContiguous}));
  EXPECT_EQ(ReadContext(Keys("ring", "contiguous"), 0, errors).num_ranks, 1) << "not known";
  EXPECT_THAT(errors, IsEmpty());
}

TEST(ReadContext, RefusesEachKeyByName) {
  std::vector<Error> errors;
  (void)ReadContext(Keys("star", "diagonal"), 2, errors);
  (void)ReadContext(Keys("ulysses", "zigzag"), 2, errors);
  EXPECT_THAT(errors,
              ElementsAre(Says("parallelism.cp_method = star: use ring ("),
                          Says("parallelism.cp_load_balance = diagonal: use zigzag ("),
                          Says("parallelism.cp_load_balance = zigzag: with parallelism.cp_method = "
                               "ulysses each rank attends to whole sequences")));
}

std::vector<Error> Judged(ContextParallel context, int64_t seq_len, int64_t heads = 0,
                          int64_t kv_heads = 0) {
  std::vector<Error> errors;
  CheckContext(context, {.num_attention_heads = heads, .num_key_value_heads = kv_heads}, seq_len,
               errors);
  return errors;
}

TEST(CheckContext, ALengthThatDoesNotDivideIsRefusedWithValuesThatWould) {
  const ContextParallel zigzag{3, ContextMethod::kRing, SequenceLayout::kZigzag};
  EXPECT_THAT(Judged(zigzag, 12), IsEmpty());
  EXPECT_THAT(
      Judged(zigzag, 100),
      ElementsAre(Field(
          &Error::message,
          StrEq("batch.seq_len = 100 is not a multiple of 2 x 3: the ranks of parallelism.cp = 3 "
                "have two of 6 equal parts of a sequence each (zigzag); use batch.seq_len = 96 or "
                "102, "
                "or parallelism.cp = 2 or 5"))));
  EXPECT_THAT(Judged(zigzag, 9),
              ElementsAre(Says("use batch.seq_len = 6 or 12, or parallelism.cp = 1, or "
                               "parallelism.cp_load_balance = striped or contiguous")));
  EXPECT_THAT(
      Judged({4, ContextMethod::kRing, SequenceLayout::kStriped}, 3),
      ElementsAre(Says("is not a multiple of 4: the ranks of parallelism.cp = 4 have one of "
                       "4 equal parts of a sequence each (striped); use batch.seq_len = 4, "
                       "or parallelism.cp = 3")));
  EXPECT_THAT(Judged({2, ContextMethod::kUlysses, SequenceLayout::kContiguous}, 7, 2, 2),
              ElementsAre(Field(&Error::message,
                                EndsWith("use batch.seq_len = 6 or 8, or parallelism.cp = 1"))));
}

TEST(CheckContext, UlyssesNeedsHeadsForEveryRank) {
  const auto with = [](int32_t ranks, int64_t heads, int64_t kv_heads) {
    return Judged({ranks, ContextMethod::kUlysses, SequenceLayout::kContiguous}, 24, heads,
                  kv_heads);
  };
  EXPECT_THAT(with(2, 4, 4), IsEmpty());
  EXPECT_THAT(with(4, 4, 2), IsEmpty()) << "two ranks have each head of keys";
  EXPECT_THAT(with(3, 0, 0), IsEmpty()) << "not known";
  EXPECT_THAT(
      with(3, 4, 4),
      ElementsAre(Says("parallelism.cp = 3 does not divide model.num_attention_heads = 4: "
                       "with parallelism.cp_method = ulysses each rank has whole heads; use "
                       "parallelism.cp = 2 or 4, or cp_method: ring")));
  EXPECT_THAT(with(6, 12, 4),
              ElementsAre(Says("parallelism.cp = 6 neither divides model.num_key_value_heads = 4 "
                               "nor is a multiple of it")));
  EXPECT_THAT(Judged({3, ContextMethod::kRing, SequenceLayout::kZigzag}, 6, 4, 4), IsEmpty());
}

// Both lines of two errors give the same, and none gives what the next reading would refuse.
TEST(CheckContext, WhatIsRecommendedSuitsLengthAndHeads) {
  const auto ends = [](const char* text) { return Field(&Error::message, EndsWith(text)); };
  const auto ulysses = [](int32_t ranks, int64_t seq_len, int64_t heads, int64_t kv_heads) {
    return Judged({ranks, ContextMethod::kUlysses, SequenceLayout::kContiguous}, seq_len, heads,
                  kv_heads);
  };
  EXPECT_THAT(ulysses(4, 32, 12, 3),
              ElementsAre(ends("use parallelism.cp = 1, or cp_method: ring")));
  EXPECT_THAT(ulysses(4, 24, 12, 3),
              ElementsAre(ends("use parallelism.cp = 3 or 6, or cp_method: ring")));
  EXPECT_THAT(ulysses(6, 8, 3, 3), ElementsAre(ends("(contiguous); use parallelism.cp = 1"),
                                               ends("whole heads; use parallelism.cp = 1")));
  EXPECT_THAT(ulysses(4, 12, 3, 3),
              ElementsAre(ends("use parallelism.cp = 3, or cp_method: ring with cp_load_balance: "
                               "striped")));
  EXPECT_THAT(ulysses(4, 0, 12, 3),
              ElementsAre(ends("use parallelism.cp = 3 or 6, or cp_method: ring")));
}

TEST(CheckContext, OneRankHasWhateverThereIs) {
  EXPECT_THAT(Judged({1, ContextMethod::kRing, SequenceLayout::kZigzag}, 7, 3, 2), IsEmpty());
}

TEST(ShareSequencesAlike, ComparesWhatHasAnEffect) {
  proto::JobSpec one;
  proto::JobSpec other;
  other.mutable_parallelism()->set_cp(1);
  other.mutable_parallelism()->set_cp_load_balance("striped");
  EXPECT_TRUE(ShareSequencesAlike(one, other)) << "no sequence is shared";
  other.mutable_parallelism()->set_cp(2);
  EXPECT_FALSE(ShareSequencesAlike(one, other));
  one.mutable_parallelism()->set_cp(2);
  EXPECT_FALSE(ShareSequencesAlike(one, other)) << "zigzag, striped";
  one.mutable_parallelism()->set_cp_load_balance("striped");
  one.mutable_parallelism()->set_cp_method("ring");
  EXPECT_TRUE(ShareSequencesAlike(one, other)) << "the default";
  other.mutable_parallelism()->set_cp_method("all-gather");
  EXPECT_FALSE(ShareSequencesAlike(one, other));
}

}  // namespace
}  // namespace troupe

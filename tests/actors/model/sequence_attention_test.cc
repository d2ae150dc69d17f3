// Attention over sequences that ranks share, in every way there is, against dense attention over
// whole sequences.
#include "actors/model/sequence_attention.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "tests/actors/model/attention_ranks.h"

namespace troupe {
namespace {

using testing::AttentionCase;
using testing::AttentionError;
using testing::AttentionRanks;

constexpr ContextParallel kSharings[] = {
    {.method = ContextMethod::kRing, .layout = SequenceLayout::kContiguous},
    {.method = ContextMethod::kRing, .layout = SequenceLayout::kStriped},
    {.method = ContextMethod::kRing, .layout = SequenceLayout::kZigzag},
    {.method = ContextMethod::kAllGather, .layout = SequenceLayout::kContiguous},
    {.method = ContextMethod::kAllGather, .layout = SequenceLayout::kStriped},
    {.method = ContextMethod::kAllGather, .layout = SequenceLayout::kZigzag},
    {.method = ContextMethod::kUlysses, .layout = SequenceLayout::kContiguous},
};

// Heads of keys and values that `ranks` can share by the method, few of them.
int64_t KeyHeads(ContextMethod method, int ranks, int ratio) {
  if (method != ContextMethod::kUlysses) return 2;
  for (int64_t heads = 1;; ++heads) {
    const bool shares = heads % ranks == 0 || ranks % heads == 0;
    if (shares && heads * ratio % ranks == 0) return heads;
  }
}

// `unit`: tokens of half a rank's positions.
AttentionCase CaseOf(ContextParallel context, int ranks, int ratio, int64_t unit = 3) {
  context.num_ranks = ranks;
  AttentionCase c;
  c.heads.num_kv_heads = KeyHeads(context.method, ranks, ratio);
  c.heads.num_heads = c.heads.num_kv_heads * ratio;
  c.heads.head_dim = 8;
  c.batch = {.micro_batch_size = 2, .seq_len = 2 * ranks * unit, .context = context};
  return c;
}

// Begins documents at random positions.
void PackDocuments(AttentionCase& c) {
  c.batch.packs_documents = true;
  const uint64_t key = RandomKey(c.seed, "documents");
  int32_t start = 0;
  for (int64_t row = 0; row < c.Whole().tokens(); ++row) {
    const auto position = static_cast<int32_t>(row % c.batch.seq_len);
    if (position == 0) start = 0;
    if (UniformAt(key, static_cast<uint64_t>(row)) < 0.15) start = position;
    c.document_starts.push_back(start);
  }
}

void ExpectDense(const AttentionCase& c) {
  const AttentionError error = ErrorOf(c, AttentionRanks(c).Run(), DenseOf(c));
  EXPECT_LE(error.out, 1e-5) << Describe(c);
  EXPECT_LE(error.dq, 1e-5) << Describe(c);
  EXPECT_LE(error.dk, 1e-5) << Describe(c);
  EXPECT_LE(error.dv, 1e-5) << Describe(c);
}

TEST(SequenceAttention, OfSharedSequencesIsThatOfWholeOnes) {
  for (const ContextParallel& sharing : kSharings) {
    for (const int ranks : {2, 3, 4, 6, 8, 16}) {
      for (const int ratio : {1, 2, 4}) ExpectDense(CaseOf(sharing, ranks, ratio));
    }
  }
}

TEST(SequenceAttention, StaysWithinDocuments) {
  ContextParallel alone;
  AttentionCase one = CaseOf(alone, 1, 2, 20);
  PackDocuments(one);
  ExpectDense(one);
  for (const ContextParallel& sharing : kSharings) {
    for (const int ranks : {2, 3, 4}) {
      AttentionCase c = CaseOf(sharing, ranks, 2, 7);
      PackDocuments(c);
      ExpectDense(c);
    }
  }
}

TEST(SequenceAttention, OfAnyShapeIsDense) {
  EXPECT_TRUE(rc::check("shared = whole", [] {
    ContextParallel sharing = kSharings[*rc::gen::inRange<size_t>(0, std::size(kSharings))];
    sharing.num_ranks = *rc::gen::inRange(2, 7);
    const int64_t runs = sharing.num_ranks * (sharing.layout == SequenceLayout::kZigzag ? 2 : 1);
    AttentionCase c;
    const int ratio = *rc::gen::inRange(1, 4);
    c.heads.num_kv_heads =
        KeyHeads(sharing.method, sharing.num_ranks, ratio) *
        (sharing.method == ContextMethod::kUlysses ? 1 : *rc::gen::inRange(1, 3));
    c.heads.num_heads = c.heads.num_kv_heads * ratio;
    c.heads.head_dim = 2 * *rc::gen::inRange<int64_t>(1, 20);
    c.batch = {.micro_batch_size = *rc::gen::inRange<int64_t>(1, 4),
               .seq_len = runs * *rc::gen::inRange<int64_t>(1, 9),
               .context = sharing};
    c.seed = *rc::gen::inRange<uint64_t>(0, 1000);
    if (*rc::gen::arbitrary<bool>()) PackDocuments(c);
    const AttentionError error = ErrorOf(c, AttentionRanks(c).Run(), DenseOf(c));
    RC_LOG() << Describe(c);
    RC_ASSERT(error.out <= 1e-5);
    RC_ASSERT(error.dq <= 1e-5);
    RC_ASSERT(error.dk <= 1e-5);
    RC_ASSERT(error.dv <= 1e-5);
  }));
}

TEST(SequenceAttention, TwoRunsAreBitEqual) {
  for (const ContextParallel& sharing : kSharings) {
    const AttentionCase c = CaseOf(sharing, 4, 2, 9);
    const auto first = AttentionRanks(c).Run();
    AttentionRanks again(c);
    const auto second = again.Run();
    const auto third = again.Run();  // in the memory of the second
    EXPECT_TRUE(first.out == second.out && first.dqkv == second.dqkv) << Describe(c);
    EXPECT_TRUE(first.out == third.out && first.dqkv == third.dqkv) << Describe(c);
  }
}

TEST(SequenceAttention, BFloat16IsNearlyAsExactAsOnOneWorker) {
  for (const ContextParallel& sharing : kSharings) {
    for (const int ranks : {2, 4, 8}) {
      AttentionCase c = CaseOf(sharing, ranks, 4, 128 / ranks);
      c.dtype = DType::kBFloat16;
      const auto dense = DenseOf(c);
      const AttentionError shared = ErrorOf(c, AttentionRanks(c).Run(), dense);
      AttentionCase alone = c;
      alone.batch.context.num_ranks = 1;
      const AttentionError whole = ErrorOf(c, AttentionRanks(alone).Run(), dense);
      EXPECT_LE(shared.out, 2 * whole.out) << Describe(c);
      EXPECT_LE(shared.dq, 2 * whole.dq) << Describe(c);
      EXPECT_LE(shared.dk, 2 * whole.dk) << Describe(c);
      EXPECT_LE(shared.dv, 2 * whole.dv) << Describe(c);
      EXPECT_GT(whole.out, 1e-5);
    }
  }
}

// ---- what is counted ------------------------------------------------------------------------

TEST(SequenceAttention, CountsTheVisiblePairsOfEachHop) {
  for (const ContextParallel& sharing : kSharings) {
    for (const int ranks : {2, 4, 8, 16}) {
      const AttentionCase c = CaseOf(sharing, ranks, 1);
      AttentionRanks attention(c);
      attention.Run();
      const int64_t s = c.batch.seq_len;
      for (int rank = 0; rank < ranks; ++rank) {
        for (const KvPhase phase : {KvPhase::kForward, KvPhase::kBackward}) {
          const auto& pairs = attention.world().work(rank).pairs[static_cast<size_t>(phase)];
          std::vector<int64_t> expected;
          if (sharing.method == ContextMethod::kUlysses) {
            expected = {2 * (s * (s + 1) / 2)};  // of this rank's heads, all
          } else {
            for (int hop = 0; hop < ranks; ++hop) {
              const int origin = OriginAfter(ranks, rank, hop);
              expected.push_back(2 * VisiblePairs(c.batch.context, rank, origin, s));
            }
          }
          EXPECT_EQ(pairs, expected) << Describe(c) << ", rank " << rank;
        }
      }
    }
  }
}

TEST(SequenceAttention, SendsKeysForAHopLessThanTheirGradients) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    AttentionCase c = CaseOf(kSharings[2], 4, 2);
    c.dtype = dtype;
    AttentionRanks attention(c);
    attention.Run();
    const int64_t numbers =
        2 * c.batch.tokens_per_microbatch() * c.heads.num_kv_heads * c.heads.head_dim;
    for (int rank = 0; rank < 4; ++rank) {
      const auto& sent = attention.world().ring(rank).sent_bytes;
      const auto of = [&sent](KvKind kind, KvPhase phase) {
        return sent[static_cast<size_t>(kind)][static_cast<size_t>(phase)];
      };
      EXPECT_EQ(of(KvKind::kKeysValues, KvPhase::kForward), 3 * numbers * DTypeBytes(dtype));
      EXPECT_EQ(of(KvKind::kKeysValues, KvPhase::kBackward), 3 * numbers * DTypeBytes(dtype));
      EXPECT_EQ(of(KvKind::kGradients, KvPhase::kForward), 0);
      EXPECT_EQ(of(KvKind::kGradients, KvPhase::kBackward), 4 * numbers * 4);
    }
  }
}

}  // namespace
}  // namespace troupe

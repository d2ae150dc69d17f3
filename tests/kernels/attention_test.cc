#include "kernels/attention.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kForward{.float32 = 2e-6, .bfloat16 = 1e-2};
constexpr Tolerance kBackward{.float32 = 5e-6, .bfloat16 = 2e-2};

TestExec ExecFor(const AttentionShape& shape, int num_threads = 1) {
  return TestExec(AttentionWorkspaceBytes(shape, num_threads), num_threads);
}

// What each query sees, for AttentionShape to borrow.
struct Ranges {
  std::vector<int32_t> first, end;

  AttentionShape In(AttentionShape shape) const {
    shape.mask = AttentionMask::kRanges;
    shape.first_key = first;
    shape.end_key = end;
    return shape;
  }
  // The same queries against keys [from, from + count).
  Ranges OfKeys(int64_t from, int64_t count) const {
    Ranges part = *this;
    for (auto* bounds : {&part.first, &part.end}) {
      for (int32_t& bound : *bounds) {
        bound = static_cast<int32_t>(std::clamp<int64_t>(bound - from, 0, count));
      }
    }
    return part;
  }
};

// Any ranges: some queries see nothing, some everything.
Ranges AnyRanges(uint32_t seed, int64_t num_sequences, int64_t query_len, int64_t key_len) {
  std::mt19937 engine(seed);
  Ranges ranges;
  for (int64_t b = 0; b < num_sequences; ++b) {
    for (auto* bounds : {&ranges.first, &ranges.end}) {
      std::vector<int32_t> some(static_cast<size_t>(query_len));
      for (int32_t& bound : some) {
        bound = static_cast<int32_t>(engine() % static_cast<uint32_t>(key_len + 1));
      }
      std::sort(some.begin(), some.end());
      // Ends beyond the firsts, mostly.
      if (bounds == &ranges.end) {
        for (int32_t& bound : some) bound = std::min<int32_t>(bound + 20, int32_t(key_len));
      }
      bounds->insert(bounds->end(), some.begin(), some.end());
    }
  }
  return ranges;
}

// Causal attention within documents of `lengths`.
Ranges Documents(const std::vector<int>& lengths) {
  Ranges ranges;
  int32_t start = 0;
  for (const int length : lengths) {
    for (int i = 0; i < length; ++i) {
      ranges.first.push_back(start);
      ranges.end.push_back(start + i + 1);
    }
    start += length;
  }
  return ranges;
}

// Queries and keys at every n-th position: query i, at n i + queries_at, sees key j, at n j +
// keys_at, where that is no later.
Ranges Striped(int32_t len, int32_t queries_at, int32_t keys_at) {
  Ranges ranges;
  for (int32_t i = 0; i < len; ++i) {
    ranges.first.push_back(0);
    ranges.end.push_back(keys_at <= queries_at ? i + 1 : i);
  }
  return ranges;
}

// Every tensor of one attention, forward and backward.
struct Case {
  AttentionShape shape;
  TestTensor q, k, v, dout, out, lse, dq, dk, dv;

  Case(const AttentionShape& s, DType dtype, int64_t padding = 0) : shape(s) {
    const int64_t queries = s.num_sequences * s.query_len, keys = s.num_sequences * s.key_len;
    const auto query_like = [&](DType d) {
      return TestTensor(d, {queries, s.num_heads, s.head_dim}, padding);
    };
    const auto key_like = [&](DType d) {
      return TestTensor(d, {keys, s.num_kv_heads, s.head_dim}, padding);
    };
    q = query_like(dtype);
    k = key_like(dtype);
    v = key_like(dtype);
    dout = query_like(dtype);
    out = query_like(dtype);
    dq = query_like(dtype);
    dk = key_like(dtype);
    dv = key_like(dtype);
    lse = TestTensor(dtype == DType::kFloat64 ? dtype : DType::kFloat32,
                     {s.num_sequences, s.num_heads, s.query_len});
    q.Normal(1);
    k.Normal(2);
    v.Normal(3);
    dout.Normal(4);
  }

  // The same inputs in float64.
  Case Reference() const {
    Case copy(shape, DType::kFloat64);
    copy.q = q.As(DType::kFloat64);
    copy.k = k.As(DType::kFloat64);
    copy.v = v.As(DType::kFloat64);
    copy.dout = dout.As(DType::kFloat64);
    return copy;
  }
  void Forward(int num_threads = 1) {
    AttentionForward(ExecFor(shape, num_threads), shape, {out, lse, q, k, v});
  }
  AttentionBackwardArgs BackwardArgs() const {
    return {
        .dq = dq, .dk = dk, .dv = dv, .dout = dout, .q = q, .k = k, .v = v, .out = out, .lse = lse};
  }
  void Backward(int num_threads = 1) {
    AttentionBackward(ExecFor(shape, num_threads), shape, BackwardArgs());
  }
};

// Accumulators of a case's queries.
struct Sums {
  TestTensor acc, max, sum;

  explicit Sums(const Case& c)
      : acc(c.lse.dtype(), {c.q.rows(), c.shape.num_heads, c.shape.head_dim}, /*padding=*/7),
        max(c.lse),
        sum(c.lse) {
    ResetAttention(TestExec(), *this);
  }
  operator AttentionAccumulators() const { return {acc, max, sum}; }
  void Finish(Case& c) const {
    FinishAttention(TestExec(), c.shape.num_sequences, *this, c.out, c.lse);
  }
};

AttentionShape Sizes(int64_t b, int64_t sq, int64_t sk, int64_t h, int64_t kv, int64_t d,
                     AttentionMask mask = AttentionMask::kCausal) {
  return {.num_sequences = b,
          .query_len = sq,
          .key_len = sk,
          .num_heads = h,
          .num_kv_heads = kv,
          .head_dim = d,
          .mask = mask};
}

const std::vector<AttentionShape>& Shapes() {
  static const std::vector<Ranges> ranges = {
      AnyRanges(1, 1, 70, 70),   AnyRanges(2, 2, 50, 90),          AnyRanges(3, 1, 400, 30),
      AnyRanges(4, 1, 60, 700),  Documents({1, 90, 5, 5, 1, 250}), Striped(300, 0, 1),
      AnyRanges(5, 1, 130, 130),
  };
  static const std::vector<AttentionShape> shapes = {
      Sizes(1, 1, 1, 1, 1, 2),
      Sizes(2, 7, 7, 4, 2, 6),
      Sizes(1, 65, 65, 2, 1, 16),
      Sizes(2, 64, 64, 2, 2, 32),
      Sizes(1, 130, 130, 4, 1, 64),
      Sizes(1, 257, 257, 1, 1, 24),
      Sizes(1, 450, 450, 8, 1, 40),
      Sizes(1, 20, 20, 2, 1, 128),
      Sizes(1, 48, 80, 2, 2, 20, AttentionMask::kFull),
      Sizes(1, 40, 600, 2, 1, 16, AttentionMask::kFull),
      ranges[0].In(Sizes(1, 70, 70, 2, 1, 16)),
      ranges[1].In(Sizes(2, 50, 90, 4, 2, 24)),
      ranges[2].In(Sizes(1, 400, 30, 2, 2, 16)),
      ranges[3].In(Sizes(1, 60, 700, 4, 1, 32)),
      ranges[4].In(Sizes(1, 352, 352, 2, 1, 16)),
      ranges[5].In(Sizes(1, 300, 300, 2, 1, 8)),
      ranges[6].In(Sizes(3, 130, 130, 2, 1, 16)),  // one run of ranges for all sequences
  };
  return shapes;
}

void ExpectLse(const TestTensor& lse, const TestTensor& reference) {
  for (int64_t row = 0; row < reference.rows(); ++row) {
    for (int64_t i = 0; i < reference.columns(); ++i) {
      if (std::isinf(reference.At(row, i))) {
        ASSERT_EQ(lse.At(row, i), -INFINITY);
      } else {
        ASSERT_NEAR(lse.At(row, i), reference.At(row, i), 1e-5);
      }
    }
  }
}

TEST(AttentionTest, ForwardAgreesWithTheSpecification) {
  for (const AttentionShape& shape : Shapes()) {
    for (const DType dtype : FastDTypes()) {
      for (const int64_t padding : {0, 5}) {
        Case fast(shape, dtype, padding);
        Case reference = fast.Reference();
        fast.Forward();
        reference.Forward();
        ExpectClose(fast.out, reference.out, kForward, "out");
        ExpectLse(fast.lse, reference.lse);
      }
    }
  }
}

TEST(AttentionTest, BackwardAgreesWithTheSpecification) {
  for (const AttentionShape& shape : Shapes()) {
    Case float32(shape, DType::kFloat32);
    Case exact = float32.Reference();
    exact.Forward();
    exact.Backward();
    for (const DType dtype : FastDTypes()) {
      Case fast(shape, dtype, 3);
      fast.Forward();
      fast.Backward();
      ExpectClose(fast.dq, exact.dq, kBackward, "dq");
      ExpectClose(fast.dk, exact.dk, kBackward, "dk");
      ExpectClose(fast.dv, exact.dv, kBackward, "dv");
    }
  }
}

TestTensor Scaled(const TestTensor& x, double factor) {
  TestTensor scaled = x.As(DType::kFloat64);
  for (int64_t row = 0; row < x.rows(); ++row) {
    for (int64_t i = 0; i < x.columns(); ++i) scaled.Set(row, i, factor * x.At(row, i));
  }
  return scaled;
}

TEST(AttentionTest, AccumulatesInFloat32WhatItIsAskedTo) {
  for (const DType dtype : FastDTypes()) {
    Case c(Sizes(1, 50, 50, 4, 2, 16), dtype);
    c.Forward();
    for (TestTensor* gradient : {&c.dq, &c.dk, &c.dv}) *gradient = gradient->As(DType::kFloat32);
    c.Backward();
    const Case once = c;
    for (const bool queries : {false, true}) {
      for (const bool keys : {false, true}) {
        Case twice = once;
        AttentionBackwardArgs args = twice.BackwardArgs();
        args.accumulate_dq = queries;
        args.accumulate_dkv = keys;
        AttentionBackward(ExecFor(c.shape), c.shape, args);
        ExpectClose(twice.dq, Scaled(once.dq, queries ? 2 : 1), kBackward, "dq");
        ExpectClose(twice.dk, Scaled(once.dk, keys ? 2 : 1), kBackward, "dk");
        ExpectClose(twice.dv, Scaled(once.dv, keys ? 2 : 1), kBackward, "dv");
      }
    }
  }
}

TEST(AttentionTest, GradientsMatchCentralDifferences) {
  const Ranges ranges = AnyRanges(6, 2, 4, 4), documents = Documents({3, 1});
  for (const AttentionShape& shape :
       {Sizes(2, 4, 4, 4, 2, 2), Sizes(2, 4, 4, 4, 2, 2, AttentionMask::kFull),
        ranges.In(Sizes(2, 4, 4, 4, 2, 2)), documents.In(Sizes(2, 4, 4, 4, 2, 2))}) {
    Case c(shape, DType::kFloat64);
    const auto loss = [&] {
      c.Forward();
      return Inner(c.out, c.dout);
    };
    loss();
    c.Backward();
    ExpectGradient(c.q, c.dq, loss, "dq");
    ExpectGradient(c.k, c.dk, loss, "dk");
    ExpectGradient(c.v, c.dv, loss, "dv");
  }
}

// Attends to `cuts` of the keys in an order, forward and backward, as a ring does.
void RunInBlocks(Case& c, const Ranges& ranges, const std::vector<int64_t>& bounds,
                 const std::vector<size_t>& order) {
  const auto each = [&](const auto& body) {
    for (const size_t block : order) {
      const int64_t first = bounds[block], count = bounds[block + 1] - first;
      const Ranges seen = ranges.OfKeys(first, count);
      AttentionShape shape = seen.In(c.shape);
      shape.key_len = count;
      body(shape, first, count);
    }
  };
  Sums sums(c);
  each([&](const AttentionShape& shape, int64_t first, int64_t count) {
    AttendBlock(ExecFor(shape), shape, sums,
                {c.q, c.k.view().Rows(first, count), c.v.view().Rows(first, count)});
  });
  sums.Finish(c);
  EXPECT_TRUE(sums.acc.PaddingIsIntact());
  for (TestTensor* gradient : {&c.dq, &c.dk, &c.dv}) gradient->Normal(9, 0.0);
  each([&](const AttentionShape& shape, int64_t first, int64_t count) {
    AttentionBackwardArgs args = c.BackwardArgs();
    for (TensorView* view : {&args.dk, &args.dv}) *view = view->Rows(first, count);
    for (ConstTensorView* view : {&args.k, &args.v}) *view = view->Rows(first, count);
    args.accumulate_dq = args.accumulate_dkv = true;
    AttentionBackward(ExecFor(shape), shape, args);
  });
}

TEST(AttentionTest, BlocksInAnyOrderGiveTheWhole) {
  const std::vector<int64_t> bounds = {0, 1, 18, 220, 300};
  for (const Ranges& ranges :
       {Documents({300}), Documents({1, 120, 150, 29}), AnyRanges(7, 1, 300, 300)}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat64}) {
      Case whole(ranges.In(Sizes(1, 300, 300, 4, 2, 16)), dtype);
      if (dtype == DType::kBFloat16) {  // blocks are added up in float32
        for (TestTensor* gradient : {&whole.dq, &whole.dk, &whole.dv}) {
          *gradient = gradient->As(DType::kFloat32);
        }
      }
      whole.Forward();
      whole.Backward();
      const Tolerance tolerance{.float32 = dtype == DType::kFloat64 ? 1e-14 : 1e-6};
      // They read the output, which was rounded.
      const Tolerance gradients =
          dtype == DType::kBFloat16 ? Tolerance{.float32 = 1e-4} : tolerance;
      std::vector<size_t> order = {0, 1, 2, 3};
      do {
        if (dtype == DType::kFloat64 && order[1] > 0) continue;  // it takes long
        Case blocks = whole;
        RunInBlocks(blocks, ranges, bounds, order);
        ExpectClose(blocks.out, whole.out, tolerance, "out");
        ExpectLse(blocks.lse, whole.lse);
        ExpectClose(blocks.dq, whole.dq, gradients, "dq");
        ExpectClose(blocks.dk, whole.dk, gradients, "dk");
        ExpectClose(blocks.dv, whole.dv, gradients, "dv");
      } while (std::next_permutation(order.begin(), order.end()));
    }
  }
}

// Scores of either sign so large that their exponentials are no float.
TEST(AttentionTest, ExtremeScoresStayFinite) {
  const Ranges ranges = Documents({200});
  for (const double scale : {6.0, 40.0}) {
    Case c(ranges.In(Sizes(1, 200, 200, 2, 1, 16)), DType::kFloat32);
    c.q.Normal(11, scale);
    Case exact = c.Reference();
    exact.Forward();
    const double largest = exact.lse.LargestMagnitude();
    EXPECT_GT(largest, scale > 10 ? 80 : 10);
    Case first = c, last = c;
    RunInBlocks(first, ranges, {0, 100, 200}, {0, 1});
    RunInBlocks(last, ranges, {0, 100, 200}, {1, 0});
    // A score's own rounding is a share of the score.
    ExpectClose(first.out, exact.out, {.float32 = 1e-6 * std::max(1.0, largest / 4)}, "out");
    ExpectClose(first.out, last.out, {.float32 = 1e-6}, "out in the other order");
    ExpectClose(first.lse, exact.lse, {.float32 = 1e-6}, "lse");
    ExpectClose(first.dq, last.dq, {.float32 = 2e-6}, "dq in the other order");
  }
}

TEST(AttentionTest, LogSumExpOfEitherSignIsJoinedExactly) {
  for (const double score : {80.0, -80.0}) {
    Case c(Sizes(1, 1, 2, 1, 1, 2, AttentionMask::kFull), DType::kFloat32);
    c.shape.scale = 1.0;
    for (int64_t d = 0; d < 2; ++d) {
      c.q.Set(0, d, 1.0);
      c.k.Set(0, d, score / 2);
      c.k.Set(1, d, -score / 2);
      c.v.Set(0, d, 3.0);
      c.v.Set(1, d, 5.0);
    }
    const Ranges all{{0}, {2}};
    for (const std::vector<size_t>& order : {std::vector<size_t>{0, 1}, {1, 0}}) {
      RunInBlocks(c, all, {0, 1, 2}, order);
      EXPECT_EQ(c.lse.At(0, 0), 80.0);
      EXPECT_EQ(c.out.At(0, 0), score > 0 ? 3.0 : 5.0);
      EXPECT_TRUE(std::isfinite(c.dq.LargestMagnitude()));
    }
  }
}

TEST(AttentionTest, BlocksThatNobodySeesChangeNothing) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const Ranges none{std::vector<int32_t>(60, 30), std::vector<int32_t>(60, 30)};
    Case c(none.In(Sizes(1, 60, 60, 4, 2, 16)), dtype);
    c.Forward();
    EXPECT_EQ(c.out.LargestMagnitude(), 0.0);
    EXPECT_EQ(c.lse.At(0, 100), -INFINITY);
    for (TestTensor* gradient : {&c.dq, &c.dk, &c.dv}) gradient->Normal(5);
    c.Backward();
    for (TestTensor* gradient : {&c.dq, &c.dk, &c.dv}) {
      EXPECT_EQ(gradient->LargestMagnitude(), 0.0);
    }
    Sums sums(c);
    AttendBlock(ExecFor(c.shape), c.shape, sums, {c.q, c.k, c.v});
    EXPECT_EQ(sums.sum.LargestMagnitude(), 0.0);
    EXPECT_EQ(sums.max.At(0, 0), -INFINITY);
    Case seen(Sizes(1, 60, 60, 4, 2, 16), dtype);
    AttendBlock(ExecFor(seen.shape), seen.shape, sums, {seen.q, seen.k, seen.v});
    const Sums before = sums;
    AttendBlock(ExecFor(c.shape), c.shape, sums, {c.q, c.k, c.v});
    EXPECT_TRUE(sums.acc.SameBytes(before.acc));
    EXPECT_TRUE(sums.max.SameBytes(before.max));
    EXPECT_TRUE(sums.sum.SameBytes(before.sum));
  }
}

TEST(AttentionTest, RangesGiveTheBitsOfTheMaskThatTheySay) {
  for (const DType dtype : FastDTypes()) {
    const Ranges causal = Documents({333}),
                 full{std::vector<int32_t>(333, 0), std::vector<int32_t>(333, 333)};
    for (const auto& [mask, ranges] :
         {std::pair{AttentionMask::kCausal, &causal}, {AttentionMask::kFull, &full}}) {
      Case named(Sizes(1, 333, 333, 4, 2, 24, mask), dtype);
      Case ranged(ranges->In(named.shape), dtype);
      for (Case* c : {&named, &ranged}) {
        c->Forward();
        c->Backward();
      }
      EXPECT_TRUE(ranged.out.SameBytes(named.out));
      EXPECT_TRUE(ranged.lse.SameBytes(named.lse));
      EXPECT_TRUE(ranged.dq.SameBytes(named.dq));
      EXPECT_TRUE(ranged.dk.SameBytes(named.dk));
      EXPECT_TRUE(ranged.dv.SameBytes(named.dv));
    }
  }
}

TEST(AttentionTest, NotANumberIsPassedOn) {
  for (const DType dtype : FastDTypes()) {
    Case c(Sizes(1, 70, 70, 1, 1, 16), dtype);
    c.q.Set(20, 3, NAN);
    c.Forward();
    c.Backward();
    EXPECT_TRUE(std::isnan(c.out.At(20, 0)));
    EXPECT_TRUE(std::isnan(c.lse.At(0, 20)));
    EXPECT_TRUE(std::isnan(c.dq.At(20, 0)));
    EXPECT_TRUE(std::isnan(c.dk.At(0, 0)));
    EXPECT_FALSE(std::isnan(c.out.At(19, 0)));
    EXPECT_FALSE(std::isnan(c.out.At(21, 0)));
  }
}

// A sequence's bits depend neither on its neighbours in the batch nor on the number of threads.
TEST(AttentionTest, SequencesAndThreadsDoNotMix) {
  for (const DType dtype : FastDTypes()) {
    const AttentionShape three = Sizes(3, 70, 70, 4, 2, 16), one = Sizes(1, 70, 70, 4, 2, 16);
    Case batch(three, dtype);
    Case threads(three, dtype);
    batch.Forward();
    batch.Backward();
    threads.Forward(2);
    threads.Backward(2);
    EXPECT_TRUE(batch.out.SameBytes(threads.out));
    EXPECT_TRUE(batch.dq.SameBytes(threads.dq));
    EXPECT_TRUE(batch.dk.SameBytes(threads.dk));
    Case alone(one, dtype);
    for (int64_t row = 0; row < 70; ++row) {
      for (int64_t i = 0; i < 64; ++i) alone.q.Set(row, i, batch.q.At(70 + row, i));
      for (int64_t i = 0; i < 64; ++i) alone.dout.Set(row, i, batch.dout.At(70 + row, i));
      for (int64_t i = 0; i < 32; ++i) alone.k.Set(row, i, batch.k.At(70 + row, i));
      for (int64_t i = 0; i < 32; ++i) alone.v.Set(row, i, batch.v.At(70 + row, i));
    }
    alone.Forward();
    alone.Backward();
    for (int64_t row = 0; row < 70; ++row) {
      for (int64_t i = 0; i < 64; ++i) {
        ASSERT_EQ(alone.out.At(row, i), batch.out.At(70 + row, i));
        ASSERT_EQ(alone.dq.At(row, i), batch.dq.At(70 + row, i));
      }
      for (int64_t i = 0; i < 32; ++i) ASSERT_EQ(alone.dv.At(row, i), batch.dv.At(70 + row, i));
    }
  }
}

TEST(AttentionTest, NamesTheOpThatLacksWorkspace) {
  Case c(Sizes(2, 6, 6, 4, 2, 8), DType::kBFloat16);
  const TestExec none;
  EXPECT_DEATH(AttentionForward(none, c.shape, {c.out, c.lse, c.q, c.k, c.v}),
               "AttentionForward of 2 sequences, 6 queries, 6 keys, 4 query heads, 2 key heads of "
               "8: a workspace of 0 bytes, where it takes [1-9]");
  EXPECT_DEATH(AttentionBackward(none, c.shape, c.BackwardArgs()),
               "AttentionBackward of 2 sequences, 6 queries");
  EXPECT_DEATH(AttendBlock(none, c.shape, Sums(c), {c.q, c.k, c.v}),
               "AttendBlock of 2 sequences, 6 queries");
}

TEST(AttentionTest, RefusesRangesThatFall) {
  const Ranges falling{{0, 1, 0}, {1, 2, 3}}, outside{{0, 0, 0}, {1, 2, 4}}, few{{0, 0}, {1, 2}};
  for (const Ranges* ranges : {&falling, &outside, &few}) {
    Case c(ranges->In(Sizes(1, 3, 3, 1, 1, 4)), DType::kFloat32);
    EXPECT_DEATH(c.Forward(), "ranges");
  }
}

}  // namespace
}  // namespace troupe::kernel_test

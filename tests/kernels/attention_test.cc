#include "kernels/attention.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kForward{.float32 = 2e-6, .bfloat16 = 1e-2};
constexpr Tolerance kBackward{.float32 = 5e-6, .bfloat16 = 2e-2};

TestExec ExecFor(const AttentionShape& shape, int num_threads = 1) {
  return TestExec(AttentionWorkspaceBytes(shape, num_threads), num_threads);
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
  void Backward(bool accumulate = false, int num_threads = 1) {
    AttentionBackward(ExecFor(shape, num_threads), shape,
                      {dq, dk, dv, dout, q, k, v, out, lse, accumulate});
  }
};

std::vector<AttentionShape> Shapes() {
  std::vector<AttentionShape> shapes;
  const auto add = [&](int64_t b, int64_t sq, int64_t sk, int64_t h, int64_t kv, int64_t d,
                       AttentionMask mask, int64_t q0 = 0, int64_t k0 = 0) {
    shapes.push_back({b, sq, sk, h, kv, d, 0.0, mask, q0, k0});
  };
  const auto causal = AttentionMask::kCausal;
  add(1, 1, 1, 1, 1, 2, causal);
  add(2, 7, 7, 4, 2, 6, causal);
  add(1, 65, 65, 2, 1, 16, causal);
  add(2, 64, 64, 2, 2, 32, causal);
  add(1, 130, 130, 4, 1, 64, causal);
  add(1, 9, 33, 2, 1, 8, causal, 24, 0);
  add(1, 48, 80, 2, 2, 20, AttentionMask::kFull);
  add(1, 40, 40, 2, 1, 16, AttentionMask::kStrictCausal);
  add(1, 70, 70, 2, 1, 16, causal, 0, 30);    // the first 30 queries see nothing
  add(1, 70, 70, 2, 1, 16, causal, 100, 30);  // all see all but a corner
  add(1, 257, 257, 1, 1, 24, causal);
  add(1, 40, 600, 2, 1, 16, AttentionMask::kFull);  // several blocks of keys
  add(1, 40, 600, 2, 1, 16, causal, 560, 0);
  return shapes;
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
        for (int64_t i = 0; i < reference.lse.columns(); ++i) {
          if (std::isinf(reference.lse.At(0, i))) {
            EXPECT_EQ(fast.lse.At(0, i), -INFINITY);
          } else {
            EXPECT_NEAR(fast.lse.At(0, i), reference.lse.At(0, i), 1e-5);
          }
        }
      }
    }
  }
}

TEST(AttentionTest, BackwardAgreesWithTheSpecification) {
  for (const AttentionShape& shape : Shapes()) {
    for (const DType dtype : FastDTypes()) {
      Case fast(shape, dtype, 3);
      Case reference = fast.Reference();
      fast.Forward();
      reference.Forward();
      fast.Backward();
      reference.Backward();
      ExpectClose(fast.dq, reference.dq, kBackward, "dq");
      ExpectClose(fast.dk, reference.dk, kBackward, "dk");
      ExpectClose(fast.dv, reference.dv, kBackward, "dv");
    }
  }
}

TEST(AttentionTest, AccumulatesInFloat32) {
  for (const DType dtype : FastDTypes()) {
    Case c({1, 50, 50, 4, 2, 16}, dtype);
    c.Forward();
    c.dq = c.dq.As(DType::kFloat32);
    c.dk = c.dk.As(DType::kFloat32);
    c.dv = c.dv.As(DType::kFloat32);
    c.Backward();
    const TestTensor dq = c.dq, dk = c.dk, dv = c.dv;
    c.Backward(true);
    for (const auto& [twice, once] : {std::pair{&c.dq, &dq}, {&c.dk, &dk}, {&c.dv, &dv}}) {
      TestTensor doubled = once->As(DType::kFloat64);
      for (int64_t row = 0; row < doubled.rows(); ++row) {
        for (int64_t i = 0; i < doubled.columns(); ++i) doubled.Set(row, i, 2 * once->At(row, i));
      }
      ExpectClose(*twice, doubled, kBackward, "twice");
    }
  }
}

TEST(AttentionTest, GradientsMatchCentralDifferences) {
  for (const AttentionMask mask :
       {AttentionMask::kCausal, AttentionMask::kStrictCausal, AttentionMask::kFull}) {
    Case c({2, 4, 4, 4, 2, 2, 0.0, mask}, DType::kFloat64);
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

// Keys in two blocks, merged, give the attention over all keys, in float32 as in float64.
TEST(AttentionTest, MergedBlocksEqualTheWhole) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (const int64_t cut : {1, 17, 48}) {
      Case whole({1, 49, 49, 4, 2, 16}, dtype);
      whole.Forward();
      const auto block = [&](int64_t first, int64_t count, TestTensor& out, TestTensor& lse) {
        AttentionShape shape = whole.shape;
        shape.key_len = count;
        shape.key_offset = first;
        AttentionForward(ExecFor(shape), shape,
                         {out, lse, whole.q, whole.k.view().Rows(first, count),
                          whole.v.view().Rows(first, count)});
      };
      TestTensor out(dtype, {49, 4, 16}), lse(dtype, {1, 4, 49});
      TestTensor block_out(dtype, {49, 4, 16}), block_lse(dtype, {1, 4, 49});
      block(cut, 49 - cut, out, lse);  // the later keys first: some rows start at -inf
      block(0, cut, block_out, block_lse);
      MergeAttention(TestExec(), 1, {out, lse, block_out, block_lse});
      const Tolerance tolerance{.float32 = dtype == DType::kFloat64 ? 1e-14 : 2e-6};
      ExpectClose(out, whole.out, tolerance, "out");
      ExpectClose(lse, whole.lse, tolerance, "lse");
    }
  }
}

TEST(AttentionTest, MergingNothingChangesNothing) {
  TestTensor out(DType::kFloat32, {3, 2, 4}), lse(DType::kFloat32, {1, 2, 3});
  TestTensor block_out = out, block_lse = lse;
  block_out.Normal(5);
  for (int64_t i = 0; i < 6; ++i) {
    lse.Set(0, i, -INFINITY);
    block_lse.Set(0, i, i % 2 == 0 ? -INFINITY : 0.5);
  }
  MergeAttention(TestExec(), 1, {out, lse, block_out, block_lse});
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t s = 0; s < 3; ++s) {
      const bool sees = (h * 3 + s) % 2 == 1;
      EXPECT_EQ(lse.At(0, h * 3 + s), sees ? 0.5 : -INFINITY);
      EXPECT_EQ(out.At(s, h * 4), sees ? block_out.At(s, h * 4) : 0.0);
    }
  }
}

// A sequence's bits depend neither on its neighbours in the batch nor on the number of threads.
TEST(AttentionTest, SequencesAndThreadsDoNotMix) {
  for (const DType dtype : FastDTypes()) {
    Case batch({3, 70, 70, 4, 2, 16}, dtype);
    Case threads({3, 70, 70, 4, 2, 16}, dtype);
    batch.Forward();
    batch.Backward();
    threads.Forward(2);
    threads.Backward(false, 2);
    EXPECT_TRUE(batch.out.SameBytes(threads.out));
    EXPECT_TRUE(batch.dq.SameBytes(threads.dq));
    EXPECT_TRUE(batch.dk.SameBytes(threads.dk));
    Case alone({1, 70, 70, 4, 2, 16}, dtype);
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
  Case c({2, 6, 6, 4, 2, 8}, DType::kBFloat16);
  const TestExec none;
  EXPECT_DEATH(AttentionForward(none, c.shape, {c.out, c.lse, c.q, c.k, c.v}),
               "AttentionForward of 2 sequences, 6 queries, 6 keys, 4 query heads, 2 key heads of "
               "8: a workspace of 0 bytes, where it takes [1-9]");
  EXPECT_DEATH(AttentionBackward(
                   none, c.shape,
                   {c.dq, c.dk, c.dv, c.dout, c.q, c.k, c.v, c.out, c.lse, /*accumulate=*/false}),
               "AttentionBackward of 2 sequences, 6 queries");
}

}  // namespace
}  // namespace troupe::kernel_test

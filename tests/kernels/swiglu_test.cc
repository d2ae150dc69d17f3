#include "kernels/swiglu.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kSwiglu{.float32 = 1e-6, .bfloat16 = 5e-3};

TEST(SwigluTest, AgreesWithTheSpecification) {
  for (const int64_t channels : {1, 3, 16, 31, 100, 344}) {
    for (const DType dtype : FastDTypes()) {
      for (const int64_t padding : {0, 5}) {
        TestTensor gate(dtype, {3, channels}, padding), up(dtype, {3, channels}, padding);
        TestTensor dout(dtype, {3, channels}, padding), out(dtype, {3, channels}, padding);
        gate.Normal(1, 6.0);
        up.Normal(2);
        dout.Normal(3);
        TestTensor dgate = out, dup = out, again = out;
        TestTensor wide_out = out.As(DType::kFloat64);
        TestTensor wide_dgate = wide_out, wide_dup = wide_out;
        const TestTensor wide_gate = gate.As(DType::kFloat64), wide_up = up.As(DType::kFloat64);
        SwigluForward(TestExec(), out, gate, up);
        SwigluForward(TestExec(), wide_out, wide_gate, wide_up);
        ExpectClose(out, wide_out, kSwiglu, "out");
        SwigluBackward(TestExec(), {dgate, dup, dout, gate, up, again});
        SwigluBackward(TestExec(),
                       {wide_dgate, wide_dup, dout.As(DType::kFloat64), wide_gate, wide_up, {}});
        ExpectClose(dgate, wide_dgate, kSwiglu, "dgate");
        ExpectClose(dup, wide_dup, kSwiglu, "dup");
        EXPECT_TRUE(out.SameBytes(again)) << "the recomputed result differs from the forward one";
      }
    }
  }
}

TEST(SwigluTest, GradientsMatchCentralDifferences) {
  TestTensor gate(DType::kFloat64, {2, 5}), up = gate, dout = gate, dgate = gate, dup = gate;
  gate.Normal(1, 2.0);
  up.Normal(2);
  dout.Normal(3);
  const auto loss = [&] {
    TestTensor out(DType::kFloat64, {2, 5});
    SwigluForward(TestExec(), out, gate, up);
    return Inner(out, dout);
  };
  SwigluBackward(TestExec(), {dgate, dup, dout, gate, up, {}});
  ExpectGradient(gate, dgate, loss, "dgate");
  ExpectGradient(up, dup, loss, "dup");
}

TEST(SwigluTest, LargeGatesSaturate) {
  for (const DType dtype : FastDTypes()) {
    TestTensor gate(dtype, {1, 6}), up = gate, out = gate;
    const double gates[] = {-INFINITY, -1000, -90, 90, 1000, 0};
    for (int64_t i = 0; i < 6; ++i) {
      gate.Set(0, i, gates[i]);
      up.Set(0, i, 1.0);
    }
    gate.Set(0, 0, -1e30);
    SwigluForward(TestExec(), out, gate, up);
    EXPECT_EQ(std::abs(out.At(0, 0)), 0.0);
    EXPECT_EQ(std::abs(out.At(0, 1)), 0.0);
    EXPECT_NEAR(out.At(0, 2), 0.0, 1e-30);
    EXPECT_EQ(out.At(0, 3), 90.0);
    EXPECT_EQ(out.At(0, 4), gate.At(0, 4));
    EXPECT_EQ(out.At(0, 5), 0.0);
  }
}

// In place, and in column blocks of any width, the bits are the same.
TEST(SwigluTest, BitsDoNotDependOnThePlace) {
  for (const DType dtype : FastDTypes()) {
    TestTensor gate(dtype, {2, 77}), up = gate, dout = gate, out = gate;
    gate.Normal(1, 4.0);
    up.Normal(2);
    dout.Normal(3);
    SwigluForward(TestExec(), out, gate, up);
    TestTensor dgate = gate, dup = up;
    SwigluBackward(TestExec(), {dgate, dup, dout, gate, up, {}});
    TestTensor in_place = gate, parts = out;
    SwigluForward(TestExec(), in_place, in_place, up);
    EXPECT_TRUE(in_place.SameBytes(out));
    for (int64_t first = 0; first < 77; first += 11) {
      SwigluForward(TestExec(), parts.view().Columns(first, 11), gate.view().Columns(first, 11),
                    up.view().Columns(first, 11));
    }
    EXPECT_TRUE(parts.SameBytes(out));
    TestTensor dgate_in_place = gate, dup_in_place = up;
    SwigluBackward(TestExec(),
                   {dgate_in_place, dup_in_place, dout, dgate_in_place, dup_in_place, {}});
    EXPECT_TRUE(dgate.SameBytes(dgate_in_place));
    EXPECT_TRUE(dup.SameBytes(dup_in_place));
  }
}

}  // namespace
}  // namespace troupe::kernel_test

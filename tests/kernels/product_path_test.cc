// What the kernels decide by the capabilities of a CPU: for all of them, whatever this machine is.
// Nothing here is run.
#include "kernels/cpu/product_path.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "kernels/attention.h"
#include "kernels/cpu/attention_layout.h"
#include "kernels/cpu/onednn_product.h"
#include "kernels/cpu/vector_bodies.h"

namespace troupe {
namespace {

std::string NameOf(const CpuCapabilities& cpu) {
  return std::to_string(cpu.vector_lanes) + "Lanes" + (cpu.blocked_products ? "Blocks" : "Rows") +
         (cpu.bfloat16_products ? "BFloat16" : "Widens");
}

std::vector<CpuCapabilities> AllCapabilities() {
  std::vector<CpuCapabilities> all;
  for (const int lanes : {0, 8, 16}) {
    for (const bool blocked : {false, true}) {
      for (const bool bfloat16 : {false, true}) all.push_back({lanes, blocked, bfloat16});
    }
  }
  return all;
}

constexpr ProductOp kOps[] = {ProductOp::kForward, ProductOp::kInputGrad, ProductOp::kWeightGrad};
constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16};
const std::vector<MatmulShape> kLayers = {{1, 1, 1},        {3, 5, 7},        {512, 384, 640},
                                          {512, 384, 2048}, {512, 1024, 384}, {128, 384, 4096},
                                          {256, 96, 160},   {70, 200, 1001},  {16, 128, 128}};

// Every operand `padding` elements wider than dense.
ProductOperands OperandsOf(ProductOp op, const MatmulShape& s, DType result, int64_t padding) {
  const auto matrix = [&](DType dtype, int64_t rows, int64_t columns) {
    return ConstTensorView(nullptr, dtype, {rows, columns}, columns + padding);
  };
  const auto x = matrix(s.dtype, s.tokens, s.in), w = matrix(s.dtype, s.out, s.in);
  const auto dy = matrix(s.dtype, s.tokens, s.out);
  switch (op) {
    case ProductOp::kForward:
      return {matrix(result, s.tokens, s.out), x, w};
    case ProductOp::kInputGrad:
      return {matrix(result, s.tokens, s.in), dy, w};
    case ProductOp::kWeightGrad:
      return {matrix(DType::kFloat32, s.out, s.in), dy, x};
  }
  return {};
}

class EveryCpu : public ::testing::TestWithParam<CpuCapabilities> {
 protected:
  const CpuCapabilities& cpu() const { return GetParam(); }

  // Calls body(op, layer, operands, path) for everything that a call may be.
  template <typename Body>
  void ForEveryCall(DType dtype, Body&& body) const {
    for (const ProductOp op : kOps) {
      for (MatmulShape layer : kLayers) {
        layer.dtype = dtype;
        for (const int64_t padding : {0, 3, 16, 128}) {
          for (const DType result : {dtype, DType::kFloat32}) {
            for (const bool packed : {false, true}) {
              if (packed && op == ProductOp::kWeightGrad) continue;
              const ProductOperands operands = OperandsOf(op, layer, result, padding);
              SCOPED_TRACE(std::string(ProductOpName(op)) + " " + std::to_string(layer.tokens) +
                           "x" + std::to_string(layer.in) + "x" + std::to_string(layer.out) + " " +
                           DTypeName(dtype) + " padded by " + std::to_string(padding));
              body(op, layer, operands, PathOf(cpu(), op, operands, packed));
            }
          }
        }
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Capabilities, EveryCpu, ::testing::ValuesIn(AllCapabilities()),
                         [](const auto& info) { return NameOf(info.param); });

TEST_P(EveryCpu, PromisesWhatItsProductsTake) {
  for (const DType dtype : kDTypes) {
    ForEveryCall(dtype, [&](ProductOp op, const MatmulShape& layer, const ProductOperands& operands,
                            const ProductPath& path) {
      const MatmulShape said = LayerOf(op, operands);
      EXPECT_EQ(std::tie(said.tokens, said.in, said.out, said.dtype),
                std::tie(layer.tokens, layer.in, layer.out, layer.dtype));
      for (const int threads : {1, 3}) {
        EXPECT_LE(path.num_bytes() + threads * ProductScratchBytes(cpu()),
                  MatmulWorkspaceBytes(layer, threads, cpu()));
      }
    });
  }
}

// What went wrong once: weight gradients widened what the CPU multiplies as it is.
TEST_P(EveryCpu, WidensBFloat16WhereItMustAndNowhereElse) {
  ForEveryCall(DType::kBFloat16, [&](ProductOp op, const MatmulShape&,
                                     const ProductOperands& operands, const ProductPath& path) {
    const bool widens = !cpu().bfloat16_products;
    EXPECT_EQ(path.inputs, widens ? DType::kFloat32 : DType::kBFloat16);
    EXPECT_EQ(path.a_copy > 0, widens);
    EXPECT_EQ(path.c_copy > 0, widens && operands.c.dtype() == DType::kBFloat16);
    if (op == ProductOp::kWeightGrad) {
      EXPECT_EQ(path.b_copy > 0, widens);
    }
    if (!widens) {
      EXPECT_EQ(path.num_bytes(), 0);
    }
  });
}

TEST_P(EveryCpu, CopiesFloat32OnlyForRowsThatLieBadly) {
  ForEveryCall(DType::kFloat32, [&](ProductOp op, const MatmulShape&,
                                    const ProductOperands& operands, const ProductPath& path) {
    const auto copied = [&](const ConstTensorView& view) {
      return op == ProductOp::kWeightGrad && !cpu().blocked_products &&
             (view.row_stride() + 15) / 16 % 8 == 0;
    };
    EXPECT_EQ(path.inputs, DType::kFloat32);
    EXPECT_EQ(path.a_copy > 0, copied(operands.a));
    EXPECT_EQ(path.b_copy > 0, copied(operands.b));
    EXPECT_EQ(path.c_copy, 0);
  });
}

TEST_P(EveryCpu, CopiesHoldTheirRows) {
  for (const DType dtype : kDTypes) {
    ForEveryCall(dtype, [&](ProductOp, const MatmulShape&, const ProductOperands& operands,
                            const ProductPath& path) {
      const auto least = [&](const ConstTensorView& view) {
        return 4 * view.rows() * SpreadStride(cpu(), view.row_elements());
      };
      if (path.a_copy > 0) {
        EXPECT_GE(path.a_copy, least(operands.a));
      }
      if (path.b_copy > 0) {
        EXPECT_GE(path.b_copy, least(operands.b));
      }
      if (path.c_copy > 0) {
        EXPECT_GE(path.c_copy, 4 * operands.c.num_elements());
      }
    });
  }
}

TEST_P(EveryCpu, PromisesWhatAttentionTakes) {
  const VectorBodies* bodies = VectorBodiesFor(cpu());
  EXPECT_EQ(bodies, cpu().vector_lanes == 16  ? &kAvx512Bodies
                    : cpu().vector_lanes == 8 ? &kAvx2Bodies
                                              : nullptr);
  const AttentionShape shape{.num_sequences = 2,
                             .query_len = 70,
                             .key_len = 70,
                             .num_heads = 6,
                             .num_kv_heads = 3,
                             .head_dim = 24};
  for (const int threads : {1, 4, 100}) {
    const int64_t bytes = AttentionWorkspaceBytes(shape, threads, cpu());
    EXPECT_GE(bytes, 8 * 70) << "the plain loops may be asked for";
    if (bodies == nullptr) continue;
    const int64_t floats =
        AttentionScratchFrom<int64_t>(0, shape.key_len, shape.head_dim, /*group=*/2).end;
    EXPECT_GE(bytes, 4 * std::min(threads, 6) * floats);
  }
}

// One layer at every level that oneDNN has: 512 tokens, 384 channels in, 1,024 out; rows of 400
// and 1,040 where they are spread.
TEST(ProductPathTest, OneLayerByHand) {
  constexpr CpuCapabilities kAvx2{8, false, false}, kAvx512{16, true, false},
      kBFloat16{16, true, true};
  constexpr int64_t kScratch = 2 << 20;
  MatmulShape s{512, 384, 1024, DType::kFloat32};
  EXPECT_EQ(MatmulWorkspaceBytes(s, 1, kAvx2), 4 * 512 * (400 + 1040));
  EXPECT_EQ(MatmulWorkspaceBytes(s, 2, kAvx512), 2 * kScratch);
  EXPECT_EQ(MatmulWorkspaceBytes(s, 1, kBFloat16), kScratch);
  EXPECT_EQ(PackedWeightBytes(s, WeightUse::kForward, kAvx2), 4 * 384 * 1040);
  EXPECT_EQ(PackedWeightBytes(s, WeightUse::kInputGrad, kAvx2), 4 * 1024 * 400);
  EXPECT_EQ(PackedWeightBytes(s, WeightUse::kForward, kAvx512), 4 * 384 * 1024);
  s.dtype = DType::kBFloat16;
  EXPECT_EQ(MatmulWorkspaceBytes(s, 1, kAvx2), 4 * (512 * 400 + 1024 * 400 + 512 * 1024));
  EXPECT_EQ(MatmulWorkspaceBytes(s, 1, kAvx512),
            kScratch + 4 * (512 * 384 + 1024 * 384 + 512 * 1024));
  EXPECT_EQ(MatmulWorkspaceBytes(s, 3, kBFloat16), 3 * kScratch);
  EXPECT_EQ(PackedWeightBytes(s, WeightUse::kForward, kAvx2), 4 * 384 * 1040);
  EXPECT_EQ(PackedWeightBytes(s, WeightUse::kInputGrad, kAvx512), 4 * 384 * 1024);
  EXPECT_EQ(PackedWeightBytes(s, WeightUse::kInputGrad, kBFloat16), 2 * 384 * 1024);
  // Blocks of 64 columns, depth in 32 bfloat16 or 16 float32.
  EXPECT_EQ(PackedWeightBytes({8, 40, 100, DType::kBFloat16}, WeightUse::kForward, kBFloat16),
            2 * 64 * 128);
  EXPECT_EQ(PackedWeightBytes({8, 40, 100, DType::kFloat32}, WeightUse::kInputGrad, kAvx512),
            4 * 112 * 64);
}

// Rows that lie well need no second layout; widened they are a copy all the same.
TEST(ProductPathTest, PacksWhatPays) {
  constexpr CpuCapabilities kAvx2{8, false, false};
  const MatmulShape s{64, 96, 160, DType::kFloat32};
  EXPECT_EQ(PackedWeightBytes(s, WeightUse::kInputGrad, kAvx2), 0);
  EXPECT_EQ(PackedWeightBytes({64, 96, 160, DType::kBFloat16}, WeightUse::kInputGrad, kAvx2),
            4 * 96 * 160);
  EXPECT_EQ(PackedWeightBytes({64, 96, 160, DType::kFloat64}, WeightUse::kForward, kAvx2), 0);
  EXPECT_EQ(MatmulWorkspaceBytes({0, 96, 160, DType::kFloat32}, 1, kAvx2), 0);
}

// As MatmulForward, MatmulInputGrad and MatmulWeightGrad multiply on this CPU, where they copy
// nothing.
ProductShape ShapeOf(ProductOp op, const MatmulShape& layer, DType result, int64_t padding) {
  const ProductOperands o = OperandsOf(op, layer, result, padding);
  const bool a_transposed = op == ProductOp::kWeightGrad, b_transposed = op == ProductOp::kForward;
  return {.m = o.c.rows(),
          .n = o.c.row_elements(),
          .k = a_transposed ? o.a.rows() : o.a.row_elements(),
          .a_row = a_transposed ? 1 : o.a.row_stride(),
          .a_column = a_transposed ? o.a.row_stride() : 1,
          .b_row = b_transposed ? 1 : o.b.row_stride(),
          .b_column = b_transposed ? o.b.row_stride() : 1,
          .c_row = o.c.row_stride(),
          .inputs = layer.dtype,
          .result = o.c.dtype()};
}

// What oneDNN must keep of our promises, on the CPU that runs this: its own layouts,
TEST(ProductPathTest, OneDnnPacksIntoWhatIsPromised) {
  for (MatmulShape layer : kLayers) {
    for (const DType dtype : kDTypes) {
      layer.dtype = dtype;
      if (layer.tokens < 64) continue;  // few rows have layouts of their own, or none
      MatmulShape multiplied = layer;
      multiplied.dtype = MultipliedAs(ThisCpu(), dtype);
      for (const WeightUse use : {WeightUse::kForward, WeightUse::kInputGrad}) {
        const auto op = use == WeightUse::kForward ? ProductOp::kForward : ProductOp::kInputGrad;
        EXPECT_EQ(OperandLayoutBytes(ShapeOf(op, multiplied, multiplied.dtype, 0)),
                  PackedOperandBytes(ThisCpu(), layer, use))
            << layer.tokens << "x" << layer.in << "x" << layer.out << " " << DTypeName(dtype);
      }
    }
  }
}

// and the scratch that it asks for.
TEST(ProductPathTest, OneDnnAsksForNoMoreScratchThanPromised) {
  int num_products = 0;
  const auto check = [&](ProductOp op, ProductShape p) {
    for (const bool accumulate : {false, true}) {
      for (const int threads : {1, 2, 4, 8}) {
        p.accumulate = accumulate;
        p.num_threads = threads;
        if (!HasProduct(p)) continue;
        ++num_products;
        // The one exception known: ScratchFor's memory serves.
        const bool may_exceed =
            ThisCpu().blocked_products && op == ProductOp::kWeightGrad && threads >= 4;
        if (may_exceed) continue;
        EXPECT_LE(ScratchBytesOf(p), threads * ProductScratchBytes(ThisCpu()))
            << ProductOpName(op) << " " << p.m << "x" << p.k << "x" << p.n << " "
            << DTypeName(p.inputs) << " threads " << threads << " accumulate " << accumulate
            << " packed " << p.b_is_packed << " strides " << p.a_row << " " << p.b_row;
      }
    }
  };
  for (MatmulShape layer : kLayers) {
    for (const DType dtype : kDTypes) {
      layer.dtype = MultipliedAs(ThisCpu(), dtype);
      for (const ProductOp op : kOps) {
        for (const DType result : {layer.dtype, DType::kFloat32}) {
          ProductShape p = ShapeOf(op, layer, result, 0);
          check(op, p);
          p.b_is_packed = true;
          if (op != ProductOp::kWeightGrad) check(op, p);
        }
      }
    }
  }
  EXPECT_GT(num_products, 500);
}

}  // namespace
}  // namespace troupe

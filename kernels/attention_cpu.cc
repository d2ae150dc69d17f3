#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention.h"
#include "kernels/cpu/attention_layout.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"
#include "kernels/cpu/workspace.h"

namespace troupe {
namespace {

// One head of one sequence of a (B*S, heads, D) view: element (s, d).
template <typename Real, typename View>
struct HeadRows {
  View view;
  int64_t first_row;
  int64_t first_column;

  Real operator()(int64_t s, int64_t d) const {
    return Read<Real>(view, first_row + s, first_column + d);
  }
  void Set(int64_t s, int64_t d, Real value) const {
    Write<Real>(view, first_row + s, first_column + d, value);
  }
};
template <typename Real>
using HeadIn = HeadRows<Real, ConstTensorView>;
template <typename Real>
using HeadOut = HeadRows<Real, TensorView>;

template <typename Real>
Real ScaleOf(const AttentionShape& shape) {
  return static_cast<Real>(
      shape.scale != 0.0 ? shape.scale : 1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
}

// Causal: were there keys without end, query i would see those below this; may be negative.
int64_t NumKeysUpTo(const AttentionShape& shape, int64_t i) {
  return shape.query_offset + i - shape.key_offset + (shape.mask == AttentionMask::kCausal ? 1 : 0);
}

// Keys [0, n) are visible to query i.
int64_t NumVisibleKeys(const AttentionShape& shape, int64_t i) {
  if (shape.mask == AttentionMask::kFull) return shape.key_len;
  return std::clamp<int64_t>(NumKeysUpTo(shape, i), 0, shape.key_len);
}

template <typename Real>
Real Dot(const HeadIn<Real>& a, int64_t i, const HeadIn<Real>& b, int64_t j, int64_t head_dim) {
  Real sum = 0;
  for (int64_t d = 0; d < head_dim; ++d) sum += a(i, d) * b(j, d);
  return sum;
}

// Calls body(sequence, query head, key head).
template <typename Body>
void ForEachHead(const AttentionShape& shape, Body&& body) {
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  for (int64_t b = 0; b < shape.num_sequences; ++b) {
    for (int64_t h = 0; h < shape.num_heads; ++h) body(b, h, h / group);
  }
}

// Elements that the plain loops take, by ForwardSpecification and BackwardSpecification.
int64_t ForwardElements(const AttentionShape& shape) { return shape.key_len; }
int64_t BackwardElements(const AttentionShape& shape) {
  return (2 * shape.key_len + 1) * shape.head_dim;
}

// Key heads that are worked on side by side, each in its own part of the workspace.
int64_t NumPieces(const AttentionShape& shape, int num_threads) {
  return std::min<int64_t>(std::max(num_threads, 1), shape.num_sequences * shape.num_kv_heads);
}

int64_t FloatsOfPiece(const AttentionShape& shape, const CpuCapabilities& cpu) {
  return AttentionScratchFrom<int64_t>(0, cpu.vector_lanes, shape.key_len, shape.head_dim).end;
}

std::string Described(const char* op, const AttentionShape& s) {
  return std::string(op) + " of " + std::to_string(s.num_sequences) + " sequences, " +
         std::to_string(s.query_len) + " queries, " + std::to_string(s.key_len) + " keys, " +
         std::to_string(s.num_heads) + " query heads, " + std::to_string(s.num_kv_heads) +
         " key heads of " + std::to_string(s.head_dim);
}

// `count` elements of the workspace of `op`.
template <typename Real>
Real* Scratch(const Exec& exec, const char* op, const AttentionShape& shape, int64_t count) {
  CheckWorkspace(exec.workspace, count * static_cast<int64_t>(sizeof(Real)),
                 [&] { return Described(op, shape); });
  return reinterpret_cast<Real*>(exec.workspace.data());
}

constexpr const char* kForward = "AttentionForward";
constexpr const char* kBackward = "AttentionBackward";

template <typename Real>
void ForwardSpecification(const Exec& exec, const AttentionShape& shape,
                          const AttentionForwardArgs& args) {
  const Real scale = ScaleOf<Real>(shape);
  Real* weights = Scratch<Real>(exec, kForward, shape, ForwardElements(shape));
  ForEachHead(shape, [&](int64_t b, int64_t h, int64_t kv) {
    const int64_t head_dim = shape.head_dim;
    const HeadIn<Real> q{args.q, b * shape.query_len, h * head_dim};
    const HeadIn<Real> k{args.k, b * shape.key_len, kv * head_dim};
    const HeadIn<Real> v{args.v, b * shape.key_len, kv * head_dim};
    const HeadOut<Real> out{args.out, b * shape.query_len, h * head_dim};
    for (int64_t i = 0; i < shape.query_len; ++i) {
      const int64_t num_keys = NumVisibleKeys(shape, i);
      Real max = -std::numeric_limits<Real>::infinity();
      for (int64_t j = 0; j < num_keys; ++j) {
        weights[j] = scale * Dot(q, i, k, j, head_dim);
        max = std::max(max, weights[j]);
      }
      Real total = 0;
      for (int64_t j = 0; j < num_keys; ++j) {
        weights[j] = std::exp(weights[j] - max);
        total += weights[j];
      }
      for (int64_t d = 0; d < head_dim; ++d) {
        Real sum = 0;
        for (int64_t j = 0; j < num_keys; ++j) sum += weights[j] * v(j, d);
        out.Set(i, d, num_keys > 0 ? sum / total : Real{0});
      }
      Write<Real>(args.lse, 0, (b * shape.num_heads + h) * shape.query_len + i,
                  num_keys > 0 ? max + std::log(total) : max);
    }
  });
}

// dq, dk and dv of one key head, summed over its query heads in scratch before one rounding.
template <typename Real>
void BackwardSpecification(const Exec& exec, const AttentionShape& shape,
                           const AttentionBackwardArgs& args) {
  const Real scale = ScaleOf<Real>(shape);
  const int64_t head_dim = shape.head_dim;
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  Real* dq_row = Scratch<Real>(exec, kBackward, shape, BackwardElements(shape));
  Real* dk_sum = dq_row + head_dim;
  Real* dv_sum = dk_sum + shape.key_len * head_dim;
  const auto store = [&](const HeadOut<Real>& out, int64_t s, const Real* row) {
    for (int64_t d = 0; d < head_dim; ++d) {
      const Real before =
          args.accumulate ? Read<Real>(out.view, out.first_row + s, out.first_column + d) : Real{0};
      out.Set(s, d, before + row[d]);
    }
  };
  ForEachHead(shape, [&](int64_t b, int64_t h, int64_t kv) {
    const HeadIn<Real> q{args.q, b * shape.query_len, h * head_dim};
    const HeadIn<Real> k{args.k, b * shape.key_len, kv * head_dim};
    const HeadIn<Real> v{args.v, b * shape.key_len, kv * head_dim};
    const HeadIn<Real> out{args.out, b * shape.query_len, h * head_dim};
    const HeadIn<Real> dout{args.dout, b * shape.query_len, h * head_dim};
    const HeadOut<Real> dq{args.dq, b * shape.query_len, h * head_dim};
    if (h % group == 0) std::fill_n(dk_sum, 2 * shape.key_len * head_dim, Real{0});
    for (int64_t i = 0; i < shape.query_len; ++i) {
      const Real lse = Read<Real>(args.lse, 0, (b * shape.num_heads + h) * shape.query_len + i);
      const Real delta = Dot(dout, i, out, i, head_dim);
      std::fill_n(dq_row, head_dim, Real{0});
      for (int64_t j = 0; j < NumVisibleKeys(shape, i); ++j) {
        const Real p = std::exp(scale * Dot(q, i, k, j, head_dim) - lse);
        const Real ds = scale * p * (Dot(dout, i, v, j, head_dim) - delta);
        for (int64_t d = 0; d < head_dim; ++d) {
          dq_row[d] += ds * k(j, d);
          dk_sum[j * head_dim + d] += ds * q(i, d);
          dv_sum[j * head_dim + d] += p * dout(i, d);
        }
      }
      store(dq, i, dq_row);
    }
    if (h % group != group - 1) return;
    const HeadOut<Real> dk{args.dk, b * shape.key_len, kv * head_dim};
    const HeadOut<Real> dv{args.dv, b * shape.key_len, kv * head_dim};
    for (int64_t j = 0; j < shape.key_len; ++j) {
      store(dk, j, dk_sum + j * head_dim);
      store(dv, j, dv_sum + j * head_dim);
    }
  });
}

template <typename Real>
void MergeSpecification(int64_t num_sequences, const MergeAttentionArgs& args) {
  const int64_t num_heads = args.out.dim(1);
  const int64_t head_dim = args.out.dim(2);
  const int64_t query_len = args.out.rows() / num_sequences;
  for (int64_t b = 0; b < num_sequences; ++b) {
    for (int64_t h = 0; h < num_heads; ++h) {
      for (int64_t i = 0; i < query_len; ++i) {
        const int64_t index = (b * num_heads + h) * query_len + i;
        const Real block_lse = Read<Real>(args.block_lse, 0, index);
        if (std::isinf(block_lse)) continue;
        const Real lse = Read<Real>(args.lse, 0, index);
        const Real high = std::max(lse, block_lse);
        const Real merged = high + std::log1p(std::exp(std::min(lse, block_lse) - high));
        const Real keep = std::exp(lse - merged);
        const Real take = std::exp(block_lse - merged);
        for (int64_t d = 0; d < head_dim; ++d) {
          const int64_t row = b * query_len + i;
          const int64_t element = h * head_dim + d;
          Write<Real>(args.out, row, element,
                      Read<Real>(args.out, row, element) * keep +
                          Read<Real>(args.block_out, row, element) * take);
        }
        Write<Real>(args.lse, 0, index, merged);
      }
    }
  }
}

// Calls body(memory, sequence, key head) for every key head, split over the exec's threads, each
// with its own part of the workspace.
template <typename Body>
void ForEachKeyHead(const Exec& exec, const char* op, const AttentionShape& shape, Body&& body) {
  const int64_t heads = shape.num_sequences * shape.num_kv_heads;
  const int64_t num_pieces = NumPieces(shape, exec.num_threads);
  const int64_t floats_each = FloatsOfPiece(shape, ThisCpu());
  float* memory = Scratch<float>(exec, op, shape, num_pieces * floats_each);
  ForEachPiece(num_pieces, [&](int64_t piece) {
    for (int64_t i = heads * piece / num_pieces; i < heads * (piece + 1) / num_pieces; ++i) {
      body(memory + piece * floats_each, i / shape.num_kv_heads, i % shape.num_kv_heads);
    }
  });
}

// One sequence's rows of a view, from the first column of `head`.
Rows HeadRowsOf(const ConstTensorView& view, int64_t sequence, int64_t len, int64_t head) {
  const int64_t first = head * view.dim(2);
  return RowsOf(view.Rows(sequence * len, len).Columns(first, view.row_elements() - first));
}

// What forward and backward share.
AttentionHeads HeadsOf(const AttentionShape& shape, const AttentionForwardArgs& args, float* memory,
                       int64_t b, int64_t kv) {
  AttentionHeads h{};
  h.query_len = shape.query_len;
  h.key_len = shape.key_len;
  h.head_dim = shape.head_dim;
  h.group = shape.num_heads / shape.num_kv_heads;
  h.scale = ScaleOf<float>(shape);
  h.visible = shape.mask == AttentionMask::kFull ? shape.key_len : NumKeysUpTo(shape, 0);
  h.q = HeadRowsOf(args.q, b, shape.query_len, kv * h.group);
  h.k = HeadRowsOf(args.k, b, shape.key_len, kv);
  h.v = HeadRowsOf(args.v, b, shape.key_len, kv);
  h.out = HeadRowsOf(args.out, b, shape.query_len, kv * h.group);
  h.lse = args.lse.as<float>() + (b * shape.num_heads + kv * h.group) * shape.query_len;
  h.workspace = memory;
  return h;
}

void ForwardFast(const Exec& exec, const VectorBodies& bodies, const AttentionShape& shape,
                 const AttentionForwardArgs& args) {
  ForEachKeyHead(exec, kForward, shape, [&](float* memory, int64_t b, int64_t kv) {
    bodies.attention(HeadsOf(shape, args, memory, b, kv));
  });
}

void BackwardFast(const Exec& exec, const VectorBodies& bodies, const AttentionShape& shape,
                  const AttentionBackwardArgs& args) {
  const auto readable = [](const ConstTensorView& view) {
    return TensorView(const_cast<void*>(view.data()), view.dtype(),
                      {view.rows(), view.dim(1), view.dim(2)}, view.row_stride());
  };
  const AttentionForwardArgs forward{readable(args.out), readable(args.lse), args.q, args.k,
                                     args.v};
  ForEachKeyHead(exec, kBackward, shape, [&](float* memory, int64_t b, int64_t kv) {
    AttentionHeads h = HeadsOf(shape, forward, memory, b, kv);
    h.dout = HeadRowsOf(args.dout, b, shape.query_len, kv * h.group);
    h.dq = HeadRowsOf(args.dq, b, shape.query_len, kv * h.group);
    h.dk = HeadRowsOf(args.dk, b, shape.key_len, kv);
    h.dv = HeadRowsOf(args.dv, b, shape.key_len, kv);
    h.accumulate = args.accumulate;
    bodies.attention_grad(h);
  });
}

void CheckHeads(const AttentionShape& shape, const ConstTensorView& view, int64_t len,
                int64_t num_heads) {
  KERNEL_CHECK(view.rank() == 3 && view.rows() == shape.num_sequences * len &&
                   view.dim(1) == num_heads && view.dim(2) == shape.head_dim,
               "queries are (B*Sq, H, D), keys and values (B*Sk, K, D)");
}

void CheckShape(const AttentionShape& shape, const ConstTensorView& lse) {
  KERNEL_CHECK(shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0,
               "query heads are a multiple of key heads");
  KERNEL_CHECK(lse.num_elements() == shape.num_sequences * shape.num_heads * shape.query_len,
               "lse is (B, H, Sq)");
  KERNEL_CHECK(lse.dtype() != DType::kBFloat16, "lse is float32 (float64)");
}

}  // namespace

int64_t AttentionWorkspaceBytes(const AttentionShape& shape, int num_threads,
                                const CpuCapabilities& cpu) {
  const int64_t plain =
      std::max(ForwardElements(shape), BackwardElements(shape)) * DTypeBytes(DType::kFloat64);
  if (VectorBodiesFor(cpu) == nullptr) return plain;
  const int64_t floats = NumPieces(shape, num_threads) * FloatsOfPiece(shape, cpu);
  return std::max(plain, floats * DTypeBytes(DType::kFloat32));
}

void AttentionForward(const Exec& exec, const AttentionShape& shape,
                      const AttentionForwardArgs& args) {
  CheckOnCpu(exec);
  CheckShape(shape, args.lse);
  CheckHeads(shape, args.q, shape.query_len, shape.num_heads);
  CheckHeads(shape, args.out, shape.query_len, shape.num_heads);
  CheckHeads(shape, args.k, shape.key_len, shape.num_kv_heads);
  CheckHeads(shape, args.v, shape.key_len, shape.num_kv_heads);
  if (const VectorBodies* fast = FastBodies(exec, args.q.dtype(), args.k.dtype(), args.v.dtype(),
                                            args.out.dtype(), args.lse.dtype())) {
    return ForwardFast(exec, *fast, shape, args);
  }
  WithReal(args.q.dtype(),
           [&](auto real) { ForwardSpecification<decltype(real)>(exec, shape, args); });
}

void AttentionBackward(const Exec& exec, const AttentionShape& shape,
                       const AttentionBackwardArgs& args) {
  CheckOnCpu(exec);
  CheckShape(shape, args.lse);
  for (const ConstTensorView& view : {ConstTensorView(args.dq), args.dout, args.q, args.out}) {
    CheckHeads(shape, view, shape.query_len, shape.num_heads);
  }
  for (const ConstTensorView& view :
       {ConstTensorView(args.dk), ConstTensorView(args.dv), args.k, args.v}) {
    CheckHeads(shape, view, shape.key_len, shape.num_kv_heads);
  }
  KERNEL_CHECK(!args.accumulate || args.dq.dtype() != DType::kBFloat16,
               "accumulated gradients are float32 (float64)");
  if (const VectorBodies* fast = FastBodies(exec, args.q.dtype(), args.k.dtype(), args.v.dtype(),
                                            args.out.dtype(), args.lse.dtype(), args.dout.dtype(),
                                            args.dq.dtype(), args.dk.dtype(), args.dv.dtype())) {
    return BackwardFast(exec, *fast, shape, args);
  }
  WithReal(args.q.dtype(),
           [&](auto real) { BackwardSpecification<decltype(real)>(exec, shape, args); });
}

void MergeAttention(const Exec& exec, int64_t num_sequences, const MergeAttentionArgs& args) {
  CheckOnCpu(exec);
  KERNEL_CHECK(args.out.rank() == 3 && SameShape(args.out, args.block_out),
               "both results are (B*Sq, H, D)");
  KERNEL_CHECK(args.lse.num_elements() == args.out.rows() * args.out.dim(1) &&
                   args.block_lse.num_elements() == args.lse.num_elements(),
               "lse is (B, H, Sq)");
  KERNEL_CHECK(num_sequences > 0 && args.out.rows() % num_sequences == 0,
               "sequences of one length");
  WithReal(args.out.dtype(),
           [&](auto real) { MergeSpecification<decltype(real)>(num_sequences, args); });
}

}  // namespace troupe

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention.h"
#include "kernels/cpu/attention_work.h"
#include "kernels/cpu/fast_bodies.h"
#include "kernels/cpu/specification.h"

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

struct KeyRange {
  int64_t first, end;
};

KeyRange VisibleKeys(const AttentionShape& shape, int64_t b, int64_t i) {
  switch (shape.mask) {
    case AttentionMask::kCausal:
      return {0, i + 1};
    case AttentionMask::kFull:
      return {0, shape.key_len};
    case AttentionMask::kRanges:
      break;
  }
  const auto index = static_cast<size_t>(i + FirstRangeOf(shape, b));
  return {shape.first_key[index], shape.end_key[index]};
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

// Elements that the plain loops take.
int64_t ForwardElements(const AttentionShape& shape) { return shape.key_len; }
int64_t BackwardElements(const AttentionShape& shape) { return 2 * shape.head_dim; }

// The keys that query i sees: sum over them of exp(score - max) v, by element.
template <typename Real>
struct RowSums {
  KeyRange keys;
  Real max = -std::numeric_limits<Real>::infinity();
  Real total = 0;
  const Real* weights;
  HeadIn<Real> v;

  RowSums(const AttentionShape& shape, ConstTensorView q_view, ConstTensorView k_view,
          ConstTensorView v_view, int64_t b, int64_t h, int64_t kv, int64_t i, Real* scratch)
      : keys(VisibleKeys(shape, b, i)),
        weights(scratch),
        v{v_view, b * shape.key_len, kv * shape.head_dim} {
    const HeadIn<Real> q{q_view, b * shape.query_len, h * shape.head_dim};
    const HeadIn<Real> k{k_view, b * shape.key_len, kv * shape.head_dim};
    const Real scale = AttentionScale<Real>(shape);
    for (int64_t j = keys.first; j < keys.end; ++j) {
      scratch[j] = scale * Dot(q, i, k, j, shape.head_dim);
      max = std::max(max, scratch[j]);
    }
    for (int64_t j = keys.first; j < keys.end; ++j) {
      scratch[j] = std::exp(scratch[j] - max);
      total += scratch[j];
    }
  }
  bool empty() const { return keys.first >= keys.end; }
  Real operator[](int64_t d) const {
    Real sum = 0;
    for (int64_t j = keys.first; j < keys.end; ++j) sum += weights[j] * v(j, d);
    return sum;
  }
};

template <typename Real>
void ForwardSpecification(const Exec& exec, const AttentionShape& shape,
                          const AttentionForwardArgs& args) {
  Real* weights = AttentionScratchOf<Real>(exec, "AttentionForward", shape, ForwardElements(shape));
  ForEachHead(shape, [&](int64_t b, int64_t h, int64_t kv) {
    const HeadOut<Real> out{args.out, b * shape.query_len, h * shape.head_dim};
    for (int64_t i = 0; i < shape.query_len; ++i) {
      const RowSums<Real> row(shape, args.q, args.k, args.v, b, h, kv, i, weights);
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        out.Set(i, d, row.empty() ? Real{0} : row[d] / row.total);
      }
      Write<Real>(args.lse, 0, (b * shape.num_heads + h) * shape.query_len + i,
                  row.empty() ? row.max : row.max + std::log(row.total));
    }
  });
}

template <typename Real>
void BlockSpecification(const Exec& exec, const AttentionShape& shape,
                        const AttentionAccumulators& accumulators, const AttentionBlock& block) {
  Real* weights = AttentionScratchOf<Real>(exec, "AttendBlock", shape, ForwardElements(shape));
  ForEachHead(shape, [&](int64_t b, int64_t h, int64_t kv) {
    const HeadOut<Real> acc{accumulators.acc, b * shape.query_len, h * shape.head_dim};
    for (int64_t i = 0; i < shape.query_len; ++i) {
      const RowSums<Real> row(shape, block.q, block.k, block.v, b, h, kv, i, weights);
      if (row.empty()) continue;
      const int64_t index = (b * shape.num_heads + h) * shape.query_len + i;
      const Real max_before = Read<Real>(accumulators.max, 0, index);
      const Real max = std::max(max_before, row.max);
      const Real keep = std::exp(max_before - max), take = std::exp(row.max - max);
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        acc.Set(i, d, acc(i, d) * keep + row[d] * take);
      }
      Write<Real>(accumulators.max, 0, index, max);
      Write<Real>(accumulators.sum, 0, index,
                  Read<Real>(accumulators.sum, 0, index) * keep + row.total * take);
    }
  });
}

template <typename Real>
void FinishSpecification(int64_t num_sequences, const AttentionAccumulators& accumulators,
                         const TensorView& out, const TensorView& lse) {
  const int64_t num_heads = out.dim(1), head_dim = out.dim(2);
  const int64_t query_len = out.rows() / num_sequences;
  for (int64_t index = 0; index < num_sequences * num_heads * query_len; ++index) {
    const int64_t head = index / query_len, i = index % query_len;
    const int64_t row = head / num_heads * query_len + i;
    const Real max = Read<Real>(accumulators.max, 0, index);
    const Real sum = Read<Real>(accumulators.sum, 0, index);
    for (int64_t d = 0; d < head_dim; ++d) {
      const int64_t column = head % num_heads * head_dim + d;
      const Real acc = Read<Real>(accumulators.acc, row, column);
      Write<Real>(out, row, column, sum == 0 ? Real{0} : acc / sum);
    }
    Write<Real>(lse, 0, index, max + std::log(sum));
  }
}

// One query head, its key head and the gradient of its scores.
template <typename Real>
struct HeadGradient {
  const AttentionShape& shape;
  HeadIn<Real> q, k, v, out, dout;
  ConstTensorView lse;
  int64_t b, h;

  HeadGradient(const AttentionShape& s, const AttentionBackwardArgs& args, int64_t sequence,
               int64_t query_head, int64_t kv)
      : shape(s),
        q{args.q, sequence * s.query_len, query_head * s.head_dim},
        k{args.k, sequence * s.key_len, kv * s.head_dim},
        v{args.v, sequence * s.key_len, kv * s.head_dim},
        out{args.out, sequence * s.query_len, query_head * s.head_dim},
        dout{args.dout, sequence * s.query_len, query_head * s.head_dim},
        lse(args.lse),
        b(sequence),
        h(query_head) {}

  struct Pair {
    Real p, ds;  // ds has the factor `scale`
  };
  Pair At(int64_t i, int64_t j) const {
    const Real scale = AttentionScale<Real>(shape);
    const Real delta = Dot(dout, i, out, i, shape.head_dim);
    const Real row_lse = Read<Real>(lse, 0, (b * shape.num_heads + h) * shape.query_len + i);
    const Real p = std::exp(scale * Dot(q, i, k, j, shape.head_dim) - row_lse);
    return {p, scale * p * (Dot(dout, i, v, j, shape.head_dim) - delta)};
  }
};

template <typename Real>
void StoreGradient(const HeadOut<Real>& to, int64_t s, const Real* row, int64_t head_dim,
                   bool accumulate) {
  for (int64_t d = 0; d < head_dim; ++d) {
    to.Set(s, d, (accumulate ? to(s, d) : Real{0}) + row[d]);
  }
}

template <typename Real>
void BackwardSpecification(const Exec& exec, const AttentionShape& shape,
                           const AttentionBackwardArgs& args) {
  const int64_t head_dim = shape.head_dim;
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  Real* first = AttentionScratchOf<Real>(exec, "AttentionBackward", shape, BackwardElements(shape));
  Real* second = first + head_dim;
  ForEachHead(shape, [&](int64_t b, int64_t h, int64_t kv) {
    const HeadGradient<Real> head(shape, args, b, h, kv);
    const HeadOut<Real> dq{args.dq, b * shape.query_len, h * head_dim};
    for (int64_t i = 0; i < shape.query_len; ++i) {
      std::fill_n(first, head_dim, Real{0});
      const KeyRange keys = VisibleKeys(shape, b, i);
      for (int64_t j = keys.first; j < keys.end; ++j) {
        const Real ds = head.At(i, j).ds;
        for (int64_t d = 0; d < head_dim; ++d) first[d] += ds * head.k(j, d);
      }
      StoreGradient(dq, i, first, head_dim, args.accumulate_dq);
    }
    if (h % group != 0) return;
    const HeadOut<Real> dk{args.dk, b * shape.key_len, kv * head_dim};
    const HeadOut<Real> dv{args.dv, b * shape.key_len, kv * head_dim};
    for (int64_t j = 0; j < shape.key_len; ++j) {
      std::fill_n(first, 2 * head_dim, Real{0});
      for (int64_t reader = h; reader < h + group; ++reader) {
        const HeadGradient<Real> reads(shape, args, b, reader, kv);
        for (int64_t i = 0; i < shape.query_len; ++i) {
          const KeyRange keys = VisibleKeys(shape, b, i);
          if (j < keys.first || j >= keys.end) continue;
          const auto [p, ds] = reads.At(i, j);
          for (int64_t d = 0; d < head_dim; ++d) {
            first[d] += ds * reads.q(i, d);
            second[d] += p * reads.dout(i, d);
          }
        }
      }
      StoreGradient(dk, j, first, head_dim, args.accumulate_dkv);
      StoreGradient(dv, j, second, head_dim, args.accumulate_dkv);
    }
  });
}

void CheckHeads(const AttentionShape& shape, const ConstTensorView& view, int64_t len,
                int64_t num_heads) {
  KERNEL_CHECK(view.rank() == 3 && view.rows() == shape.num_sequences * len &&
                   view.dim(1) == num_heads && view.dim(2) == shape.head_dim,
               "queries are (B*Sq, H, D), keys and values (B*Sk, K, D)");
}

// One number for each query of each head.
void CheckQueryNumbers(const ConstTensorView& view, int64_t count) {
  KERNEL_CHECK(view.num_elements() == count, "lse, max and sum are (B, H, Sq)");
  KERNEL_CHECK(view.dtype() != DType::kBFloat16, "lse, max and sum are float32 (float64)");
}

void CheckRanges(const AttentionShape& shape) {
  const auto queries = static_cast<size_t>(shape.query_len);
  const size_t count = shape.first_key.size();
  KERNEL_CHECK(
      count == shape.end_key.size() &&
          (count == queries || count == queries * static_cast<size_t>(shape.num_sequences)),
      "ranges are (B*Sq) or (Sq)");
  for (size_t i = 0; i < count; ++i) {
    const bool starts = i % queries == 0;
    const int32_t least_first = starts ? 0 : shape.first_key[i - 1];
    const int32_t least_end = starts ? 0 : shape.end_key[i - 1];
    KERNEL_CHECK(shape.first_key[i] >= least_first && shape.first_key[i] <= shape.key_len &&
                     shape.end_key[i] >= least_end && shape.end_key[i] <= shape.key_len,
                 "ranges lie in [0, Sk] and do not fall");
  }
}

void CheckShape(const AttentionShape& shape) {
  KERNEL_CHECK(shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0,
               "query heads are a multiple of key heads");
  KERNEL_CHECK(shape.mask != AttentionMask::kCausal || shape.query_len == shape.key_len,
               "causal attention has as many keys as queries");
  if (shape.mask == AttentionMask::kRanges) CheckRanges(shape);
}

void CheckQueries(const AttentionShape& shape, std::initializer_list<ConstTensorView> views) {
  for (const ConstTensorView& view : views) {
    CheckHeads(shape, view, shape.query_len, shape.num_heads);
  }
}
void CheckKeys(const AttentionShape& shape, std::initializer_list<ConstTensorView> views) {
  for (const ConstTensorView& view : views) {
    CheckHeads(shape, view, shape.key_len, shape.num_kv_heads);
  }
}

int64_t QueryNumbers(const AttentionShape& shape) {
  return shape.num_sequences * shape.num_heads * shape.query_len;
}

}  // namespace

int64_t AttentionWorkspaceBytes(const AttentionShape& shape, int num_threads,
                                const CpuCapabilities& cpu) {
  const int64_t plain =
      std::max(ForwardElements(shape), BackwardElements(shape)) * DTypeBytes(DType::kFloat64);
  return std::max(plain, AttentionFastBytes(shape, num_threads, cpu));
}

void AttentionForward(const Exec& exec, const AttentionShape& shape,
                      const AttentionForwardArgs& args) {
  CheckOnCpu(exec);
  CheckShape(shape);
  CheckQueryNumbers(args.lse, QueryNumbers(shape));
  CheckQueries(shape, {args.q, args.out});
  CheckKeys(shape, {args.k, args.v});
  if (AttentionForwardFast(exec, shape, args)) return;
  WithReal(args.q.dtype(),
           [&](auto real) { ForwardSpecification<decltype(real)>(exec, shape, args); });
}

void ResetAttention(const Exec& exec, const AttentionAccumulators& accumulators) {
  CheckOnCpu(exec);
  WithReal(accumulators.acc.dtype(), [&](auto real) {
    using Real = decltype(real);
    for (int64_t row = 0; row < accumulators.acc.rows(); ++row) {
      std::fill_n(accumulators.acc.row<Real>(row), accumulators.acc.row_elements(), Real{0});
    }
    std::fill_n(accumulators.max.as<Real>(), accumulators.max.num_elements(),
                -std::numeric_limits<Real>::infinity());
    std::fill_n(accumulators.sum.as<Real>(), accumulators.sum.num_elements(), Real{0});
  });
}

void AttendBlock(const Exec& exec, const AttentionShape& shape,
                 const AttentionAccumulators& accumulators, const AttentionBlock& block) {
  CheckOnCpu(exec);
  CheckShape(shape);
  CheckQueryNumbers(accumulators.max, QueryNumbers(shape));
  CheckQueryNumbers(accumulators.sum, QueryNumbers(shape));
  KERNEL_CHECK(accumulators.acc.dtype() != DType::kBFloat16, "acc is float32 (float64)");
  CheckQueries(shape, {block.q, accumulators.acc});
  CheckKeys(shape, {block.k, block.v});
  if (AttendBlockFast(exec, shape, accumulators, block)) return;
  WithReal(block.q.dtype(), [&](auto real) {
    BlockSpecification<decltype(real)>(exec, shape, accumulators, block);
  });
}

void FinishAttention(const Exec& exec, int64_t num_sequences,
                     const AttentionAccumulators& accumulators, TensorView out, TensorView lse) {
  CheckOnCpu(exec);
  KERNEL_CHECK(out.rank() == 3 && SameShape(out, accumulators.acc), "acc and out are (B*Sq, H, D)");
  KERNEL_CHECK(num_sequences > 0 && out.rows() % num_sequences == 0, "sequences of one length");
  for (const ConstTensorView& view : {ConstTensorView(lse), ConstTensorView(accumulators.max),
                                      ConstTensorView(accumulators.sum)}) {
    CheckQueryNumbers(view, out.rows() * out.dim(1));
  }
  if (FinishAttentionFast(exec, num_sequences, accumulators, out, lse)) return;
  WithReal(accumulators.acc.dtype(), [&](auto real) {
    FinishSpecification<decltype(real)>(num_sequences, accumulators, out, lse);
  });
}

void AttentionBackward(const Exec& exec, const AttentionShape& shape,
                       const AttentionBackwardArgs& args) {
  CheckOnCpu(exec);
  CheckShape(shape);
  CheckQueryNumbers(args.lse, QueryNumbers(shape));
  CheckQueries(shape, {args.dq, args.dout, args.q, args.out});
  CheckKeys(shape, {args.dk, args.dv, args.k, args.v});
  KERNEL_CHECK(!args.accumulate_dq || args.dq.dtype() != DType::kBFloat16,
               "an accumulated dq is float32 (float64)");
  KERNEL_CHECK(!args.accumulate_dkv ||
                   (args.dk.dtype() != DType::kBFloat16 && args.dv.dtype() != DType::kBFloat16),
               "accumulated dk and dv are float32 (float64)");
  if (AttentionBackwardFast(exec, shape, args)) return;
  WithReal(args.q.dtype(),
           [&](auto real) { BackwardSpecification<decltype(real)>(exec, shape, args); });
}

}  // namespace troupe

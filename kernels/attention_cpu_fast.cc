// Attention by vectors: one call of a vector body for each key head of each sequence, split over
// the math threads.
#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cpu/attention_layout.h"
#include "kernels/cpu/attention_work.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/fast_bodies.h"

namespace troupe {
namespace {

// Key heads that are worked on side by side, each in its own part of the workspace.
int64_t NumPieces(const AttentionShape& shape, int num_threads) {
  return std::min<int64_t>(std::max(num_threads, 1), shape.num_sequences * shape.num_kv_heads);
}

int64_t FloatsOfPiece(const AttentionShape& shape) {
  return AttentionScratchFrom<int64_t>(0, shape.key_len, shape.head_dim,
                                       shape.num_heads / shape.num_kv_heads)
      .end;
}

// Calls body(memory, sequence, key head) for every key head, split over the exec's threads, each
// with its own part of the workspace.
template <typename Body>
void ForEachKeyHead(const Exec& exec, const char* op, const AttentionShape& shape, Body&& body) {
  const int64_t heads = shape.num_sequences * shape.num_kv_heads;
  const int64_t num_pieces = NumPieces(shape, exec.num_threads);
  const int64_t floats_each = FloatsOfPiece(shape);
  float* memory = AttentionScratchOf<float>(exec, op, shape, num_pieces * floats_each);
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

// One key head of one sequence, `kv` of `b`.
struct KeyHead {
  const AttentionShape& shape;
  int64_t b, kv;

  int64_t group() const { return shape.num_heads / shape.num_kv_heads; }
  Rows Queries(const ConstTensorView& view) const {
    return HeadRowsOf(view, b, shape.query_len, kv * group());
  }
  Rows Keys(const ConstTensorView& view) const { return HeadRowsOf(view, b, shape.key_len, kv); }
  // Its part of a dense (B, H, Sq).
  float* Numbers(const ConstTensorView& view) const {
    return const_cast<float*>(view.as<float>()) +
           (b * shape.num_heads + kv * group()) * shape.query_len;
  }
  // What all passes read.
  AttentionHeads Heads(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                       float* memory) const {
    AttentionHeads h{};
    h.query_len = shape.query_len;
    h.key_len = shape.key_len;
    h.head_dim = shape.head_dim;
    h.group = group();
    h.scale = AttentionScale<float>(shape);
    h.causal = shape.mask == AttentionMask::kCausal;
    if (shape.mask == AttentionMask::kRanges) {
      h.first_key = shape.first_key.data() + FirstRangeOf(shape, b);
      h.end_key = shape.end_key.data() + FirstRangeOf(shape, b);
    }
    h.q = Queries(q);
    h.k = Keys(k);
    h.v = Keys(v);
    h.workspace = memory;
    return h;
  }
};

}  // namespace

int64_t AttentionFastBytes(const AttentionShape& shape, int num_threads,
                           const CpuCapabilities& cpu) {
  if (VectorBodiesFor(cpu) == nullptr) return 0;
  return NumPieces(shape, num_threads) * FloatsOfPiece(shape) * DTypeBytes(DType::kFloat32);
}

bool AttentionForwardFast(const Exec& exec, const AttentionShape& shape,
                          const AttentionForwardArgs& args) {
  const VectorBodies* bodies = FastBodies(exec, args.q.dtype(), args.k.dtype(), args.v.dtype(),
                                          args.out.dtype(), args.lse.dtype());
  if (bodies == nullptr) return false;
  ForEachKeyHead(exec, "AttentionForward", shape, [&](float* memory, int64_t b, int64_t kv) {
    const KeyHead head{shape, b, kv};
    AttentionHeads h = head.Heads(args.q, args.k, args.v, memory);
    h.out = head.Queries(args.out);
    h.lse = head.Numbers(args.lse);
    bodies->attention(h);
  });
  return true;
}

bool AttendBlockFast(const Exec& exec, const AttentionShape& shape,
                     const AttentionAccumulators& accumulators, const AttentionBlock& block) {
  const VectorBodies* bodies =
      FastBodies(exec, block.q.dtype(), block.k.dtype(), block.v.dtype(), accumulators.acc.dtype(),
                 accumulators.max.dtype(), accumulators.sum.dtype());
  if (bodies == nullptr) return false;
  ForEachKeyHead(exec, "AttendBlock", shape, [&](float* memory, int64_t b, int64_t kv) {
    const KeyHead head{shape, b, kv};
    AttentionHeads h = head.Heads(block.q, block.k, block.v, memory);
    h.acc = head.Queries(accumulators.acc);
    h.max = head.Numbers(accumulators.max);
    h.sum = head.Numbers(accumulators.sum);
    bodies->attention(h);
  });
  return true;
}

bool FinishAttentionFast(const Exec& exec, int64_t num_sequences,
                         const AttentionAccumulators& accumulators, TensorView out,
                         TensorView lse) {
  const VectorBodies* bodies = FastBodies(exec, accumulators.acc.dtype(), accumulators.max.dtype(),
                                          accumulators.sum.dtype(), out.dtype(), lse.dtype());
  if (bodies == nullptr) return false;
  const int64_t num_heads = out.dim(1), query_len = out.rows() / num_sequences;
  SplitRows(exec, num_sequences * num_heads, [&](int64_t first, int64_t count) {
    for (int64_t head = first; head < first + count; ++head) {
      const int64_t b = head / num_heads, h = head % num_heads, number = head * query_len;
      bodies->finish_attention(HeadRowsOf(out, b, query_len, h), lse.as<float>() + number,
                               HeadRowsOf(accumulators.acc, b, query_len, h),
                               accumulators.max.as<float>() + number,
                               accumulators.sum.as<float>() + number, query_len, out.dim(2));
    }
  });
  return true;
}

bool AttentionBackwardFast(const Exec& exec, const AttentionShape& shape,
                           const AttentionBackwardArgs& args) {
  const VectorBodies* bodies = FastBodies(exec, args.q.dtype(), args.k.dtype(), args.v.dtype(),
                                          args.out.dtype(), args.lse.dtype(), args.dout.dtype(),
                                          args.dq.dtype(), args.dk.dtype(), args.dv.dtype());
  if (bodies == nullptr) return false;
  ForEachKeyHead(exec, "AttentionBackward", shape, [&](float* memory, int64_t b, int64_t kv) {
    const KeyHead head{shape, b, kv};
    AttentionHeads h = head.Heads(args.q, args.k, args.v, memory);
    h.out = head.Queries(args.out);
    h.lse = head.Numbers(args.lse);
    h.dout = head.Queries(args.dout);
    h.dq = head.Queries(args.dq);
    h.dk = head.Keys(args.dk);
    h.dv = head.Keys(args.dv);
    h.accumulate_dq = args.accumulate_dq;
    h.accumulate_dkv = args.accumulate_dkv;
    bodies->attention_grad(h);
  });
  return true;
}

}  // namespace troupe

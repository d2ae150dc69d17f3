// Matrix products of a layer through the public ops, weights packed once, against the bare oneDNN
// primitive on operands of its own choosing; and the elementwise and attention kernels against
// memcpy and the products' speed.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "tests/benchmark/bare_product.h"
#include "tests/benchmark/bench.h"
#include "tests/benchmark/tensor.h"

namespace troupe {
namespace {

using bench::Memory;
using bench::Tensor;

std::string NameOf(const char* product, const MatmulShape& s) {
  return std::string(product) + "/" + (s.dtype == DType::kFloat32 ? "f32" : "bf16") + "/" +
         std::to_string(s.tokens) + "x" + std::to_string(s.in) + "x" + std::to_string(s.out);
}

void CompareProducts(bench::Bench& bench, const MatmulShape& s) {
  omp_set_num_threads(1);
  Tensor x(s.dtype, s.tokens, s.in), y(s.dtype, s.tokens, s.out), w(s.dtype, s.out, s.in);
  Tensor dw(DType::kFloat32, s.out, s.in);
  Memory workspace(MatmulWorkspaceBytes(s));
  const Exec exec{.workspace = workspace.bytes()};
  const auto pack = [&](WeightUse use, Memory& memory) {
    return PackWeight(exec, s, use, w.view, memory.bytes());
  };
  Memory forward_memory(PackedWeightBytes(s, WeightUse::kForward));
  Memory input_memory(PackedWeightBytes(s, WeightUse::kInputGrad));
  const PackedWeight forward = pack(WeightUse::kForward, forward_memory);
  const PackedWeight input_grad = pack(WeightUse::kInputGrad, input_memory);
  const auto compare = [&](const char* name, const auto& ours, bench::BareProduct peer) {
    bench.Compare(
        {.name = NameOf(name, s), .unit = "us", .peer_name = "oneDNN", .goal = 0.95},
        [&] { return bench::MicrosecondsOf(ours); },
        [&] { return bench::MicrosecondsOf([&] { peer.Run(); }); });
  };
  compare(
      "forward", [&] { MatmulForward(exec, y.view, x.view, forward); },
      bench::BareProduct(s.tokens, s.out, s.in, s.dtype, s.dtype, false, true));
  compare(
      "input_grad", [&] { MatmulInputGrad(exec, x.view, y.view, input_grad); },
      bench::BareProduct(s.tokens, s.in, s.out, s.dtype, s.dtype, false, true));
  compare(
      "weight_grad", [&] { MatmulWeightGrad(exec, dw.view, y.view, x.view); },
      bench::BareProduct(s.out, s.in, s.tokens, s.dtype, DType::kFloat32, true, false));
}

TROUPE_BENCHMARK(Matmul) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const MatmulShape& shape :
         {MatmulShape{1024, 256, 256}, {1024, 256, 688}, {1024, 688, 256}, {512, 512, 1376}}) {
      MatmulShape s = shape;
      s.dtype = dtype;
      if (dtype == DType::kBFloat16 && !bench::HasBFloat16Peer()) {
        bench.Skip({.name = NameOf("products", s)}, "oneDNN has no bfloat16 product on this CPU");
        continue;
      }
      CompareProducts(bench, s);
    }
  }
}

// GB/s of a call that moves `num_bytes`, beside memcpy moving as many.
template <typename Call>
void CompareBandwidth(bench::Bench& bench, const std::string& name, int64_t num_bytes,
                      const Call& call) {
  Memory from(num_bytes / 2), to(num_bytes / 2);
  const double bytes = static_cast<double>(num_bytes);
  bench.Compare(
      {.name = name, .unit = "GB/s", .peer_name = "memcpy", .higher_is_better = true},
      [&] { return bytes / bench::MicrosecondsOf(call) / 1e3; },
      [&] {
        return bytes / bench::MicrosecondsOf([&] {
                 std::memcpy(to.data(), from.data(), static_cast<size_t>(num_bytes / 2));
               }) /
               1e3;
      });
}

TROUPE_BENCHMARK(Elementwise) {
  constexpr int64_t kTokens = 1024, kChannels = 256, kHidden = 688;
  const Exec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const std::string suffix = dtype == DType::kFloat32 ? "/f32" : "/bf16";
    const int64_t bytes = kTokens * kChannels * DTypeBytes(dtype);
    const int64_t wide_bytes = kTokens * kHidden * DTypeBytes(dtype);
    Tensor x(dtype, kTokens, kChannels), delta(dtype, kTokens, kChannels);
    Tensor y(dtype, kTokens, kChannels), sum(dtype, kTokens, kChannels),
        weight(dtype, 1, kChannels);
    Tensor rstd(DType::kFloat32, kTokens, 1), dweight(DType::kFloat32, 1, kChannels);
    Tensor gate(dtype, kTokens, kHidden), up(dtype, kTokens, kHidden), out(dtype, kTokens, kHidden);
    Tensor dgate(dtype, kTokens, kHidden), dup(dtype, kTokens, kHidden);
    CompareBandwidth(bench, "add_rms_norm" + suffix, 4 * bytes, [&] {
      AddRmsNormForward(
          exec, {y.view, rstd.view.Flat(), sum.view, x.view, delta.view, weight.view.Flat(), 1e-5});
    });
    CompareBandwidth(bench, "rms_norm_backward" + suffix, 4 * bytes, [&] {
      RmsNormBackward(exec, {y.view, dweight.view.Flat(), delta.view, x.view, rstd.view.Flat(),
                             weight.view.Flat(), sum.view});
    });
    CompareBandwidth(bench, "swiglu" + suffix, 3 * wide_bytes,
                     [&] { SwigluForward(exec, out.view, gate.view, up.view); });
    CompareBandwidth(bench, "swiglu_backward" + suffix, 6 * wide_bytes, [&] {
      SwigluBackward(exec, {dgate.view, dup.view, out.view, gate.view, up.view, out.view});
    });
    CompareBandwidth(bench, "add" + suffix, 3 * bytes,
                     [&] { Add(exec, y.view, x.view, sum.view); });
  }
  constexpr int64_t kParameters = 1 << 20;
  Tensor param(DType::kFloat32, 1, kParameters), m(DType::kFloat32, 1, kParameters);
  Tensor v(DType::kFloat32, 1, kParameters), grad(DType::kFloat32, 1, kParameters);
  Tensor compute(DType::kBFloat16, 1, kParameters);
  CompareBandwidth(bench, "adamw", kParameters * 30, [&] {
    AdamW(exec, {}, {param.view, m.view, v.view, grad.view, compute.view});
  });
  CompareBandwidth(bench, "cast/f32/bf16", kParameters * 6,
                   [&] { Cast(exec, compute.view, param.view); });
  Tensor logits(DType::kFloat32, 256, 4096), dlogits(DType::kBFloat16, 256, 4096);
  std::vector<int32_t> labels(256, 7);
  LossSum loss;
  CompareBandwidth(bench, "cross_entropy/256x4096", 256 * 4096 * 6, [&] {
    CrossEntropy(exec, dlogits.view, logits.view, TensorView::Of(labels.data(), {256}), loss);
  });
}

// GFLOP/s of causal attention's visible half, beside a float32 product of oneDNN.
TROUPE_BENCHMARK(Attention) {
  omp_set_num_threads(1);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const AttentionShape& shape :
         {AttentionShape{4, 256, 256, 8, 4, 32}, AttentionShape{2, 512, 512, 8, 4, 64}}) {
      const int64_t tokens = shape.num_sequences * shape.query_len;
      const int64_t q_size = shape.num_heads * shape.head_dim;
      const int64_t k_size = shape.num_kv_heads * shape.head_dim;
      Tensor q(dtype, tokens, q_size), k(dtype, tokens, k_size), v(dtype, tokens, k_size);
      Tensor out(dtype, tokens, q_size), dout(dtype, tokens, q_size), dq(dtype, tokens, q_size);
      Tensor dk(dtype, tokens, k_size), dv(dtype, tokens, k_size);
      Tensor lse(DType::kFloat32, tokens, shape.num_heads);
      Memory workspace(AttentionWorkspaceBytes(shape));
      const Exec exec{.workspace = workspace.bytes()};
      const auto heads = [&](Tensor& t) {
        return t.view.SplitRows({t.view.row_elements() / shape.head_dim, shape.head_dim});
      };
      const double flops = static_cast<double>(2 * tokens * shape.key_len * q_size);
      bench::BareProduct product(512, 512, 512, DType::kFloat32, DType::kFloat32, false, true);
      const auto compare = [&](const std::string& name, double work, const auto& call) {
        bench.Compare(
            {.name = name + (dtype == DType::kFloat32 ? "/f32/" : "/bf16/") +
                     std::to_string(shape.query_len) + "x" + std::to_string(shape.head_dim),
             .unit = "GFLOP/s",
             .peer_name = "oneDNN f32 product",
             .higher_is_better = true},
            [&] { return work / bench::MicrosecondsOf(call) / 1e3; },
            [&] {
              return 2 * 512.0 * 512 * 512 / bench::MicrosecondsOf([&] { product.Run(); }) / 1e3;
            });
      };
      compare("attention", flops, [&] {
        AttentionForward(exec, shape, {heads(out), lse.view, heads(q), heads(k), heads(v)});
      });
      compare("attention_backward", 2.5 * flops, [&] {
        AttentionBackward(exec, shape,
                          {heads(dq), heads(dk), heads(dv), heads(dout), heads(q), heads(k),
                           heads(v), heads(out), lse.view});
      });
    }
  }
}

}  // namespace
}  // namespace troupe

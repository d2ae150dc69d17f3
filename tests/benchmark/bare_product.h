// The peer of the products' benchmarks: one bare oneDNN primitive, and how long a call takes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>

#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/tensor_view.h"
#include "tests/benchmark/bench.h"

namespace troupe::bench {

// CPU microseconds of one call on one thread: the mean over about five milliseconds.
template <typename Call>
double MicrosecondsOf(Call&& call) {
  const double first = ProcessCpuNs();
  call();
  const double once = std::max(ProcessCpuNs() - first, 100.0);
  const int repeats = std::max(1, static_cast<int>(5e6 / once));
  const double start = ProcessCpuNs();
  for (int i = 0; i < repeats; ++i) call();
  return (ProcessCpuNs() - start) / repeats / 1e3;
}

// oneDNN's own product of m x k by k x n, weights in the layout that it likes best.
class BareProduct {
 public:
  BareProduct(int64_t m, int64_t n, int64_t k, DType inputs, DType result, bool left_transposed,
              bool packs)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using Desc = dnnl::memory::desc;
    const auto type = [](DType d) {
      return d == DType::kFloat32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
    };
    using Tag = dnnl::memory::format_tag;
    dnnl::primitive_attr attributes;
    if (left_transposed) {
      dnnl::post_ops add;
      add.append_sum(1.0f);
      attributes.set_post_ops(add);
    }
    const dnnl::matmul::primitive_desc desc(
        {Desc({m, k}, type(inputs), left_transposed ? Tag::ba : Tag::ab),
         Desc({k, n}, type(inputs), packs ? Tag::any : Tag::ab),
         Desc({m, n}, type(result), Tag::ab)},
        attributes, engine_);
    product_ = dnnl::matmul(desc);
    args_ = {{DNNL_ARG_SRC, dnnl::memory(desc.src_desc(), engine_)},
             {DNNL_ARG_WEIGHTS, dnnl::memory(desc.weights_desc(), engine_)},
             {DNNL_ARG_DST, dnnl::memory(desc.dst_desc(), engine_)}};
    for (auto& [name, memory] : args_) {
      // Not zeros, which cost the multipliers less power.
      std::memset(memory.get_data_handle(), 0x3c, memory.get_desc().get_size());
    }
  }
  void Run() {
    product_.execute(stream_, args_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul product_;
  std::unordered_map<int, dnnl::memory> args_;
};

// Without AVX-512 oneDNN has no bfloat16 product to compare with.
inline bool HasBFloat16Peer() {
  try {
    BareProduct(32, 32, 32, DType::kBFloat16, DType::kBFloat16, false, true);
    return true;
  } catch (const dnnl::error&) {
    return false;
  }
}

}  // namespace troupe::bench

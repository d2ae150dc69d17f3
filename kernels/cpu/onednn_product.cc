#include "kernels/cpu/onednn_product.h"

#include <omp.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/cpu/operand_layout.h"
#include "kernels/cpu/product_path.h"

namespace troupe {
namespace {

using Desc = dnnl::memory::desc;

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& Stream() {
  thread_local dnnl::stream stream(Engine());
  return stream;
}

dnnl::memory::data_type TypeOf(DType dtype) {
  KERNEL_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16,
               "oneDNN multiplies float32 and bfloat16");
  return dtype == DType::kFloat32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

// oneDNN takes the thread count from OpenMP, both when it plans and when it runs.
void UseThreads(int num_threads) {
  if (omp_get_max_threads() != num_threads) omp_set_num_threads(num_threads);
}

// b of a product in the layout that oneDNN prefers for dense operands, or in spread rows where it
// prefers none. Planned for one thread: the bytes must not depend on who reads them.
Desc PackedDesc(const ProductShape& shape) {
  const CpuCapabilities& cpu = ThisCpu();
  if (!cpu.blocked_products) {
    return {{shape.k, shape.n}, TypeOf(shape.inputs), {SpreadStride(cpu, shape.n), 1}};
  }
  UseThreads(1);
  const Desc a({shape.m, shape.k}, TypeOf(shape.inputs), dnnl::memory::format_tag::ab);
  const Desc b({shape.k, shape.n}, TypeOf(shape.inputs), dnnl::memory::format_tag::any);
  const Desc c({shape.m, shape.n}, TypeOf(shape.inputs), dnnl::memory::format_tag::ab);
  return dnnl::matmul::primitive_desc({a, b, c}, Engine()).weights_desc();
}

Desc PlainDesc(const ProductShape& shape) {
  return {{shape.k, shape.n}, TypeOf(shape.inputs), {shape.b_row, shape.b_column}};
}

struct OneDnnProduct {
  dnnl::matmul primitive;
  dnnl::memory a;
  dnnl::memory b;
  dnnl::memory c;
  dnnl::memory scratch;
  int64_t scratch_bytes = 0;
};

std::optional<OneDnnProduct> BuildProduct(const ProductShape& shape) try {
  const Desc b = shape.b_is_packed ? PackedDesc(shape) : PlainDesc(shape);
  const Desc a({shape.m, shape.k}, TypeOf(shape.inputs), {shape.a_row, shape.a_column});
  const Desc c({shape.m, shape.n}, TypeOf(shape.result), {shape.c_row, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (shape.accumulate) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attributes.set_post_ops(add);
  }
  UseThreads(shape.num_threads);
  const dnnl::matmul::primitive_desc desc({a, b, c}, attributes, Engine());
  if (std::string_view(desc.impl_info_str()).starts_with("ref")) return std::nullopt;
  const auto unbound = [](const Desc& memory) {
    return dnnl::memory(memory, Engine(), DNNL_MEMORY_NONE);
  };
  return OneDnnProduct{dnnl::matmul(desc),
                       unbound(desc.src_desc()),
                       unbound(desc.weights_desc()),
                       unbound(desc.dst_desc()),
                       unbound(desc.scratchpad_desc()),
                       static_cast<int64_t>(desc.scratchpad_desc().get_size())};
} catch (const dnnl::error&) {
  return std::nullopt;  // oneDNN has no such product on this CPU
}

std::optional<OneDnnProduct>& ProductFor(const ProductShape& shape) {
  thread_local std::map<ProductShape, std::optional<OneDnnProduct>> products;
  const auto found = products.find(shape);
  if (found != products.end()) return found->second;
  return products.emplace(shape, BuildProduct(shape)).first->second;
}

// How plain b becomes packed.
struct Packing {
  enum class By : uint8_t { kRows, kBlocks, kReorder } by = By::kReorder;
  dnnl::reorder reorder;  // kReorder alone: a layout that no copy of ours knows
  dnnl::memory from;
  dnnl::memory to;
  int64_t num_bytes = 0;  // 0: the plain layout is the fastest
};

Packing BuildPacking(const ProductShape& shape) try {
  const Desc from = PlainDesc(shape), to = PackedDesc(shape);
  if (from == to) return {};
  const CpuCapabilities& cpu = ThisCpu();
  // Rows apart: whole ones, also the last.
  const int64_t spread_bytes = shape.k * SpreadStride(cpu, shape.n) * DTypeBytes(shape.inputs);
  const bool is_float32 = shape.inputs == DType::kFloat32;
  const Desc blocks(
      {shape.k, shape.n}, TypeOf(shape.inputs),
      is_float32 ? dnnl::memory::format_tag::BA16a64b : dnnl::memory::format_tag::BA16a64b2a);
  Packing packing{.num_bytes = std::max(spread_bytes, static_cast<int64_t>(to.get_size()))};
  if (to == blocks) {
    packing.by = Packing::By::kBlocks;
  } else if (!cpu.blocked_products && is_float32) {
    packing.by = Packing::By::kRows;
  } else {
    packing.from = dnnl::memory(from, Engine(), DNNL_MEMORY_NONE);
    packing.to = dnnl::memory(to, Engine(), DNNL_MEMORY_NONE);
    UseThreads(1);
    packing.reorder = dnnl::reorder(packing.from, packing.to);
  }
  return packing;
} catch (const dnnl::error&) {
  return {};
}

Packing& PackingFor(ProductShape shape) {
  shape.a_row = shape.a_column = shape.c_row = 0;
  shape.accumulate = shape.b_is_packed = false;
  shape.num_threads = 1;
  shape.result = shape.inputs;
  thread_local std::map<ProductShape, Packing> packings;
  const auto found = packings.find(shape);
  if (found != packings.end()) return found->second;
  return packings.emplace(shape, BuildPacking(shape)).first->second;
}

void Bind(dnnl::memory& memory, const void* data) {
  memory.set_data_handle(const_cast<void*>(data), Stream());
}

// oneDNN's scratch jumps with row counts, strides and threads, and no formula of ours bounds it:
// beyond what products are given (product_path.h), memory that the thread keeps serves.
void* ScratchFor(const OneDnnProduct& product, std::span<std::byte> scratch) {
  if (static_cast<int64_t>(scratch.size()) >= product.scratch_bytes) return scratch.data();
  thread_local dnnl::memory kept;
  if (!kept || static_cast<int64_t>(kept.get_desc().get_size()) < product.scratch_bytes) {
    kept = dnnl::memory(product.scratch.get_desc(), Engine());
  }
  return kept.get_data_handle();
}

// A small dense product whose implementation is neither a reference loop nor a matrix multiply over
// operands as they lie ("gemm"), where that counts.
bool HasDenseProduct(DType inputs, bool blocked) try {
  constexpr int64_t kSize = 64;
  const Desc dense({kSize, kSize}, TypeOf(inputs), dnnl::memory::format_tag::ab);
  UseThreads(1);
  const dnnl::matmul::primitive_desc desc({dense, dense, dense}, Engine());
  const std::string_view name(desc.impl_info_str());
  return !name.starts_with("ref") && !(blocked && name.starts_with("gemm"));
} catch (const dnnl::error&) {
  return false;
}

}  // namespace

bool HasProduct(const ProductShape& shape) { return ProductFor(shape).has_value(); }

int64_t ScratchBytesOf(const ProductShape& shape) { return ProductFor(shape)->scratch_bytes; }

void RunProduct(const ProductShape& shape, void* c, const void* a, const void* b,
                std::span<std::byte> scratch) {
  OneDnnProduct& product = *ProductFor(shape);
  Bind(product.a, a);
  Bind(product.b, b);
  Bind(product.c, c);
  Bind(product.scratch, ScratchFor(product, scratch));
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, product.a.get()},
                                  {DNNL_ARG_WEIGHTS, product.b.get()},
                                  {DNNL_ARG_DST, product.c.get()},
                                  {DNNL_ARG_SCRATCHPAD, product.scratch.get()}};
  UseThreads(shape.num_threads);
  const dnnl_status_t status =
      dnnl_primitive_execute(product.primitive.get(), Stream().get(), 4, args);
  KERNEL_CHECK(status == dnnl_success, "oneDNN failed to run a product that it had planned");
}

int64_t OperandLayoutBytes(const ProductShape& shape) { return PackingFor(shape).num_bytes; }

bool PacksOperand(const ProductShape& shape, int64_t num_bytes) {
  const int64_t layout_bytes = OperandLayoutBytes(shape);
  return layout_bytes > 0 && layout_bytes <= num_bytes;
}

void PackOperand(const ProductShape& shape, void* packed, const void* b) {
  Packing& packing = PackingFor(shape);
  const PlainOperand plain{b, shape.k, shape.n, shape.b_row, shape.b_column, shape.inputs};
  switch (packing.by) {
    case Packing::By::kRows:
      return CopyToRows(plain, SpreadStride(ThisCpu(), shape.n), static_cast<float*>(packed));
    case Packing::By::kBlocks:
      return CopyToBlocks(plain, packed);
    case Packing::By::kReorder:
      break;
  }
  Bind(packing.from, b);
  Bind(packing.to, packed);
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, packing.from.get()},
                                  {DNNL_ARG_TO, packing.to.get()}};
  UseThreads(1);
  const dnnl_status_t status =
      dnnl_primitive_execute(packing.reorder.get(), Stream().get(), 2, args);
  KERNEL_CHECK(status == dnnl_success, "oneDNN failed to reorder an operand");
}

const CpuCapabilities& ThisCpu() {
  static const CpuCapabilities cpu = [] {
    // oneDNN numbers instruction sets as growing sets of bits.
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto reaches = [isa](dnnl::cpu_isa wanted) {
      return (isa & static_cast<unsigned>(wanted)) == static_cast<unsigned>(wanted);
    };
    const bool avx2 = reaches(dnnl::cpu_isa::avx2) && __builtin_cpu_supports("fma");
    const int lanes = reaches(dnnl::cpu_isa::avx512_core) ? 16 : avx2 ? 8 : 0;
    return CpuCapabilities{.vector_lanes = lanes,
                           .blocked_products = HasDenseProduct(DType::kFloat32, true),
                           .bfloat16_products = reaches(dnnl::cpu_isa::avx512_core_bf16) &&
                                                HasDenseProduct(DType::kBFloat16, false)};
  }();
  return cpu;
}

}  // namespace troupe

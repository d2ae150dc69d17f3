// Packed operands, byte for byte what oneDNN's reorders make of them; it knows every layout on any
// CPU.
#include "kernels/cpu/operand_layout.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

namespace troupe {
namespace {

using Desc = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

struct Sizes {
  int64_t k, n;
};
const std::vector<Sizes> kSizes = {{1, 1},   {3, 5},    {16, 64},  {32, 64}, {33, 65},
                                   {48, 80}, {64, 128}, {100, 36}, {31, 200}};

// Normal numbers of either type: some of oneDNN's reorders convert, and flush others.
std::vector<std::byte> RandomBytes(size_t size) {
  std::mt19937 engine(7);
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = i % 2 == 1 ? std::byte{0x3f} : static_cast<std::byte>(engine() & 0xff);
  }
  return bytes;
}

// What oneDNN makes of `from` in memory of fives.
std::vector<std::byte> Reordered(const Desc& from, const std::vector<std::byte>& bytes,
                                 const Desc& to, size_t size) {
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::vector<std::byte> result(size, std::byte{5});
  dnnl::memory source(from, engine, const_cast<std::byte*>(bytes.data()));
  dnnl::memory target(to, engine, result.data());
  dnnl::reorder(source, target).execute(stream, source, target);
  stream.wait();
  return result;
}

TEST(OperandLayoutTest, BlocksAreThoseOfOneDnn) {
  for (const auto [k, n] : kSizes) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const bool transposed : {false, true}) {
        const bool is_float32 = dtype == DType::kFloat32;
        const Type type = is_float32 ? Type::f32 : Type::bf16;
        const int64_t row = transposed ? 1 : n, column = transposed ? k : 1;
        const auto bytes = RandomBytes(static_cast<size_t>(k * n * DTypeBytes(dtype)));
        const Desc blocks({k, n}, type, is_float32 ? Tag::BA16a64b : Tag::BA16a64b2a);
        const size_t size = blocks.get_size();
        std::vector<std::byte> ours(size, std::byte{5});
        CopyToBlocks({bytes.data(), k, n, row, column, dtype}, ours.data());
        const auto theirs = Reordered(Desc({k, n}, type, {row, column}), bytes, blocks, size);
        EXPECT_TRUE(ours == theirs) << k << "x" << n << " " << DTypeName(dtype) << " "
                                    << (transposed ? "transposed" : "plain");
      }
    }
  }
}

TEST(OperandLayoutTest, RowsAreThoseOfOneDnn) {
  for (const auto [k, n] : kSizes) {
    for (const int64_t gap : {0, 16}) {
      for (const bool transposed : {false, true}) {
        const int64_t row = transposed ? 1 : n, column = transposed ? k : 1, stride = n + gap;
        const auto bytes = RandomBytes(static_cast<size_t>(k * n * 4));
        const auto size = static_cast<size_t>(k * stride * 4);
        std::vector<std::byte> ours(size, std::byte{5});
        CopyToRows({bytes.data(), k, n, row, column, DType::kFloat32}, stride,
                   reinterpret_cast<float*>(ours.data()));
        const auto theirs = Reordered(Desc({k, n}, Type::f32, {row, column}), bytes,
                                      Desc({k, n}, Type::f32, {stride, 1}), size);
        EXPECT_TRUE(ours == theirs) << k << "x" << n << " " << stride << " apart, "
                                    << (transposed ? "transposed" : "plain");
      }
    }
  }
}

}  // namespace
}  // namespace troupe

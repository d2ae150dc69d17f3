// One matrix product of oneDNN: c (M, N) [+]= a (M, K) b (K, N) over strided operands. Primitives
// are built at the first call of a shape and kept for the thread; after that nothing here
// allocates. (Without AVX-512 oneDNN itself takes memory for the length of a call, in which it
// packs pieces of the operands: 0.1 to 7 MiB measured. It does not ask for that as scratch.)
// Float32 and bfloat16; a product's bits depend on its shape below and on the CPU type.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tensor_view.h"

namespace troupe {

struct ProductShape {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  // Elements between neighbours along rows and columns; one of each pair is 1.
  int64_t a_row = 0;
  int64_t a_column = 0;
  int64_t b_row = 0;  // ignored where b is packed
  int64_t b_column = 0;
  int64_t c_row = 0;
  DType inputs = DType::kFloat32;
  DType result = DType::kFloat32;
  bool accumulate = false;
  bool b_is_packed = false;
  int num_threads = 1;

  auto operator<=>(const ProductShape&) const = default;
};

// False where oneDNN would run its reference loops, or nothing: no bfloat16 before AVX-512, a
// packed b beside a strided a.
bool HasProduct(const ProductShape& shape);

// Bytes of scratch that oneDNN asks for; HasProduct(shape).
int64_t ScratchBytesOf(const ProductShape& shape);

// HasProduct(shape). `scratch` is 64-byte aligned; where it is smaller than ScratchBytesOf, the
// thread's own memory serves.
void RunProduct(const ProductShape& shape, void* c, const void* a, const void* b,
                std::span<std::byte> scratch);

// oneDNN has a layout of b that it reads faster than the plain one of `shape` (m, n, k, inputs and
// b's strides count), in no more than `num_bytes`.
bool PacksOperand(const ProductShape& shape, int64_t num_bytes);

// Bytes of that layout; 0 where oneDNN likes the plain one best.
int64_t OperandLayoutBytes(const ProductShape& shape);

// Fills `packed` (64-byte aligned; PacksOperand) from plain b.
void PackOperand(const ProductShape& shape, void* packed, const void* b);

}  // namespace troupe

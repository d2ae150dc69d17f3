#include "kernels/cpu/operand_layout.h"

#include <emmintrin.h>

#include <algorithm>
#include <cstring>

namespace troupe {
namespace {

constexpr int64_t kColumns = 64;  // of a block
constexpr int64_t kDepth = 16;    // words down a block

// to (rows, columns) = from (columns, rows) transposed, in words of four bytes.
void TransposeWords(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                    float* to, int64_t to_stride) {
  int64_t column = 0;
  for (; column + 4 <= columns; column += 4) {
    const float* at = from + column * from_stride;
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) {
      __m128 a = _mm_loadu_ps(at + row), b = _mm_loadu_ps(at + from_stride + row);
      __m128 c = _mm_loadu_ps(at + 2 * from_stride + row);
      __m128 d = _mm_loadu_ps(at + 3 * from_stride + row);
      _MM_TRANSPOSE4_PS(a, b, c, d);
      _mm_storeu_ps(to + row * to_stride + column, a);
      _mm_storeu_ps(to + (row + 1) * to_stride + column, b);
      _mm_storeu_ps(to + (row + 2) * to_stride + column, c);
      _mm_storeu_ps(to + (row + 3) * to_stride + column, d);
    }
    for (; row < rows; ++row) {
      for (int64_t i = 0; i < 4; ++i) to[row * to_stride + column + i] = at[i * from_stride + row];
    }
  }
  for (; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      to[row * to_stride + column] = from[column * from_stride + row];
    }
  }
}

// One row of a block: pairs of elements of two rows.
void Interleave(const uint16_t* even, const uint16_t* odd, uint16_t* to) {
  for (int64_t i = 0; i < kColumns; i += 8) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(even + i));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(odd + i));
    auto* pairs = reinterpret_cast<__m128i*>(to + 2 * i);
    _mm_storeu_si128(pairs, _mm_unpacklo_epi16(a, b));
    _mm_storeu_si128(pairs + 1, _mm_unpackhi_epi16(a, b));
  }
}

// The block whose first element is (k, n), whole or at an edge. `pairs` elements share a word.
template <typename T, int64_t pairs>
void CopyBlock(const PlainOperand& from, int64_t k, int64_t n, T* to) {
  const T* data = static_cast<const T*>(from.data) + k * from.row + n * from.column;
  constexpr int64_t kRows = kDepth * pairs;
  const bool whole = k + kRows <= from.k && n + kColumns <= from.n;
  if (whole && from.row == 1) {
    if constexpr (pairs == 1) {
      TransposeWords(data, from.column, kDepth, kColumns, to, kColumns);
    } else {
      // A pair is a word of the source too, though it may lie at an odd element there.
      float columns[kColumns * kDepth], words[kDepth * kColumns];
      for (int64_t column = 0; column < kColumns; ++column) {
        std::memcpy(columns + column * kDepth, data + column * from.column, kRows * sizeof(T));
      }
      TransposeWords(columns, kDepth, kDepth, kColumns, words, kColumns);
      std::memcpy(to, words, sizeof(words));
    }
    return;
  }
  if (whole && from.column == 1) {
    for (int64_t row = 0; row < kRows; row += pairs) {
      if constexpr (pairs == 2) {
        Interleave(data + row * from.row, data + (row + 1) * from.row, to + row * kColumns);
      } else {
        std::memcpy(to + row * kColumns, data + row * from.row, kColumns * sizeof(T));
      }
    }
    return;
  }
  std::fill_n(to, kRows * kColumns, T{});
  const int64_t rows = std::min(kRows, from.k - k), columns = std::min(kColumns, from.n - n);
  for (int64_t row = 0; row < rows; ++row) {
    T* line = to + row / pairs * pairs * kColumns + row % pairs;
    for (int64_t column = 0; column < columns; ++column) {
      line[column * pairs] = data[row * from.row + column * from.column];
    }
  }
}

template <typename T, int64_t pairs>
void CopyBlocks(const PlainOperand& from, T* to) {
  for (int64_t n = 0; n < from.n; n += kColumns) {
    for (int64_t k = 0; k < from.k; k += kDepth * pairs) {
      CopyBlock<T, pairs>(from, k, n, to);
      to += kDepth * pairs * kColumns;
    }
  }
}

}  // namespace

void CopyToRows(const PlainOperand& from, int64_t stride, float* to) {
  const auto* data = static_cast<const float*>(from.data);
  if (from.column == 1) {
    for (int64_t row = 0; row < from.k; ++row) {
      std::memcpy(to + row * stride, data + row * from.row,
                  static_cast<size_t>(from.n) * sizeof(float));
    }
    return;
  }
  // Squares whose lines stay in the first-level cache from one four of columns to the next.
  constexpr int64_t kSquare = 64;
  for (int64_t k = 0; k < from.k; k += kSquare) {
    for (int64_t n = 0; n < from.n; n += kSquare) {
      TransposeWords(data + n * from.column + k, from.column, std::min(kSquare, from.k - k),
                     std::min(kSquare, from.n - n), to + k * stride + n, stride);
    }
  }
}

void CopyToBlocks(const PlainOperand& from, void* to) {
  if (from.dtype == DType::kBFloat16)
    return CopyBlocks<uint16_t, 2>(from, static_cast<uint16_t*>(to));
  CopyBlocks<float, 1>(from, static_cast<float*>(to));
}

}  // namespace troupe

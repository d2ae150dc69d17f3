// How a public op reaches its vector body: the choice of body, views as raw rows, and the split of
// rows over math threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernels/cpu/vector_bodies.h"
#include "kernels/exec.h"

namespace troupe {

// Null where the specification must serve: asked for, a dtype among `dtypes` that only it knows, or
// an old CPU.
template <typename... DTypes>
const VectorBodies* FastBodies(const Exec& exec, DTypes... dtypes) {
  const auto known = [](DType d) { return d == DType::kFloat32 || d == DType::kBFloat16; };
  if (exec.specification || !(known(dtypes) && ...)) return nullptr;
  return VectorBodiesFor(ThisCpu());
}

inline Rows RowsOf(const ConstTensorView& view) {
  return {const_cast<void*>(view.data()), view.row_stride(), view.dtype() == DType::kBFloat16};
}
inline Rows RowsOf(const TensorView& view) { return RowsOf(ConstTensorView(view)); }

// The same for a view that may be absent.
template <typename View>
Rows RowsOf(const View& view, int64_t first, int64_t count) {
  return view.empty() ? Rows{} : RowsOf(view.Rows(first, count));
}

// Calls body(piece) for each of `pieces`, side by side.
template <typename Body>
void ForEachPiece(int64_t pieces, Body&& body) {
  if (pieces <= 1) {
    if (pieces == 1) body(int64_t{0});
    return;
  }
#ifdef __SANITIZE_THREAD__
  // The sanitizer sees these threads meet; libgomp's, which wait for one another at futexes, seem
  // to it to race with all that comes after.
  std::vector<std::jthread> threads;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    threads.emplace_back([&, piece] { body(piece); });
  }
#else
#pragma omp parallel for num_threads(static_cast <int>(pieces)) schedule(static, 1)
  for (int64_t piece = 0; piece < pieces; ++piece) body(piece);
#endif
}

// Calls body(first, count) over [0, rows), in one piece for each of the exec's threads. The pieces
// change no bit: rows are independent.
template <typename Body>
void SplitRows(const Exec& exec, int64_t rows, Body&& body) {
  const int64_t pieces = std::clamp<int64_t>(rows, 1, std::max(exec.num_threads, 1));
  ForEachPiece(pieces, [&](int64_t piece) {
    const int64_t first = rows * piece / pieces;
    body(first, rows * (piece + 1) / pieces - first);
  });
}

// Rows and columns of an elementwise walk: dense views are one long row.
struct Walk {
  int64_t rows;
  int64_t columns;
};
template <typename... Views>
Walk WalkOver(int64_t rows, int64_t columns, const Views&... views) {
  const bool dense = ((views.empty() || views.is_dense()) && ...);
  return dense ? Walk{1, rows * columns} : Walk{rows, columns};
}

}  // namespace troupe

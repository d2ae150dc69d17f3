#include <cstring>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"
#include "kernels/embedding.h"

namespace troupe {
namespace {

int64_t TokenAt(const ConstTensorView& tokens, int64_t position, int64_t vocab) {
  const int64_t token = tokens.as<int32_t>()[position];
  KERNEL_CHECK(token >= 0 && token < vocab, "a token lies outside the vocabulary");
  return token;
}

template <typename Real>
void ForwardSpecification(TensorView out, ConstTensorView tokens, ConstTensorView table) {
  for (int64_t t = 0; t < out.rows(); ++t) {
    const int64_t token = TokenAt(tokens, t, table.rows());
    for (int64_t c = 0; c < out.row_elements(); ++c) {
      Write<Real>(out, t, c, Read<Real>(table, token, c));
    }
  }
}

template <typename Real>
void BackwardSpecification(TensorView dtable, ConstTensorView tokens, ConstTensorView dout) {
  for (int64_t t = 0; t < dout.rows(); ++t) {
    const int64_t token = TokenAt(tokens, t, dtable.rows());
    for (int64_t c = 0; c < dout.row_elements(); ++c) {
      Write<Real>(dtable, token, c, Read<Real>(dtable, token, c) + Read<Real>(dout, t, c));
    }
  }
}

}  // namespace

void EmbeddingForward(const Exec& exec, TensorView out, ConstTensorView tokens,
                      ConstTensorView table) {
  CheckOnCpu(exec);
  KERNEL_CHECK(out.rows() == tokens.num_elements(), "one row of out for each token");
  KERNEL_CHECK(out.row_elements() == table.row_elements(), "out and table differ in channels");
  KERNEL_CHECK(out.dtype() == table.dtype(), "out and table differ in dtype");
  if (exec.specification) {
    WithReal(table.dtype(),
             [&](auto real) { ForwardSpecification<decltype(real)>(out, tokens, table); });
    return;
  }
  const int64_t item = DTypeBytes(table.dtype());
  for (int64_t t = 0; t < out.rows(); ++t) {
    const int64_t token = TokenAt(tokens, t, table.rows());
    std::memcpy(out.Rows(t, 1).data(), table.Rows(token, 1).data(),
                static_cast<size_t>(table.row_elements() * item));
  }
}

void EmbeddingBackward(const Exec& exec, TensorView dtable, ConstTensorView tokens,
                       ConstTensorView dout) {
  CheckOnCpu(exec);
  KERNEL_CHECK(dout.rows() == tokens.num_elements(), "one row of dout for each token");
  KERNEL_CHECK(dout.row_elements() == dtable.row_elements(), "dout and dtable differ in channels");
  KERNEL_CHECK(dtable.dtype() != DType::kBFloat16, "a gradient table sums in float32");
  if (const VectorBodies* fast = FastBodies(exec, dtable.dtype(), dout.dtype())) {
    for (int64_t t = 0; t < dout.rows(); ++t) {
      const Rows row = RowsOf(dtable, TokenAt(tokens, t, dtable.rows()), 1);
      fast->add(row, row, RowsOf(dout, t, 1), 1, dout.row_elements());
    }
    return;
  }
  WithReal(dout.dtype(),
           [&](auto real) { BackwardSpecification<decltype(real)>(dtable, tokens, dout); });
}

}  // namespace troupe

// Tensors as an operation of a group takes them. Dense ones.
#pragma once

#include <cstdint>

#include "kernels/tensor_view.h"
#include "runtime/base/check.h"
#include "runtime/collective/group.h"

namespace troupe {

inline Elements ElementsOf(const TensorView& tensor) {
  CHECK(tensor.is_dense(), "a group moves dense elements");
  return {static_cast<uint8_t>(tensor.dtype()), tensor.data(), tensor.num_elements()};
}
inline ConstElements ElementsOf(const ConstTensorView& tensor) {
  CHECK(tensor.is_dense(), "a group moves dense elements");
  return {static_cast<uint8_t>(tensor.dtype()), tensor.data(), tensor.num_elements()};
}

}  // namespace troupe

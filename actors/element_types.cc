#include "actors/element_types.h"

#include <array>

#include "kernels/ordered_sum.h"

namespace troupe {
namespace {

ElementType ElementTypeOf(DType dtype) {
  return {static_cast<uint8_t>(dtype), DTypeBytes(dtype), DTypeName(dtype), OrderedSumOf(dtype)};
}

}  // namespace

std::span<const ElementType> ElementTypes() {
  static const std::array types = {ElementTypeOf(DType::kFloat32), ElementTypeOf(DType::kBFloat16),
                                   ElementTypeOf(DType::kFloat16), ElementTypeOf(DType::kFloat64),
                                   ElementTypeOf(DType::kInt32),   ElementTypeOf(DType::kInt64)};
  return types;
}

}  // namespace troupe

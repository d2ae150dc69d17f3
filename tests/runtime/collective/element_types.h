// The dtypes that groups of tests reduce, with the sums of kernels.
#pragma once

#include "kernels/ordered_sum.h"
#include "runtime/collective/group.h"

namespace troupe::testing {

inline ElementType ElementTypeOf(DType dtype) {
  return {static_cast<uint8_t>(dtype), DTypeBytes(dtype), DTypeName(dtype), OrderedSumOf(dtype)};
}

inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16,
                                    DType::kInt32, DType::kInt64};

inline std::span<const ElementType> ElementTypes() {
  static const ElementType types[] = {ElementTypeOf(kDTypes[0]), ElementTypeOf(kDTypes[1]),
                                      ElementTypeOf(kDTypes[2]), ElementTypeOf(kDTypes[3]),
                                      ElementTypeOf(kDTypes[4])};
  return types;
}

}  // namespace troupe::testing

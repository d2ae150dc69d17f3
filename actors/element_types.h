// The dtypes that groups of ranks move and add up, with the sums of kernels.
#pragma once

#include <span>

#include "runtime/collective/group.h"

namespace troupe {

// Live as long as the process.
std::span<const ElementType> ElementTypes();

}  // namespace troupe

// CUDA_CHECK(call): a CUDA, cuBLAS or launch status that is not success is a broken invariant.
#pragma once

#include "kernels/check.h"

#define CUDA_CHECK(call)                                                    \
  do {                                                                      \
    const auto status_of_call = (call);                                     \
    if (static_cast<int>(status_of_call) != 0) [[unlikely]] {               \
      ::troupe::KernelCheckFailed(#call, __FILE__, __LINE__, "CUDA error"); \
    }                                                                       \
  } while (false)

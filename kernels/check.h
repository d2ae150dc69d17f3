// KERNEL_CHECK(condition, message) states a precondition of an op (shapes, dtypes, workspace). It
// stays on in release builds. kernels/ includes nothing but itself, hence its own check.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace troupe {

[[noreturn]] inline void KernelCheckFailed(const char* condition, const char* file, int line,
                                           const char* message) {
  std::fprintf(stderr, "%s:%d: kernel precondition failed: %s: %s\n", file, line, condition,
               message);
  std::abort();
}

}  // namespace troupe

#define KERNEL_CHECK(condition, message)                                    \
  do {                                                                      \
    if (!(condition)) [[unlikely]] {                                        \
      ::troupe::KernelCheckFailed(#condition, __FILE__, __LINE__, message); \
    }                                                                       \
  } while (false)

// Where and how an op runs. Passed first to every op; cheap to copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tensor_view.h"

namespace troupe {

enum class Device : uint8_t { kCpu = 0, kCuda = 1 };

//   X1. An op allocates nothing once it has seen its shapes; scratch comes from `workspace`, whose
//       size the op's X…WorkspaceBytes function names. Ops without such a function need none.
//   X2. Two calls with equal Exec, shapes and bytes give equal bits, whatever else is running.
//   X3. `workspace` is 64-byte aligned and belongs to one op at a time.
struct Exec {
  Device device = Device::kCpu;
  void* stream = nullptr;      // cudaStream_t on kCuda; unused on kCpu
  bool specification = false;  // run the plain loops of <op>_cpu.cc; float64 always does
  int num_threads = 1;         // math threads of this call
  std::span<std::byte> workspace{};
};

// True where the plain loops must run: asked for, or a dtype that only they know.
inline bool RunsSpecification(const Exec& exec, DType dtype) {
  return exec.specification || dtype == DType::kFloat64;
}

}  // namespace troupe

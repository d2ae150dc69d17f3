// at_cpu_level LEVEL COMMAND…: runs a command with oneDNN, and the vector bodies with it, capped at
// a level of ONEDNN_MAX_CPU_ISA. A CPU that lacks the level is said, with exit code 77: ctest
// counts the suite as skipped.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <oneapi/dnnl/dnnl.hpp>

namespace {

struct Level {
  const char* name;
  dnnl::cpu_isa isa;
};

constexpr Level kLevels[] = {{"AVX2", dnnl::cpu_isa::avx2},
                             {"AVX512_CORE", dnnl::cpu_isa::avx512_core},
                             {"AVX512_CORE_BF16", dnnl::cpu_isa::avx512_core_bf16},
                             {"AVX512_CORE_AMX", dnnl::cpu_isa::avx512_core_amx}};

constexpr int kSkipped = 77;

}  // namespace

int main(int argc, char** argv) {
  for (const Level& level : kLevels) {
    if (argc < 3 || std::strcmp(argv[1], level.name) != 0) continue;
    setenv("ONEDNN_MAX_CPU_ISA", level.name, 1);
    // oneDNN reads the variable at its first question and answers for this CPU.
    if (dnnl::get_effective_cpu_isa() != level.isa) {
      std::printf("skipped: this CPU has no %s\n", level.name);
      return kSkipped;
    }
    execvp(argv[2], argv + 2);
    std::perror(argv[2]);
    return 127;
  }
  std::fprintf(stderr, "usage: at_cpu_level LEVEL COMMAND…; levels:");
  for (const Level& level : kLevels) std::fprintf(stderr, " %s", level.name);
  std::fprintf(stderr, "\n");
  return 2;
}

#include <fmt/format.h>

#include <cstdio>
#include <string_view>
#include <vector>

#include "tests/benchmark/bench.h"

namespace troupe::bench {
namespace {

struct Registered {
  std::string_view name;
  void (*run)(Bench&);
};
std::vector<Registered>& Blocks() {
  static std::vector<Registered> blocks;
  return blocks;
}

}  // namespace

Registration::Registration(std::string_view name, void (*run)(Bench&)) {
  Blocks().push_back({name, run});
}

}  // namespace troupe::bench

// Prints a line per comparison as it ends; `--jsonl` for programs, `--header` for the table's head.
// `--only WORD`: the blocks whose names have it.
int main(int argc, char** argv) {
  namespace bench = troupe::bench;
  bool jsonl = false;
  std::string_view only;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--header") {
      fmt::print("{}\n", bench::TableHeader());
    } else if (flag == "--jsonl") {
      jsonl = true;
    } else if (flag == "--only" && i + 1 < argc) {
      only = argv[++i];
    } else if (flag != "--no-header") {
      fmt::print(stderr, "{}: unknown flag {}\n", argv[0], flag);
      return 2;
    }
  }
  bench::Bench all([jsonl](const bench::Row& row) {
    fmt::print("{}\n", jsonl ? bench::RowJson(row) : bench::TableLine(row));
    std::fflush(stdout);
  });
  for (const auto& block : bench::Blocks()) {
    if (block.name.find(only) != block.name.npos) block.run(all);
  }
}

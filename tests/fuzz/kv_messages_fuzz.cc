#include <cstdint>

#include "tests/fuzz/entry_points.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::testing::FuzzKvMessages(std::as_bytes(std::span(data, size)));
  return 0;
}

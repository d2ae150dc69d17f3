#include "runtime/base/bytes_in_words.h"

#include <fmt/format.h>

namespace troupe {

std::string BytesInWords(double num_bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (num_bytes >= 1024 && unit < 4) {
    num_bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", num_bytes, unit == 0 || num_bytes >= 100 ? 0 : 1, kUnits[unit]);
}

}  // namespace troupe

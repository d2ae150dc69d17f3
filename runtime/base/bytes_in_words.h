// Counts of bytes as people read them.
#pragma once

#include <string>

namespace troupe {

std::string BytesInWords(double num_bytes);  // "1.9 MiB"

}  // namespace troupe

// The tokens that a rank reads: the data file, and which sample comes when.
#pragma once

#include "actors/plan/data_order.h"
#include "runtime/format/token_file.h"

namespace troupe {

struct TokenSource {
  TokenFile file;
  DataOrder order;
};

}  // namespace troupe

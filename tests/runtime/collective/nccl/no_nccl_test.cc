#include <gtest/gtest.h>

namespace troupe {
namespace {

TEST(NcclGroupTest, NeedsHeaders) {
  GTEST_SKIP() << "nccl.h or cuda_runtime.h was not found when this was built, or TROUPE_NCCL is "
                  "off: there is no NCCL backend here";
}

}  // namespace
}  // namespace troupe

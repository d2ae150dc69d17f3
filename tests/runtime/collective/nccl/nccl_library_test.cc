#include "runtime/collective/nccl/nccl_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/collective/nccl/nccl_stand_in.h"

namespace troupe {
namespace {

constexpr const char* kStandIn = TROUPE_NCCL_STAND_IN;

std::string ErrorOf(NcclLibraryFiles files) {
  const auto loaded = NcclLibrary::Load(std::move(files));
  return loaded.ok() ? "OK" : loaded.error().message;
}

TEST(NcclLibraryTest, ALibraryIsATableOfItsFunctions) {
  nccl_stand_in::Reset({});
  const auto library = NcclLibrary::Load({.nccl = kStandIn, .cuda_runtime = kStandIn});
  ASSERT_TRUE(library.ok()) << library.error().message;
  EXPECT_EQ(library->version, NCCL_VERSION_CODE);
  int count = 0;
  EXPECT_EQ(library->cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 8);
}

TEST(NcclLibraryTest, AMissingFileIsNamed) {
  EXPECT_THAT(ErrorOf({.nccl = "/nowhere/libnccl.so.2", .cuda_runtime = kStandIn}),
              ::testing::AllOf(::testing::StartsWith("NCCL: /nowhere/libnccl.so.2: cannot open"),
                               ::testing::HasSubstr("; install NCCL 2.")));
  EXPECT_THAT(ErrorOf({.nccl = kStandIn, .cuda_runtime = "libcudart.so.none"}),
              ::testing::StartsWith("NCCL: libcudart.so.none: cannot open"));
}

TEST(NcclLibraryTest, AnotherLibraryLacksTheFunctions) {
  EXPECT_EQ(ErrorOf({.nccl = "libm.so.6", .cuda_runtime = kStandIn}),
            "NCCL: libm.so.6 has no ncclGetVersion");
  EXPECT_EQ(ErrorOf({.nccl = kStandIn, .cuda_runtime = "libm.so.6"}),
            "NCCL: libm.so.6 has no cudaGetErrorString");
}

TEST(NcclLibraryTest, AnOldVersionIsRefused) {
  nccl_stand_in::Reset({});
  nccl_stand_in::SetVersion(21805);
  EXPECT_EQ(ErrorOf({.nccl = kStandIn, .cuda_runtime = kStandIn}),
            "NCCL: " + std::string(kStandIn) + " is version 2.18.5, and " +
                NcclVersionText(NCCL_VERSION_CODE) +
                " or later is needed: that is what this program was built with");
  nccl_stand_in::SetVersion(NCCL_VERSION_CODE + 200);
  EXPECT_EQ(ErrorOf({.nccl = kStandIn, .cuda_runtime = kStandIn}), "OK");
  nccl_stand_in::SetVersion(NCCL_VERSION_CODE);
}

}  // namespace
}  // namespace troupe

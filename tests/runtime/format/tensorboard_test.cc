#include "runtime/format/tensorboard.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::TemporaryFolder;

std::string Hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

// Bytes that TensorFlow's own writer makes for the same events.
constexpr const char* kVersionHex =
    "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a";
constexpr const char* kScalarHex =
    "1a00000000000000129bd82d09000000000000f03f10012a0d0a0b0a046c6f73731500002040269910bb";

TEST(TensorboardTest, CrcAgreesWithTheKnownAnswer) {
  EXPECT_EQ(Crc32c(BytesOf("123456789")), 0xe3069283u);
  EXPECT_EQ(MaskedCrc32c(BytesOf("123456789")), 0xc78ab0e5u);
}

TEST(TensorboardTest, RecordsAreTensorFlowsBytes) {
  EXPECT_EQ(Hex(TensorboardVersionRecord(1.0)), kVersionHex);
  EXPECT_EQ(Hex(TensorboardScalarRecord(1.0, 1, "loss", 2.5f)), kScalarHex);
}

class TensorboardFileTest : public ::testing::Test {
 protected:
  void Write(int64_t first_step, int64_t last_step, int64_t keep) {
    auto writer = *TensorboardWriter::Open(SystemFiles(), path_, 1.0, keep);
    for (int64_t step = first_step; step <= last_step; ++step) {
      ASSERT_TRUE(writer.AddScalar(1.0, step, "loss", 2.5).ok());
    }
    ASSERT_TRUE(writer.Close().ok());
  }
  static std::string Records(std::initializer_list<int64_t> steps) {
    std::string text = TensorboardVersionRecord(1.0);
    for (const int64_t step : steps) text += TensorboardScalarRecord(1.0, step, "loss", 2.5f);
    return text;
  }
  std::string Text() const { return *SystemFiles().ReadFile(path_, 1 << 20); }

  TemporaryFolder folder_;
  std::string path_ = folder_ / TensorboardFileName(1, "host");
};

TEST_F(TensorboardFileTest, AResumedRunKeepsNoLaterStep) {
  EXPECT_EQ(path_.substr(path_.rfind('/') + 1), "events.out.tfevents.1.host");
  Write(1, 300, 1000);
  Write(3, 4, 2);
  EXPECT_EQ(Text(), Records({1, 2, 3, 4}));
}

TEST_F(TensorboardFileTest, ATornRecordIsCutOff) {
  const std::string whole = Records({1, 2});
  for (size_t size = 0; size <= whole.size(); ++size) {
    ASSERT_TRUE(SystemFiles().RemoveAll(path_).ok());
    folder_.Write(TensorboardFileName(1, "host"), whole.substr(0, size));
    Write(9, 9, 1000);
    const std::string wanted = size == whole.size()          ? Records({1, 2, 9})
                               : size >= Records({1}).size() ? Records({1, 9})
                                                             : Records({9});
    ASSERT_EQ(Text(), wanted) << size;
  }
}

TEST_F(TensorboardFileTest, AFlippedByteEndsWhatIsKept) {
  const std::string whole = Records({1, 2});
  for (size_t i = Records({1}).size(); i < whole.size(); ++i) {
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x40);
    ASSERT_TRUE(SystemFiles().RemoveAll(path_).ok());
    folder_.Write(TensorboardFileName(1, "host"), flipped);
    Write(9, 9, 1000);
    ASSERT_EQ(Text(), Records({1, 9})) << i;
  }
}

}  // namespace
}  // namespace troupe

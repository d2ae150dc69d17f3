#include "runtime/base/digest.h"

#include <gtest/gtest.h>

#include "runtime/base/file_system.h"

namespace troupe {
namespace {

// What `xxhsum -H3` prints for the same bytes.
TEST(DigestTest, IsXxh3) {
  EXPECT_EQ(DigestText(DigestOf({})), "2d06800538d394c2");
  DigestStream pieces;
  pieces.Update(BytesOf("tra"));
  pieces.Update(BytesOf(""));
  pieces.Update(BytesOf("in"));
  EXPECT_EQ(pieces.value(), DigestOf(BytesOf("train")));
  EXPECT_NE(pieces.value(), DigestOf(BytesOf("trains")));
  EXPECT_EQ(DigestStream().value(), DigestOf({}));
}

TEST(DigestTest, TextIsReadBackExactly) {
  EXPECT_EQ(ParseDigest("00000000000000ff"), 255u);
  for (const char* text : {"", "ff", "00000000000000FF", "0x000000000000ff", "00000000000000fff",
                           "00000000000000fg"}) {
    EXPECT_FALSE(ParseDigest(text)) << text;
  }
}

}  // namespace
}  // namespace troupe

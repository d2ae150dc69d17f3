#include "runtime/format/content_identity.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::TemporaryFolder;

// A file of any length, without a disk: zeros but for one byte.
class Sparse : public ReadableFile {
 public:
  explicit Sparse(int64_t marked) : marked_(marked) {}
  Status ReadAt(int64_t begin, std::span<std::byte> out) const override {
    std::ranges::fill(out, std::byte{0});
    read_ += static_cast<int64_t>(out.size());
    const int64_t at = marked_ - begin;
    if (at >= 0 && at < static_cast<int64_t>(out.size()))
      out[static_cast<size_t>(at)] = std::byte{1};
    return {};
  }
  Result<FileVersion> Version() const override { return FileVersion{}; }
  int64_t read() const { return read_; }

 private:
  const int64_t marked_;
  mutable int64_t read_ = 0;
};

ContentIdentity Of(int64_t num_bytes, int64_t marked) {
  return *IdentityOf(Sparse(marked), num_bytes);
}

TEST(ContentIdentityTest, EveryByteOfAShortFileCounts) {
  const TemporaryFolder folder;
  const auto one = *IdentityOfFile(SystemFiles(), folder.Write("a", "some text"));
  EXPECT_EQ(one.num_bytes, 9);
  EXPECT_EQ(*IdentityOfFile(SystemFiles(), folder.Write("b", "some text")), one);
  EXPECT_NE(*IdentityOfFile(SystemFiles(), folder.Write("c", "some tex_")), one);
  EXPECT_NE(*IdentityOfFile(SystemFiles(), folder.Write("d", "some text ")), one);
  EXPECT_EQ(IdentityOfFile(SystemFiles(), folder / "none").error().code, ErrorCode::kNotFound);
}

TEST(ContentIdentityTest, OfALongFileTheEndsAndBlocksBetweenAreRead) {
  constexpr int64_t kBytes = int64_t{100} << 30;
  constexpr int64_t kDistance = (kBytes - (int64_t{2} << 20)) / 1024;
  const Sparse file(-1);
  const ContentIdentity plain = *IdentityOf(file, kBytes);
  EXPECT_LT(file.read(), int64_t{70} << 20) << "cheap for 100 GiB";
  EXPECT_NE(Of(kBytes, 0), plain);
  EXPECT_NE(Of(kBytes, kBytes - 1), plain);
  EXPECT_NE(Of(kBytes, (int64_t{1} << 20) + 500 * kDistance), plain);
  EXPECT_EQ(Of(kBytes, (int64_t{1} << 20) + 500 * kDistance + (1 << 17)), plain) << "not read";
  EXPECT_NE(*IdentityOf(file, kBytes + 1), plain) << "the length counts too";
}

TEST(ContentIdentityTest, AFolderIsItsWeights) {
  const TemporaryFolder folder;
  for (const std::string name : {"a", "b"}) {
    ASSERT_TRUE(SystemFiles().CreateDirectories(folder / name).ok());
    folder.Write(name + "/config.json", name);
    folder.Write(name + "/model-1.safetensors", "first");
    folder.Write(name + "/model-2.safetensors", "second");
  }
  const auto a = *IdentityOfWeights(SystemFiles(), folder / "a");
  EXPECT_EQ(a.num_bytes, 11);
  EXPECT_EQ(*IdentityOfWeights(SystemFiles(), folder / "b"), a);
  folder.Write("b/model-2.safetensors", "sec0nd");
  EXPECT_NE(*IdentityOfWeights(SystemFiles(), folder / "b"), a);
}

TEST(ContentIdentityTest, SaysWhatDiffers) {
  EXPECT_EQ(Difference({5, 1}, {5, 1}), "");
  EXPECT_EQ(Difference({5, 1}, {6, 1}), "had 5 bytes, has 6");
  EXPECT_EQ(Difference({5, 1}, {5, 2}),
            "has as many bytes as before (5), but others (xxh3 0000000000000002, was "
            "0000000000000001)");
}

}  // namespace
}  // namespace troupe

#include "runtime/format/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/base/file_system.h"
#include "runtime/format/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::TemporaryFolder;
using namespace std::string_literals;

TEST(FileKindTest, WeightsThatAreNoneAreNamedAsWhatTheyAre) {
  const TemporaryFolder folder;
  const std::pair<const char*, const char*> cases[] = {
      {"", "this is an empty file, not a safetensors file: copy or download it again"},
      {"version https://git-lfs.github.com/spec/v1\n",
       "this is a Git-LFS pointer, not a safetensors file: the file itself was not fetched"},
      {"<!doctype html>\n<html>", "this is a web page (HTML), not a safetensors file"},
      {"PK\x03\x04", "this is a zip archive"},
      {"some other bytes", "not a whole safetensors file"},
  };
  for (const auto& [bytes, said] : cases) {
    const auto file = SafetensorsFile::Open(SystemFiles(), folder.Write("m.safetensors", bytes));
    ASSERT_FALSE(file.ok());
    EXPECT_THAT(file.error().message, HasSubstr((folder / "m.safetensors: ") + said));
  }
  folder.Write("pytorch_model.bin", "x");
  ASSERT_TRUE(SystemFiles().RemoveAll(folder / "m.safetensors").ok());
  EXPECT_THAT(SafetensorsFolder::Open(SystemFiles(), folder.path()).error().message,
              HasSubstr("; there is a pytorch_model.bin: convert it to safetensors"));
}

TEST(FileKindTest, ShardsWithoutTheirIndexAreCounted) {
  const TemporaryFolder folder;
  folder.Write("model-00001-of-00002.safetensors", "x");
  folder.Write("model-00002-of-00002.safetensors", "x");
  const auto opened = SafetensorsFolder::Open(SystemFiles(), folder.path());
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.error().message,
              HasSubstr(folder.path() + ": there are 2 shards, as model-0000"));
  EXPECT_THAT(opened.error().message, HasSubstr("and no model.safetensors.index.json"));
}

TEST(FileKindTest, AnIndexThatIsNoneIsNamedAsWhatItIs) {
  const TemporaryFolder folder;
  folder.Write("model.safetensors.index.json", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(SafetensorsFolder::Open(SystemFiles(), folder.path()).error().message,
              HasSubstr("this is a Git-LFS pointer, not an index of shards"));
}

TEST(FileKindTest, AFolderHasTheTensorsThatItsIndexForgets) {
  const TemporaryFolder folder;
  const std::vector<TensorSpec> specs = {{"a", TensorDtype::kU8, {1}},
                                         {"b", TensorDtype::kU8, {1}}};
  auto writer = *SafetensorsWriter::Create(SystemFiles(), folder / "one.safetensors", specs);
  ASSERT_TRUE(writer.Append(BytesOf("xy")).ok());
  ASSERT_TRUE(writer.Finish().ok());
  folder.Write("model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors"}})");
  const auto opened = SafetensorsFolder::Open(SystemFiles(), folder.path());
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_THAT(opened->Names(), ::testing::ElementsAre("a", "b"));
}

}  // namespace
}  // namespace troupe

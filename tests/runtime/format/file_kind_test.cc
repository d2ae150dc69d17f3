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

std::string Said(const std::string& bytes) {
  const Status status = CheckIsText("/data.txt", BytesOf(bytes));
  return status.ok() ? "text" : status.error().message;
}

TEST(FileKindTest, WhatIsNoTextIsNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "an empty file"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a Git-LFS pointer"},
      {"\n <!DOCTYPE html><html></html>", "a web page (HTML)"},
      {"<html lang=en>", "a web page (HTML)"},
      {"\x93NUMPY\x01"s, "a NumPy array"},
      {"PK\x03\x04zz", "a zip archive"},
      {"\x1f\x8b\x08", "a gzip archive"},
      {"\x80\x04\x95", "a Python pickle"},
      {"PAR1....", "a Parquet table"},
      {R"({"version": "1.0", "truncation": null, "model": {}})", "JSON"},
      {"\xef\xbb\xbf { \"a\" : 1}", "JSON"},
      {R"([{"text": "x"}])", "JSON"},
      {"[1, 2, 3]", "JSON"},
      {"[\"a\\\"b\", 2]", "JSON"},
      {R"({"text": "one"})"
       "\n"
       R"({"text": "two"})",
       "JSON"},
      {"\x20\0\0\0\0\0\0\0{\"w\":{}}"s, "a safetensors file"},
      {"\xff\xfe"
       "a\0b\0"s,
       "text in UTF-16"},
      {"text and a \0 byte"s, "a binary file (byte 11 is zero)"},
      {std::string(100, '\xa0'),
       "a binary file, or text in another encoding (100 of its first 100"},
      {std::string(80, 'x') + std::string(20, '\x01'), "a binary file, or text in another"},
  };
  for (const auto& [bytes, what] : cases) {
    EXPECT_THAT(Said(bytes), HasSubstr("/data.txt: this is "s + what)) << bytes;
    EXPECT_THAT(Said(bytes), HasSubstr("data.format: bytes")) << bytes;
  }
}

TEST(FileKindTest, TextIsText) {
  std::string latin;
  for (int i = 0; i < 100; ++i) latin += "tr\xe8s bien, merci beaucoup. ";
  std::string long_text;  // a character lies across the end of what is looked at
  while (long_text.size() < (64 << 10) - 1) long_text += 'x';
  long_text += "\u20ac and more";
  for (const std::string& text :
       {"once upon a time"s, "Az\xff"s, latin, long_text, "[1] A footnote, and so on"s,
        "[[nodiscard]] int f();"s, "[Illustration: a ship]"s, "{ int x = 1; }"s, "{\"quote\"}"s,
        "\x1b[1mbold\x1b[0m\n\f"s, "<p>a fragment</p>"s, "[\"To be,\" he said]"s,
        "\u65e5\u672c\u8a9e"s, "-- a rule --"s}) {
    EXPECT_EQ(Said(text), "text");
  }
}

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

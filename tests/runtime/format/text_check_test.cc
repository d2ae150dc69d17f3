#include "runtime/format/text_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "runtime/base/check.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::TemporaryFolder;
using namespace std::string_literals;

std::string Repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::string Said(const std::string& bytes) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("data.txt", bytes);
  const auto file = SystemFiles().OpenForRead(path);
  CHECK(file.ok());
  const Status status = CheckIsText("/data.txt", **file, static_cast<int64_t>(bytes.size()));
  return status.ok() ? "text" : status.error().message;
}

TEST(TextCheckTest, WhatIsNoTextIsNamed) {
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
       "text in another encoding than UTF-8, or a binary file (byte 0 is 0xa0, and 99 more of the "
       "100 looked at are no UTF-8), not text: convert it, as with `iconv -f WINDOWS-1252 -t "
       "UTF-8`"},
      {std::string(80, 'x') + std::string(20, '\x01'),
       "a binary file (20 of the 100 bytes looked at are control characters, the first of them "
       "byte "
       "80)"},
      {Repeated("tr\xe8s bien, merci beaucoup. ", 100),
       "text in another encoding than UTF-8, or a binary file (byte 2 is 0xe8, and 99 more of the "
       "2700 looked at"},
      {Repeated("\x93It is so,\x94 she said, and went on to say much more of it. ", 500),
       "text in another encoding than UTF-8"},
      {"t\0e\0x\0t\0 \0a\0s\0 \0i\0t\0 \0i\0s\0"s, "text in UTF-16"},
      {std::string(2'000'000, 'x') + Repeated("\x01\x00\x80"s, 100'000), "a binary file (byte 20"},
      {std::string(257, 'f') + "ustar\0"s + std::string(300, '\0'), "a tar archive"},
      {"(lp0\nI1\naI2\na.", "a Python pickle"},
      {"(dp0\nVa\np1\nI1\ns.", "a Python pickle"},
      {"cnumpy.core.multiarray\n_reconstruct\np0\n", "a Python pickle"},
      {"ccollections\nOrderedDict\n(", "a Python pickle"},
      {"Vtext\np0\n.", "a Python pickle"},
  };
  for (const auto& [bytes, what] : cases) {
    EXPECT_THAT(Said(bytes), HasSubstr("/data.txt: this is "s + what)) << bytes;
    EXPECT_THAT(Said(bytes), HasSubstr("data.format: bytes")) << bytes;
  }
}

TEST(TextCheckTest, TextIsText) {
  std::string long_text;  // a character lies across the end of what is looked at
  while (long_text.size() < (64 << 10) - 1) long_text += 'x';
  long_text += "\u20ac and more";
  for (const std::string& text :
       {"once upon a time"s, "Az\xff"s, long_text, "[1] A footnote, and so on"s,
        "[[nodiscard]] int f();"s, "[Illustration: a ship]"s, "{ int x = 1; }"s, "{\"quote\"}"s,
        "\x1b[1mbold\x1b[0m\n\f"s, "<p>a fragment</p>"s, "[\"To be,\" he said]"s,
        "\u65e5\u672c\u8a9e"s, "-- a rule --"s, "(lp) said he\nand so on\n"s,
        "collections\nOrdered\nlists"s, "Verse\npoem\n"s, "<?xml version='1.0'?><a>b</a>"s,
        Repeated("na\u00efve caf\u00e9s. ", 400) + "\xff\xfe\xfd\xfc\xfb"s,
        Repeated("\u65e5\u672c\u8a9e", 400'000)}) {
    EXPECT_EQ(Said(text), "text");
  }
}

TEST(TextCheckTest, XmlIsKnown) {
  EXPECT_TRUE(BeginsAsXml("<mediawiki xmlns=\"x\">"));
  EXPECT_TRUE(BeginsAsXml("\xef\xbb\xbf\n<?xml version=\"1.0\"?>"));
  EXPECT_FALSE(BeginsAsXml("<p>a fragment</p>"));
}

}  // namespace
}  // namespace troupe

#include "runtime/format/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <vector>

#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

template <typename Token>
std::string BinOf(int32_t magic, int32_t version, int32_t count, std::vector<Token> tokens) {
  std::string file(1024, '\0');
  const int32_t header[] = {magic, version, count};
  std::memcpy(file.data(), header, sizeof(header));
  return file.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(Token));
}

std::vector<int32_t> TokensOf(const TokenFile& file, int64_t begin, int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  CHECK(file.Read(begin, count, tokens.data()).ok());
  return tokens;
}

TEST(TokenFileTest, TextIsBytes) {
  const TemporaryFolder folder;
  const auto file = TokenFile::Open(SystemFiles(), folder.Write("LICENCE", "Az\xff"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->num_tokens(), 3);
  EXPECT_EQ(file->vocab_size(), 256);
  EXPECT_THAT(TokensOf(*file, 0, 3), ElementsAre(65, 122, 255));
  EXPECT_DEATH(TokensOf(*file, 2, 2), "tokens");
}

TEST(TokenFileTest, ReadsBothFormsOfLlmC) {
  const TemporaryFolder folder;
  const auto narrow = TokenFile::Open(
      SystemFiles(), folder.Write("a.bin", BinOf<uint16_t>(20240520, 1, 3, {1, 50256, 7})));
  ASSERT_TRUE(narrow.ok()) << narrow.error().message;
  EXPECT_THAT(TokensOf(*narrow, 1, 2), ElementsAre(50256, 7));
  const auto wide = TokenFile::Open(
      SystemFiles(), folder.Write("b.bin", BinOf<uint32_t>(20240801, 7, 2, {128000, 5})));
  ASSERT_TRUE(wide.ok()) << wide.error().message;
  EXPECT_THAT(TokensOf(*wide, 0, 2), ElementsAre(128000, 5));
  EXPECT_TRUE(wide->CheckVocabulary(128001).ok());
  EXPECT_THAT(wide->CheckVocabulary(128000).error().message,
              HasSubstr("token 128000 at position 0 lies outside model.vocab_size = 128000"));
}

TEST(TokenFileTest, NegativeTokensAreOutsideEveryVocabulary) {
  const TemporaryFolder folder;
  const auto file = TokenFile::Open(
      SystemFiles(), folder.Write("a.bin", BinOf<uint32_t>(20240801, 7, 1, {0xffffffffu})));
  EXPECT_THAT(file->CheckVocabulary(100).error().message, HasSubstr("4294967295"));
}

TEST(TokenFileTest, AFormatThatIsGivenGoesBeforeTheName) {
  const TemporaryFolder folder;
  const std::string tokens = folder.Write("a.tokens", BinOf<uint16_t>(20240520, 1, 2, {300, 7}));
  EXPECT_THAT(TokenFile::Open(SystemFiles(), tokens).error().message,
              HasSubstr("a.tokens: this is a token file of llm.c, not text: give it as data.train, "
                        "with a name in .bin"));
  const auto read = TokenFile::Open(SystemFiles(), tokens, TokenFormat::kTokens);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_THAT(TokensOf(*read, 0, 2), ElementsAre(300, 7));
  const auto bytes = TokenFile::Open(SystemFiles(), folder.Write("b.bin", std::string("\0\xff", 2)),
                                     TokenFormat::kBytes);
  ASSERT_TRUE(bytes.ok()) << bytes.error().message;
  EXPECT_THAT(TokensOf(*bytes, 0, 2), ElementsAre(0, 255));
  EXPECT_EQ(bytes->vocab_size(), 256);
  EXPECT_EQ(*ParseTokenFormat("bytes"), TokenFormat::kBytes);
  EXPECT_FALSE(ParseTokenFormat("text").ok());
}

TEST(TokenFileTest, RefusesWhatIsNotOne) {
  const TemporaryFolder folder;
  const std::pair<std::string, const char*> cases[] = {
      {"short", "5 bytes are less than llm.c's header of 1024"},
      {BinOf<uint16_t>(7, 1, 0, {}), "magic 7 version 1 is no token file"},
      {BinOf<uint16_t>(20240520, 2, 0, {}), "magic 20240520 version 2 is no token file"},
      {BinOf<uint32_t>(20240801, 1, 0, {}), "magic 20240801 version 1 is no token file"},
      {BinOf<uint16_t>(20240520, 1, 3, {1, 2}), "promises 3 tokens of 2 bytes, 4 bytes follow"},
      {BinOf<uint16_t>(20240520, 1, 1, {1, 2}), "promises 1 tokens of 2 bytes"},
      {BinOf<uint16_t>(20240520, 1, -1, {}), "promises -1 tokens"},
  };
  for (const auto& [bytes, problem] : cases) {
    const auto file = TokenFile::Open(SystemFiles(), folder.Write("x.bin", bytes));
    ASSERT_FALSE(file.ok()) << problem;
    EXPECT_EQ(file.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(file.error().message, HasSubstr(problem));
  }
  EXPECT_EQ(TokenFile::Open(SystemFiles(), folder / "no.txt").error().code, ErrorCode::kNotFound);
}

// Whoever writes over the text of a running job hears of it from the run.
TEST(TokenFileTest, ATextThatChangesWhileItIsReadIsNamed) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("text.txt", "0123456789");
  auto file = *TokenFile::Open(SystemFiles(), path);
  ASSERT_TRUE(file.Identify().ok());
  EXPECT_TRUE(file.CheckUnchanged().ok());
  const auto touched = [&](const std::string& text) {
    folder.Write("text.txt", text);
    std::filesystem::last_write_time(
        path, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
    return file.CheckUnchanged();
  };
  EXPECT_TRUE(touched("0123456789").ok()) << "a new time alone is no change";
  EXPECT_TRUE(touched("0123456789 and more").ok()) << "what is read is still there";
  EXPECT_THAT(touched("0123456x89").error().message,
              HasSubstr(path + ": was written over while it is read"));
  const Status cut = touched("0123");
  EXPECT_EQ(cut.error().code, ErrorCode::kIo);
  EXPECT_THAT(cut.error().message, HasSubstr(path + ": was cut from 10 to 4 bytes"));
  int32_t token = 0;
  EXPECT_TRUE(file.Read(3, 1, &token).ok());
  EXPECT_THAT(file.Read(4, 1, &token).error().message, HasSubstr(path + ": ends at byte 4"));
  // One that takes its place under its name is another file.
  auto replaced = *TokenFile::Open(SystemFiles(), folder.Write("b.txt", "abc"));
  ASSERT_TRUE(SystemFiles().Rename(folder.Write("c.txt", "xyz"), folder / "b.txt").ok());
  EXPECT_TRUE(replaced.CheckUnchanged().ok());
  EXPECT_THAT(TokensOf(replaced, 0, 3), ElementsAre('a', 'b', 'c'));
}

TEST(TokenFileTest, ADiskThatFailsIsASentence) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("text.txt", "0123456789");
  testing::FaultyFileSystem broken({.fail_read = 1});
  EXPECT_EQ(TokenFile::Open(broken, path).error().message, path + ": cannot read: injected fault");
  testing::FaultyFileSystem breaks({.fail_read = 2});
  const auto file = *TokenFile::Open(breaks, path);
  int32_t token = 0;
  EXPECT_EQ(file.Read(0, 1, &token).error().message, path + ": cannot read: injected fault");
}

TEST(CountSamplesTest, LeavesALabelForEveryToken) {
  const TemporaryFolder folder;
  const auto file = *TokenFile::Open(SystemFiles(), folder.Write("a.txt", "123456789"));
  EXPECT_EQ(*CountSamples(file, 4), 2);
  EXPECT_EQ(*CountSamples(file, 8), 1);
  const auto none = CountSamples(file, 9);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(none.error().message,
              HasSubstr("has 9 tokens, a sample needs batch.seq_len + 1 = 10"));
  const auto empty =
      *TokenFile::Open(SystemFiles(), folder.Write("b.txt", ""), TokenFormat::kBytes);
  EXPECT_FALSE(CountSamples(empty, 1).ok());
}

}  // namespace
}  // namespace troupe

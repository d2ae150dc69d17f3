// TokenFile: tokens of a training text, read as they are asked for. A name that ends in .bin is
// llm.c's format (256 int32 words {magic, version, count}, then uint16 or uint32 tokens); any other
// file is text, one token per byte, and refused where it is none. A format that is given goes
// before the name. Used by the data loader of every rank that holds the embedding or the head;
// reading is thread-safe. Not mapped: a file that is cut while it is read is an error.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"
#include "runtime/format/content_identity.h"

namespace troupe {

enum class TokenFormat : uint8_t {
  kAuto,    // by the name's ending
  kBytes,   // one token per byte, whatever they are
  kTokens,  // llm.c's, whatever the name
};
// "auto" or nothing, "bytes", "tokens"; kInvalidSpec for any other word.
Result<TokenFormat> ParseTokenFormat(std::string_view word);
bool BytesAreTokens(TokenFormat format, std::string_view path);

class TokenFile {
 public:
  static Result<TokenFile> Open(FileSystem& files, const std::string& path,
                                TokenFormat format = TokenFormat::kAuto);

  int64_t num_tokens() const { return num_tokens_; }
  // 256 for bytes; 0 where the file does not say.
  int32_t vocab_size() const { return vocab_size_; }
  const std::string& path() const { return path_; }

  // Copies tokens [begin, begin+count) to `out`; the range must lie inside.
  Status Read(int64_t begin, int64_t count, int32_t* out) const;

  // What the file holds, as it was opened; later calls of CheckUnchanged compare with it.
  Result<ContentIdentity> Identify();
  // Fails where the file's content is no longer what it was, with what to do. A new time of writing
  // alone is no change. One thread at a time.
  Status CheckUnchanged();

  // Fails where a token is not below `vocab_size`: an embedding row that does not exist. Reads all.
  Status CheckVocabulary(int32_t vocab_size) const;

 private:
  std::string path_;
  std::shared_ptr<const ReadableFile> file_;
  FileVersion version_{};  // seen last
  int64_t num_bytes_ = 0;  // as it was opened
  std::optional<ContentIdentity> identity_{};
  int64_t data_begin_ = 0;   // bytes
  int32_t token_bytes_ = 1;  // 1, 2 or 4
  int64_t num_tokens_ = 0;
  int32_t vocab_size_ = 0;
};

// Samples of seq_len tokens with labels shifted by one: floor((tokens-1)/seq_len). An error with
// the path, the counts and a remedy when there is not one.
Result<int64_t> CountSamples(const TokenFile& file, int64_t seq_len);

}  // namespace troupe

#include "runtime/format/token_file.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/check.h"
#include "runtime/format/file_kind.h"

namespace troupe {
namespace {

// llm.c's .bin: 256 int32 words {magic, version, count}, then the tokens.
constexpr int64_t kHeaderBytes = int64_t{256} * 4;
constexpr int32_t kMagicU16 = 20240520;
constexpr int32_t kVersionU16 = 1;
constexpr int32_t kMagicU32 = 20240801;
constexpr int32_t kVersionU32 = 7;

int32_t Word(std::span<const std::byte> bytes, int64_t index) {
  int32_t word = 0;
  std::memcpy(&word, bytes.data() + index * 4, sizeof(word));
  return word;
}

}  // namespace

Result<TokenFormat> ParseTokenFormat(std::string_view word) {
  if (word.empty() || word == "auto") return TokenFormat::kAuto;
  if (word == "bytes") return TokenFormat::kBytes;
  if (word == "tokens") return TokenFormat::kTokens;
  return MakeError(ErrorCode::kInvalidSpec, "use auto (by the name's ending), bytes or tokens");
}

bool BytesAreTokens(TokenFormat format, std::string_view path) {
  return format == TokenFormat::kAuto ? !path.ends_with(".bin") : format == TokenFormat::kBytes;
}

Result<TokenFile> TokenFile::Open(FileSystem& files, const std::string& path, TokenFormat format) {
  TokenFile file;
  file.path_ = path;
  ASSIGN_OR_RETURN(file.mapping_, files.MapReadOnly(path));
  const std::span<const std::byte> bytes = file.mapping_.bytes();
  const auto num_bytes = static_cast<int64_t>(bytes.size());
  if (BytesAreTokens(format, path)) {
    if (format == TokenFormat::kAuto) RETURN_IF_ERROR(CheckIsText(path, bytes));
    file.num_tokens_ = num_bytes;
    file.vocab_size_ = 256;
    return file;
  }
  const auto refuse = [&](Error error) {
    return NamedAsWhatItIs(path, bytes, "a token file of llm.c", std::move(error));
  };
  if (num_bytes < kHeaderBytes) {
    return refuse(
        MakeError(ErrorCode::kCorrupt,
                  "{}: {} bytes are less than llm.c's header of {}: is it a .bin of llm.c?", path,
                  num_bytes, kHeaderBytes));
  }
  const int32_t magic = Word(bytes, 0);
  const int32_t version = Word(bytes, 1);
  const int64_t count = Word(bytes, 2);
  if (magic == kMagicU16 && version == kVersionU16) {
    file.token_bytes_ = 2;
  } else if (magic == kMagicU32 && version == kVersionU32) {
    file.token_bytes_ = 4;
  } else {
    return refuse(MakeError(ErrorCode::kCorrupt,
                            "{}: magic {} version {} is no token file of llm.c ({} version {}, or "
                            "{} version {})",
                            path, magic, version, kMagicU16, kVersionU16, kMagicU32, kVersionU32));
  }
  file.data_begin_ = kHeaderBytes;
  if (count < 0 || num_bytes != kHeaderBytes + count * file.token_bytes_) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: the header promises {} tokens of {} bytes, {} bytes follow it: make the "
                     "file again",
                     path, count, file.token_bytes_, num_bytes - kHeaderBytes);
  }
  file.num_tokens_ = count;
  return file;
}

void TokenFile::Read(int64_t begin, int64_t count, int32_t* out) const {
  CHECK(begin >= 0 && count >= 0 && begin + count <= num_tokens_, "tokens {}..{} of {} in {}",
        begin, begin + count, num_tokens_, path_);
  const std::byte* from = mapping_.bytes().data() + data_begin_ + begin * token_bytes_;
  for (int64_t i = 0; i < count; ++i, from += token_bytes_) {
    uint32_t token = 0;
    std::memcpy(&token, from, static_cast<size_t>(token_bytes_));
    out[i] = static_cast<int32_t>(token);
  }
}

Status TokenFile::CheckVocabulary(int32_t vocab_size) const {
  if (token_bytes_ == 1 && vocab_size >= 256) return {};
  constexpr int64_t kChunk = 4096;
  int32_t tokens[kChunk];
  for (int64_t begin = 0; begin < num_tokens_; begin += kChunk) {
    const int64_t count = std::min(kChunk, num_tokens_ - begin);
    Read(begin, count, tokens);
    for (int64_t i = 0; i < count; ++i) {
      if (tokens[i] >= 0 && tokens[i] < vocab_size) continue;
      return MakeError(ErrorCode::kInvalidSpec,
                       "{}: token {} at position {} lies outside model.vocab_size = {}", path_,
                       static_cast<uint32_t>(tokens[i]), begin + i, vocab_size);
    }
  }
  return {};
}

Result<int64_t> CountSamples(const TokenFile& file, int64_t seq_len) {
  const int64_t samples = (file.num_tokens() - 1) / seq_len;
  if (file.num_tokens() >= 1 && samples >= 1) return samples;
  return MakeError(ErrorCode::kInvalidSpec,
                   "{} has {} tokens, a sample needs batch.seq_len + 1 = {}: use a longer file or "
                   "a shorter seq_len",
                   file.path(), file.num_tokens(), seq_len + 1);
}

}  // namespace troupe

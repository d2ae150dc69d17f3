#include "runtime/format/token_file.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/format/file_kind.h"
#include "runtime/format/text_check.h"

namespace troupe {
namespace {

// llm.c's .bin: 256 int32 words {magic, version, count}, then the tokens.
constexpr int64_t kHeaderBytes = int64_t{256} * 4;
constexpr int32_t kMagicU16 = 20240520;
constexpr int32_t kVersionU16 = 1;
constexpr int32_t kMagicU32 = 20240801;
constexpr int32_t kVersionU32 = 7;

constexpr int64_t kPieceBytes = int64_t{256} << 10;

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
  ASSIGN_OR_RETURN(file.file_, files.OpenForRead(path));
  ASSIGN_OR_RETURN(file.version_, file.file_->Version());
  const int64_t num_bytes = file.num_bytes_ = file.version_.num_bytes;
  if (BytesAreTokens(format, path)) {
    if (format == TokenFormat::kAuto) {
      RETURN_IF_ERROR(CheckIsText(path, *file.file_, num_bytes));
    }
    file.num_tokens_ = num_bytes;
    file.vocab_size_ = 256;
    return file;
  }
  std::vector<std::byte> bytes(static_cast<size_t>(std::min(num_bytes, kHeaderBytes)));
  RETURN_IF_ERROR(file.file_->ReadAt(0, bytes));
  const auto refuse = [&](Error error) {
    return NamedAsWhatItIs(path, bytes, kTokensName, std::move(error));
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

Status TokenFile::Read(int64_t begin, int64_t count, int32_t* out) const {
  CHECK(begin >= 0 && count >= 0 && begin + count <= num_tokens_, "tokens {}..{} of {} in {}",
        begin, begin + count, num_tokens_, path_);
  // The narrow tokens lie at the end of the wide ones' room, and are widened from the front.
  const auto narrow = std::as_writable_bytes(std::span(out, static_cast<size_t>(count)))
                          .last(static_cast<size_t>(count * token_bytes_));
  RETURN_IF_ERROR(file_->ReadAt(data_begin_ + begin * token_bytes_, narrow));
  const std::byte* from = narrow.data();
  for (int64_t i = 0; i < count; ++i, from += token_bytes_) {
    uint32_t token = 0;
    std::memcpy(&token, from, static_cast<size_t>(token_bytes_));
    out[i] = static_cast<int32_t>(token);
  }
  return {};
}

Result<ContentIdentity> TokenFile::Identify() {
  ASSIGN_OR_RETURN(identity_, IdentityOf(*file_, num_bytes_));
  return *identity_;
}

Status TokenFile::CheckUnchanged() {
  ASSIGN_OR_RETURN(const FileVersion now, file_->Version());
  if (now == version_) return {};
  constexpr std::string_view kRemedy =
      "put it back as it was and go on with --resume, and copy what is to change";
  if (now.num_bytes < num_bytes_) {
    return MakeError(ErrorCode::kIo, "{}: was cut from {} to {} bytes while it is read: {}", path_,
                     num_bytes_, now.num_bytes, kRemedy);
  }
  ASSIGN_OR_RETURN(const ContentIdentity content, IdentityOf(*file_, num_bytes_));
  if (identity_ && content != *identity_) {
    return MakeError(ErrorCode::kIo, "{}: was written over while it is read: {}", path_, kRemedy);
  }
  version_ = now;
  return {};
}

Status TokenFile::CheckVocabulary(int32_t vocab_size) const {
  if (token_bytes_ == 1 && vocab_size >= 256) return {};
  std::vector<int32_t> tokens(kPieceBytes / sizeof(int32_t));
  const auto chunk = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin < num_tokens_; begin += chunk) {
    const int64_t count = std::min(chunk, num_tokens_ - begin);
    RETURN_IF_ERROR(Read(begin, count, tokens.data()));
    for (int64_t i = 0; i < count; ++i) {
      const int32_t token = tokens[static_cast<size_t>(i)];
      if (token >= 0 && token < vocab_size) continue;
      return MakeError(ErrorCode::kInvalidSpec,
                       "{}: token {} at position {} lies outside model.vocab_size = {}", path_,
                       static_cast<uint32_t>(token), begin + i, vocab_size);
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

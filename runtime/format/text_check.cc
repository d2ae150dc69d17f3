#include "runtime/format/text_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "runtime/base/utf8.h"
#include "runtime/format/file_kind.h"

namespace troupe {
namespace {

using namespace std::string_view_literals;

constexpr int64_t kHeadBytes = int64_t{64} << 10;
constexpr int64_t kPieceBytes = int64_t{16} << 10;
constexpr int64_t kPieces = 60;  // beside the head
constexpr std::string_view kConvert = "convert it, as with `iconv -f UTF-16 -t UTF-8`";

void SkipSpace(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
}

// Takes a string literal or a number off the front; false where there is none.
bool TakeJsonScalar(std::string_view& text) {
  if (text.starts_with('"')) {
    size_t end = 1;
    while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
    if (end >= text.size()) return false;
    text.remove_prefix(end + 1);
    return true;
  }
  const size_t end = std::min(text.find_first_not_of("-+.eE0123456789"), text.size());
  text.remove_prefix(end);
  return end > 0;
}

// An object with a first key, or a list whose first value is one, another list, or a scalar that a
// comma follows.
bool IsJson(std::string_view text) {
  text = WithoutFront(text);
  while (text.starts_with('[')) {
    text.remove_prefix(1);
    SkipSpace(text);
    if (text.starts_with('{') || text.starts_with('[')) continue;
    if (!TakeJsonScalar(text)) return false;
    SkipSpace(text);
    return text.starts_with(',');
  }
  if (!text.starts_with('{')) return false;
  text.remove_prefix(1);
  SkipSpace(text);
  if (!text.starts_with('"') || !TakeJsonScalar(text)) return false;
  SkipSpace(text);
  return text.starts_with(':');
}

// By the file's beginning.
std::optional<FileKind> RecognizeNoText(std::string_view head) {
  if (const auto known = RecognizeFile(std::as_bytes(std::span(head)))) return known;
  if (IsJson(head)) return FileKind{"JSON", "write the texts in it to a file of their own"};
  if (head.starts_with("\xff\xfe"sv) || head.starts_with("\xfe\xff"sv)) {
    return FileKind{"text in UTF-16", kConvert};
  }
  return std::nullopt;
}

// Zeros at every other byte, as letters have in UTF-16.
bool IsUtf16(std::string_view piece) {
  size_t zeros[2] = {};
  for (size_t i = 0; i < piece.size(); ++i) zeros[i % 2] += piece[i] == '\0' ? 1 : 0;
  const auto [fewer, more] = std::minmax(zeros[0], zeros[1]);
  return more * 4 > piece.size() && fewer * 10 < more;
}

Error NoText(const std::string& path, std::string_view what, std::string_view remedy) {
  return MakeError(ErrorCode::kInvalidSpec,
                   "{}: this is {}, not text: {}; data.format: bytes trains on its bytes as they "
                   "are",
                   path, what, remedy);
}

// What pieces of a file have that text in UTF-8 has not.
class Sample {
 public:
  explicit Sample(const std::string& path) : path_(path) {}

  // `begin` is the piece's first byte in the file. A zero is enough.
  Status Add(int64_t begin, std::string_view piece, bool is_last) {
    size_t at = 0;
    while (begin > 0 && at < std::min<size_t>(3, piece.size()) && (piece[at] & 0xc0) == 0x80) ++at;
    while (at < piece.size()) {
      if (piece[at] == '\0') return Zero(begin + static_cast<int64_t>(at), piece);
      const size_t length = Utf8CharacterBytes(piece, at);
      const auto byte = static_cast<unsigned char>(piece[at]);
      const bool cut_off = length == 0 && !is_last && piece.size() - at < 4;
      if (length == 0 && !cut_off && odd_++ == 0) {
        first_odd_at_ = begin + static_cast<int64_t>(at);
        first_odd_ = byte;
      }
      wide_ += length > 1 ? 1 : 0;
      constexpr std::string_view kOfText = "\t\n\v\f\r\b\x1b";
      const bool control = byte < 0x20 && kOfText.find(piece[at]) == std::string_view::npos;
      if (control && controls_++ == 0) first_control_at_ = begin + static_cast<int64_t>(at);
      at += std::max<size_t>(length, 1);
    }
    num_bytes_ += static_cast<int64_t>(piece.size());
    return {};
  }

  Status Verdict() const {
    constexpr int64_t kNoiseMin = 16;  // a text of the net may well have a few
    if (controls_ >= kNoiseMin && controls_ * 100 > num_bytes_) {
      return NoText(path_,
                    fmt::format("a binary file ({} of the {} bytes looked at are control "
                                "characters, the first of them byte {})",
                                controls_, num_bytes_, first_control_at_),
                    "give a text in UTF-8");
    }
    constexpr int64_t kStrayMin = 4;
    const bool noisy = odd_ >= kNoiseMin && odd_ * 100 > num_bytes_;
    const bool other = odd_ >= kStrayMin && odd_ > wide_ && odd_ * 10'000 > num_bytes_;
    if (!noisy && !other) return {};
    return NoText(path_,
                  fmt::format("text in another encoding than UTF-8, or a binary file (byte {} is "
                              "{:#04x}, and {} more of the {} looked at are no UTF-8)",
                              first_odd_at_, first_odd_, odd_ - 1, num_bytes_),
                  "convert it, as with `iconv -f WINDOWS-1252 -t UTF-8` if that is what it is in");
  }

 private:
  Error Zero(int64_t at, std::string_view piece) const {
    if (IsUtf16(piece)) return NoText(path_, "text in UTF-16", kConvert);
    return NoText(path_, fmt::format("a binary file (byte {} is zero)", at),
                  "give a text in UTF-8");
  }

  const std::string& path_;
  int64_t num_bytes_ = 0;
  int64_t controls_ = 0;
  int64_t first_control_at_ = 0;
  int64_t odd_ = 0;   // bytes that are no UTF-8
  int64_t wide_ = 0;  // characters of more than one byte
  int64_t first_odd_at_ = 0;
  unsigned char first_odd_ = 0;
};

}  // namespace

Status CheckIsText(const std::string& path, const ReadableFile& file, int64_t num_bytes) {
  std::vector<std::byte> bytes;
  const auto read = [&](int64_t begin, int64_t count) -> Result<std::string_view> {
    bytes.resize(static_cast<size_t>(count));
    RETURN_IF_ERROR(file.ReadAt(begin, bytes));
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  const int64_t head_bytes = std::min(num_bytes, kHeadBytes);
  ASSIGN_OR_RETURN(const std::string_view head, read(0, head_bytes));
  if (const auto kind = RecognizeNoText(head)) return NoText(path, kind->name, kind->remedy);
  Sample sample(path);
  RETURN_IF_ERROR(sample.Add(0, head, head_bytes == num_bytes));
  const int64_t rest = num_bytes - head_bytes;
  const int64_t pieces = std::min(kPieces, (rest + kPieceBytes - 1) / kPieceBytes);
  for (int64_t i = 0; i < pieces; ++i) {
    // The last one ends with the file.
    const int64_t count = std::min(kPieceBytes, rest);
    const int64_t begin = head_bytes + (pieces == 1 ? 0 : (rest - count) * i / (pieces - 1));
    ASSIGN_OR_RETURN(const std::string_view piece, read(begin, count));
    RETURN_IF_ERROR(sample.Add(begin, piece, i + 1 == pieces));
  }
  return sample.Verdict();
}

bool BeginsAsXml(std::string_view head) {
  const std::string_view begin = WithoutFront(head);
  return begin.starts_with("<?xml") || begin.starts_with("<mediawiki");
}

}  // namespace troupe

#include "runtime/format/file_kind.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "runtime/base/utf8.h"

namespace troupe {
namespace {

using namespace std::string_view_literals;

constexpr size_t kHeadBytes = size_t{64} << 10;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

struct MagicRow {
  std::string_view magic;
  FileKind kind;
};
constexpr std::string_view kUnpack = "unpack it";
constexpr std::string_view kExport = "write its text to a file of its own";
constexpr std::string_view kConvert = "convert it to safetensors";
constexpr MagicRow kMagics[] = {
    {"version https://git-lfs"sv,
     {"a Git-LFS pointer",
      "the file itself was not fetched; run `git lfs pull` in its repository"}},
    {"\x93NUMPY"sv, {"a NumPy array (.npy)", "write its tokens as a .bin of llm.c"}},
    {"PK\x03\x04"sv, {"a zip archive (as .npz and PyTorch's .pt are)", "unpack or convert it"}},
    {"\x1f\x8b"sv, {"a gzip archive", kUnpack}},
    {"\x28\xb5\x2f\xfd"sv, {"a zstd archive", kUnpack}},
    {"\xfd\x37zXZ"sv, {"an xz archive", kUnpack}},
    {"BZh"sv, {"a bzip2 archive", kUnpack}},
    {"7z\xbc\xaf"sv, {"a 7z archive", kUnpack}},
    {"Rar!"sv, {"a rar archive", kUnpack}},
    {"PAR1"sv, {"a Parquet table", kExport}},
    {"ARROW1"sv, {"an Arrow table", kExport}},
    {"\xff\xff\xff\xff"sv, {"an Arrow stream", kExport}},
    {"SQLite format 3"sv, {"a SQLite database", kExport}},
    {"\x89HDF"sv, {"an HDF5 file", kExport}},
    {"GGUF"sv, {"a GGUF file", kConvert}},
    {"%PDF-"sv, {"a PDF", kExport}},
    {"\x7f"
     "ELF"sv,
     {"a program", "give another file"}},
    {"\x89PNG"sv, {"a picture", "give another file"}},
    {"\xff\xd8\xff"sv, {"a picture", "give another file"}},
};

std::string_view TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void SkipSpace(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
}

// Without a byte order mark and spaces in front.
std::string_view Begin(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  SkipSpace(text);
  return text;
}

bool BeginsWithTag(std::string_view text, std::string_view tag) {
  return text.size() >= tag.size() &&
         std::ranges::equal(text.substr(0, tag.size()), tag, {},
                            [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
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
  text = Begin(text);
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

// Of bytes that should be text; `head` is the file's beginning.
std::optional<FileKind> RecognizeNoText(std::string_view head) {
  if (const auto known = RecognizeFile(std::as_bytes(std::span(head)))) return known;
  if (IsJson(head)) return FileKind{"JSON", "write the texts in it to a file of their own"};
  // A safetensors header is JSON after its length; llm.c's token files begin with these words.
  if (head.size() > 9 && head.substr(4, 6) == "\0\0\0\0{\""sv) {
    return FileKind{"a safetensors file", "give the text instead"};
  }
  if (head.starts_with("\x88\xd8\x34\x01"sv) || head.starts_with("\xa1\xd9\x34\x01"sv)) {
    return FileKind{"a token file of llm.c", "give it a name in .bin, or set data.format: tokens"};
  }
  if (head.starts_with("\xff\xfe"sv) || head.starts_with("\xfe\xff"sv)) {
    return FileKind{"text in UTF-16", "save it as UTF-8"};
  }
  return std::nullopt;
}

}  // namespace

std::optional<FileKind> RecognizeFile(std::span<const std::byte> file) {
  const std::string_view text = TextOf(file.first(std::min(file.size(), kHeadBytes)));
  if (text.empty()) return FileKind{"an empty file", "copy or download it again"};
  for (const MagicRow& row : kMagics) {
    if (text.starts_with(row.magic)) return row.kind;
  }
  if (text.size() > 1 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5) {
    return FileKind{"a Python pickle (as PyTorch's older files are)", "convert it"};
  }
  const std::string_view begin = Begin(text);
  if (BeginsWithTag(begin, "<!doctype html") || BeginsWithTag(begin, "<html")) {
    return FileKind{"a web page (HTML)", "download the file that the page is about"};
  }
  return std::nullopt;
}

Error NamedAsWhatItIs(const std::string& path, std::span<const std::byte> file,
                      std::string_view wanted, Error otherwise) {
  const auto kind = RecognizeFile(file);
  if (!kind) return otherwise;
  otherwise.message =
      fmt::format("{}: this is {}, not {}: {}", path, kind->name, wanted, kind->remedy);
  return otherwise;
}

Status CheckIsText(const std::string& path, std::span<const std::byte> file) {
  constexpr size_t kOddMin = 16;    // a short text may well have a few
  constexpr size_t kOddShare = 10;  // text in Latin-1 has one in twenty
  const auto refuse = [&path](std::string_view what, std::string_view remedy) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{}: this is {}, not text: {}; data.format: bytes trains on its bytes as they "
                     "are",
                     path, what, remedy);
  };
  const std::string_view head = TextOf(file.first(std::min(file.size(), kHeadBytes)));
  if (const auto kind = RecognizeNoText(head)) return refuse(kind->name, kind->remedy);
  size_t odd = 0;
  for (size_t at = 0; at < head.size();) {
    if (head[at] == '\0') {
      return refuse(fmt::format("a binary file (byte {} is zero)", at), "give a text in UTF-8");
    }
    const size_t length = Utf8CharacterBytes(head, at);
    const bool cut_off = length == 0 && head.size() < file.size() && head.size() - at < 4;
    const auto byte = static_cast<unsigned char>(head[at]);
    const bool control = byte < 0x20 && std::string_view("\t\n\v\f\r\b\x1b").find(head[at]) ==
                                            std::string_view::npos;
    odd += (length == 0 && !cut_off) || control ? 1 : 0;
    at += std::max<size_t>(length, 1);
  }
  if (odd < kOddMin || odd * kOddShare <= head.size()) return {};
  return refuse(fmt::format("a binary file, or text in another encoding ({} of its first {} bytes "
                            "are not UTF-8)",
                            odd, head.size()),
                "save it as UTF-8");
}

}  // namespace troupe

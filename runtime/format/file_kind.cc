#include "runtime/format/file_kind.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace troupe {
namespace {

using namespace std::string_view_literals;

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

bool BeginsWithTag(std::string_view text, std::string_view tag) {
  return text.size() >= tag.size() &&
         std::ranges::equal(text.substr(0, tag.size()), tag, {},
                            [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
}

// Takes a line off the front.
std::string_view TakeLine(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

bool IsWord(std::string_view word, std::string_view also) {
  return !word.empty() && std::ranges::all_of(word, [also](unsigned char c) {
    return std::isalnum(c) != 0 || also.find(static_cast<char>(c)) != std::string_view::npos;
  });
}

// "p0", which puts what came before into the pickle's memory.
bool IsPut(std::string_view line) {
  return line.starts_with('p') && line.size() > 1 &&
         line.find_first_not_of("0123456789", 1) == std::string_view::npos;
}

// Protocol 0 is text of one instruction a line, 1 the same with some in binary.
bool IsOldPickle(std::string_view text) {
  if (text.starts_with("]q\0"sv) || text.starts_with("}q\0"sv)) return true;
  const std::string_view first = TakeLine(text);
  if (first.starts_with("(lp") || first.starts_with("(dp")) return IsPut(first.substr(2));
  const std::string_view second = TakeLine(text);
  if (first.starts_with('V') || first.starts_with('S')) return IsPut(second);
  // A global: module, then name.
  return first.starts_with('c') && IsWord(first.substr(1), "_.") && IsWord(second, "_") &&
         (text.starts_with('(') || IsPut(TakeLine(text)));
}

}  // namespace

std::string_view WithoutFront(std::string_view text) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  return text;
}

std::optional<FileKind> RecognizeFile(std::span<const std::byte> file) {
  const std::string_view text = TextOf(file);
  if (text.empty()) return FileKind{"an empty file", "copy or download it again"};
  for (const MagicRow& row : kMagics) {
    if (text.starts_with(row.magic)) return row.kind;
  }
  constexpr size_t kTarMagicAt = 257;
  if (text.size() > kTarMagicAt && text.substr(kTarMagicAt).starts_with("ustar")) {
    return FileKind{"a tar archive", kUnpack};
  }
  // Its header is JSON after a length.
  if (text.size() > 9 && text.substr(4, 6) == "\0\0\0\0{\""sv) {
    return FileKind{kSafetensorsName, "weights are for model.init_from"};
  }
  if (text.starts_with("\x88\xd8\x34\x01"sv) || text.starts_with("\xa1\xd9\x34\x01"sv)) {
    return FileKind{kTokensName,
                    "give it as data.train, with a name in .bin or data.format: tokens"};
  }
  if ((text.size() > 1 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5) || IsOldPickle(text)) {
    return FileKind{"a Python pickle (as PyTorch's older files are)", "convert it"};
  }
  const std::string_view begin = WithoutFront(text);
  if (BeginsWithTag(begin, "<!doctype html") || BeginsWithTag(begin, "<html")) {
    return FileKind{"a web page (HTML)", "download the file that the page is about"};
  }
  return std::nullopt;
}

Error NamedAsWhatItIs(const std::string& path, std::span<const std::byte> file,
                      std::string_view wanted, Error otherwise) {
  const auto kind = RecognizeFile(file);
  if (!kind || kind->name == wanted) return otherwise;
  otherwise.message =
      fmt::format("{}: this is {}, not {}: {}", path, kind->name, wanted, kind->remedy);
  return otherwise;
}

}  // namespace troupe

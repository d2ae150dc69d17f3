#include "runtime/format/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "runtime/format/file_kind.h"
#include "runtime/format/json_reader.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr int64_t kHeaderMaxBytes = 100'000'000;  // the format's own bound
constexpr int64_t kLengthBytes = 8;
constexpr size_t kDimensionsMax = 64;
// A header needs about ten values a tensor.
constexpr JsonBounds kHeaderBounds{.max_depth = 4, .max_values = 8'000'000};

struct DtypeRow {
  TensorDtype dtype;
  std::string_view name;
  int64_t num_bytes;
};
constexpr DtypeRow kDtypes[] = {
    {TensorDtype::kBool, "BOOL", 1},      {TensorDtype::kU8, "U8", 1},
    {TensorDtype::kI8, "I8", 1},          {TensorDtype::kF8E5M2, "F8_E5M2", 1},
    {TensorDtype::kF8E4M3, "F8_E4M3", 1}, {TensorDtype::kI16, "I16", 2},
    {TensorDtype::kU16, "U16", 2},        {TensorDtype::kF16, "F16", 2},
    {TensorDtype::kBf16, "BF16", 2},      {TensorDtype::kI32, "I32", 4},
    {TensorDtype::kU32, "U32", 4},        {TensorDtype::kF32, "F32", 4},
    {TensorDtype::kF64, "F64", 8},        {TensorDtype::kI64, "I64", 8},
    {TensorDtype::kU64, "U64", 8},
};

Error Corrupt(const std::string& path, std::string_view problem) {
  return MakeError(ErrorCode::kCorrupt, "{}: not a whole safetensors file: {}", path, problem);
}

// Bytes of dtype x shape, or nothing when that exceeds 63 bits.
std::optional<int64_t> CheckedBytes(TensorDtype dtype, std::span<const int64_t> shape) {
  int64_t num_bytes = TensorDtypeBytes(dtype);
  for (const int64_t extent : shape) {
    if (__builtin_mul_overflow(num_bytes, extent, &num_bytes)) return std::nullopt;
  }
  return num_bytes;
}

Result<TensorEntry> ReadEntry(const std::string& name, const json& value, const std::string& path) {
  const auto bad = [&](std::string_view problem) {
    return Corrupt(path, fmt::format("tensor {}: {}", Quoted(name), problem));
  };
  if (!value.is_object()) return bad("its entry is no object");
  const auto dtype = value.find("dtype");
  const auto shape = value.find("shape");
  const auto offsets = value.find("data_offsets");
  if (dtype == value.end() || shape == value.end() || offsets == value.end()) {
    return bad("dtype, shape or data_offsets is missing");
  }
  TensorEntry entry;
  entry.spec.name = name;
  if (!dtype->is_string()) return bad("dtype is no string");
  const auto& dtype_name = dtype->get_ref<const std::string&>();
  const auto known = ParseTensorDtype(dtype_name);
  if (!known) return bad(fmt::format("dtype {} is unknown", Quoted(dtype_name)));
  entry.spec.dtype = *known;
  if (!shape->is_array() || shape->size() > kDimensionsMax) return bad("its shape is no shape");
  for (const json& extent : *shape) {
    const auto number = WholeNumber(extent);
    if (!number || *number < 0) return bad("its shape holds what is no extent");
    entry.spec.shape.push_back(*number);
  }
  const auto num_bytes = CheckedBytes(entry.spec.dtype, entry.spec.shape);
  if (!num_bytes) return bad("its shape has more bytes than a file can");
  if (!offsets->is_array() || offsets->size() != 2) return bad("data_offsets is no pair");
  const auto begin = WholeNumber((*offsets)[0]);
  const auto end = WholeNumber((*offsets)[1]);
  if (!begin || !end || *begin < 0 || *end < *begin) return bad("data_offsets is no range");
  if (*end - *begin != *num_bytes) {
    return bad(fmt::format("data_offsets has {} bytes, dtype and shape make {}", *end - *begin,
                           *num_bytes));
  }
  entry.begin = *begin;
  entry.end = *end;
  return entry;
}

// Invariant 1 of the header: the ranges tile the data section.
Status CheckTiling(std::span<const TensorEntry> tensors, int64_t data_bytes,
                   const std::string& path) {
  int64_t end = 0;
  for (const TensorEntry& entry : tensors) {
    if (entry.begin != end) {
      return Corrupt(
          path,
          fmt::format("tensor {}: {} of {} bytes before it", Quoted(entry.spec.name),
                      entry.begin > end ? "a hole" : "an overlap", std::abs(entry.begin - end)));
    }
    end = entry.end;
    if (end > data_bytes) {
      return Corrupt(path, fmt::format("tensor {}: ends at data byte {} of {}; the file is cut off",
                                       Quoted(entry.spec.name), end, data_bytes));
    }
  }
  if (end != data_bytes) {
    return Corrupt(path, fmt::format("{} bytes after the last tensor", data_bytes - end));
  }
  return {};
}

Result<SafetensorsMetadata> ReadMetadata(const json& value, const std::string& path) {
  if (!value.is_object()) return Corrupt(path, "__metadata__ is no object");
  SafetensorsMetadata metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return Corrupt(path, fmt::format("__metadata__ {}: not a string", Quoted(key)));
    }
    metadata[key] = text.get_ref<const std::string&>();
  }
  return metadata;
}

// Where the header ends, from the first 8 bytes of a file of `file_bytes`.
Result<int64_t> EndOfHeader(std::span<const std::byte> length, int64_t file_bytes,
                            const std::string& path) {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, length.data(), kLengthBytes);
  if (header_bytes > static_cast<uint64_t>(kHeaderMaxBytes)) {
    return Corrupt(path,
                   fmt::format("a header of {} bytes where 100 MB are allowed", header_bytes));
  }
  const int64_t end = kLengthBytes + static_cast<int64_t>(header_bytes);
  if (end > file_bytes) {
    return Corrupt(path, fmt::format("a header of {} bytes in a file of {}; the file is cut off",
                                     header_bytes, file_bytes));
  }
  return end;
}

// `text`: what lies between the length and the data.
Result<SafetensorsHeader> ParseHeaderText(std::string_view text, int64_t file_bytes,
                                          const std::string& path) {
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + static_cast<int64_t>(text.size());
  if (!text.starts_with('{')) return Corrupt(path, "the header does not start with '{'");
  ASSIGN_OR_RETURN(const json document, ParseJson(text, path, kHeaderBounds));
  for (const auto& [name, value] : document.items()) {
    if (name == "__metadata__") {
      ASSIGN_OR_RETURN(header.metadata, ReadMetadata(value, path));
      continue;
    }
    ASSIGN_OR_RETURN(TensorEntry entry, ReadEntry(name, value, path));
    header.tensors.push_back(std::move(entry));
  }
  // An empty tensor may share its begin with the next one, and comes first.
  std::ranges::sort(header.tensors, {},
                    [](const TensorEntry& entry) { return std::pair(entry.begin, entry.end); });
  RETURN_IF_ERROR(CheckTiling(header.tensors, file_bytes - header.data_begin, path));
  return header;
}

// By its first bytes, where they say what it is.
Error NamedAsWhatItIs(const ReadableFile& file, const std::string& path, Error error) {
  constexpr int64_t kFirstBytes = 4096;
  const auto version = file.Version();
  if (!version.ok()) return error;
  std::vector<std::byte> first(static_cast<size_t>(std::min(version->num_bytes, kFirstBytes)));
  if (!file.ReadAt(0, first).ok()) return error;
  return NamedAsWhatItIs(path, first, kSafetensorsName, std::move(error));
}

}  // namespace

std::string_view TensorDtypeName(TensorDtype dtype) {
  return kDtypes[static_cast<size_t>(dtype)].name;
}

std::optional<TensorDtype> ParseTensorDtype(std::string_view name) {
  const auto row = std::ranges::find(kDtypes, name, &DtypeRow::name);
  if (row == std::end(kDtypes)) return std::nullopt;
  return row->dtype;
}

int64_t TensorDtypeBytes(TensorDtype dtype) {
  return kDtypes[static_cast<size_t>(dtype)].num_bytes;
}

int64_t TensorBytes(const TensorSpec& spec) {
  const auto num_bytes = CheckedBytes(spec.dtype, spec.shape);
  CHECK(num_bytes && *num_bytes >= 0, "{}", spec.name);
  return *num_bytes;
}

Result<SafetensorsHeader> ReadSafetensorsHeader(const ReadableFile& file, const std::string& path) {
  ASSIGN_OR_RETURN(const FileVersion version, file.Version());
  if (version.num_bytes < kLengthBytes) return Corrupt(path, "shorter than 8 bytes");
  std::array<std::byte, kLengthBytes> length{};
  RETURN_IF_ERROR(file.ReadAt(0, length));
  ASSIGN_OR_RETURN(const int64_t end, EndOfHeader(length, version.num_bytes, path));
  std::string text(static_cast<size_t>(end - kLengthBytes), '\0');
  RETURN_IF_ERROR(file.ReadAt(kLengthBytes, std::as_writable_bytes(std::span(text))));
  return ParseHeaderText(text, version.num_bytes, path);
}

Result<SafetensorsFile> SafetensorsFile::Open(FileSystem& files, const std::string& path) {
  SafetensorsFile file;
  file.path_ = path;
  ASSIGN_OR_RETURN(file.file_, files.OpenForRead(path));
  auto header = ReadSafetensorsHeader(*file.file_, path);
  if (!header.ok()) return NamedAsWhatItIs(*file.file_, path, std::move(header).error());
  file.header_ = *std::move(header);
  for (size_t i = 0; i < file.header_.tensors.size(); ++i) {
    file.index_[file.header_.tensors[i].spec.name] = i;
  }
  return file;
}

const TensorEntry* SafetensorsFile::Find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

Status SafetensorsFile::Read(const TensorEntry& entry, int64_t begin,
                             std::span<std::byte> out) const {
  CHECK(begin >= 0 && std::cmp_less_equal(out.size(), entry.end - entry.begin - begin), "{}: {}",
        path_, entry.spec.name);
  return file_->ReadAt(header_.data_begin + entry.begin + begin, out);
}

Result<bool> HaveSameBytes(const StoredTensor& a, const StoredTensor& b) {
  constexpr int64_t kPieceBytes = int64_t{1} << 20;
  if (a.num_bytes() != b.num_bytes()) return false;
  std::vector<std::byte> of_a;
  std::vector<std::byte> of_b;
  for (int64_t begin = 0; begin < a.num_bytes(); begin += kPieceBytes) {
    const auto size = static_cast<size_t>(std::min(kPieceBytes, a.num_bytes() - begin));
    of_a.resize(size);
    of_b.resize(size);
    RETURN_IF_ERROR(a.Read(begin, of_a));
    RETURN_IF_ERROR(b.Read(begin, of_b));
    if (of_a != of_b) return false;
  }
  return true;
}

Result<SafetensorsWriter> SafetensorsWriter::Create(FileSystem& files, const std::string& path,
                                                    const std::vector<TensorSpec>& tensors,
                                                    const SafetensorsMetadata& metadata) {
  JsonLine header;
  if (!metadata.empty()) {
    JsonLine entries;
    for (const auto& [key, value] : metadata) entries.Add(key, value);
    header.AddJson("__metadata__", entries.Text());
  }
  int64_t begin = 0;
  for (const TensorSpec& spec : tensors) {
    const int64_t end = begin + TensorBytes(spec);
    JsonLine entry;
    entry.Add("dtype", TensorDtypeName(spec.dtype))
        .AddJson("shape", fmt::format("[{}]", fmt::join(spec.shape, ",")))
        .AddJson("data_offsets", fmt::format("[{},{}]", begin, end));
    header.AddJson(spec.name, entry.Text());
    begin = end;
  }
  std::string text = header.Text();
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  CHECK(std::cmp_less_equal(text.size(), kHeaderMaxBytes), "{} tensors", tensors.size());

  SafetensorsWriter writer;
  writer.path_ = path;
  writer.missing_bytes_ = begin;
  ASSIGN_OR_RETURN(writer.file_, files.OpenForWrite(path, WriteMode::kTruncate));
  const uint64_t length = text.size();
  std::string prefix(kLengthBytes, '\0');
  std::memcpy(prefix.data(), &length, kLengthBytes);
  RETURN_IF_ERROR(writer.Write(BytesOf(prefix + text)));
  return writer;
}

Status SafetensorsWriter::Write(std::span<const std::byte> bytes) {
  digest_.Update(bytes);
  num_bytes_ += static_cast<int64_t>(bytes.size());
  return file_->Append(bytes);
}

Status SafetensorsWriter::Append(std::span<const std::byte> bytes) {
  CHECK(std::cmp_less_equal(bytes.size(), missing_bytes_), "{}: {} bytes, {} are missing", path_,
        bytes.size(), missing_bytes_);
  missing_bytes_ -= static_cast<int64_t>(bytes.size());
  return Write(bytes);
}

Status SafetensorsWriter::Finish() {
  if (missing_bytes_ != 0) {
    return MakeError(ErrorCode::kFailed, "{}: {} bytes of tensors were never written", path_,
                     missing_bytes_);
  }
  RETURN_IF_ERROR(file_->Sync());
  return file_->Close();
}

}  // namespace troupe

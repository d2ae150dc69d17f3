#include "runtime/format/tensorboard.h"

#include <array>
#include <cstring>
#include <optional>
#include <utility>

namespace troupe {
namespace {

constexpr int64_t kFileMaxBytes = int64_t{4} << 30;
constexpr size_t kLengthBytes = 8;
constexpr size_t kCrcBytes = 4;
constexpr size_t kFrameBytes = kLengthBytes + 2 * kCrcBytes;

constexpr std::array<uint32_t, 256> Crc32cTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}

template <typename T>
void AppendRaw(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

template <typename T>
T ReadRaw(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// Protocol Buffers' wire format: tag = field << 3 | type; types 0 varint, 1 and 5 fixed 64 and 32
// bits, 2 length-delimited.
void AppendVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void AppendBytes(std::string& out, int field, std::string_view bytes) {
  AppendVarint(out, static_cast<uint64_t>(field) << 3 | 2);
  AppendVarint(out, bytes.size());
  out += bytes;
}

std::string Framed(std::string_view event) {
  std::string record;
  AppendRaw(record, uint64_t{event.size()});
  AppendRaw(record, MaskedCrc32c(BytesOf(record)));
  record += event;
  AppendRaw(record, MaskedCrc32c(BytesOf(event)));
  return record;
}

std::optional<uint64_t> TakeVarint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes[0]);
    bytes.remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// Event.step (field 2), 0 where the event has none or is no event.
int64_t StepOf(std::string_view event) {
  while (!event.empty()) {
    const auto tag = TakeVarint(event);
    if (!tag) return 0;
    size_t skip = 0;
    switch (*tag & 7) {
      case 0: {
        const auto value = TakeVarint(event);
        if (!value) return 0;
        if (*tag >> 3 == 2) return static_cast<int64_t>(*value);
        break;
      }
      case 1:
        skip = 8;
        break;
      case 2: {
        const auto length = TakeVarint(event);
        if (!length || *length > event.size()) return 0;
        skip = *length;
        break;
      }
      case 5:
        skip = 4;
        break;
      default:
        return 0;
    }
    if (skip > event.size()) return 0;
    event.remove_prefix(skip);
  }
  return 0;
}

// The whole record at the start of `bytes`, empty where there is none.
std::string_view FirstRecord(std::string_view bytes) {
  if (bytes.size() < kFrameBytes) return {};
  const auto length = ReadRaw<uint64_t>(bytes);
  if (length > bytes.size() - kFrameBytes ||
      ReadRaw<uint32_t>(bytes.substr(kLengthBytes)) !=
          MaskedCrc32c(BytesOf(bytes.substr(0, kLengthBytes)))) {
    return {};
  }
  const std::string_view event = bytes.substr(kLengthBytes + kCrcBytes, length);
  const auto crc = ReadRaw<uint32_t>(bytes.substr(kLengthBytes + kCrcBytes + length));
  return crc == MaskedCrc32c(BytesOf(event)) ? bytes.substr(0, kFrameBytes + length)
                                             : std::string_view();
}

}  // namespace

uint32_t Crc32c(std::span<const std::byte> bytes) {
  static constexpr auto kTable = Crc32cTable();
  uint32_t crc = ~0u;
  for (const std::byte byte : bytes) {
    crc = kTable[(crc ^ static_cast<uint32_t>(byte)) & 0xff] ^ (crc >> 8);
  }
  return ~crc;
}

uint32_t MaskedCrc32c(std::span<const std::byte> bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::string TensorboardVersionRecord(double wall_seconds) {
  std::string event = "\x09";  // wall_time = 1, fixed 64
  AppendRaw(event, wall_seconds);
  AppendBytes(event, 3, "brain.Event:2");
  return Framed(event);
}

std::string TensorboardScalarRecord(double wall_seconds, int64_t step, std::string_view tag,
                                    float value) {
  std::string scalar;  // Summary.Value
  AppendBytes(scalar, 1, tag);
  scalar += '\x15';  // simple_value = 2, fixed 32
  AppendRaw(scalar, value);
  std::string summary;
  AppendBytes(summary, 1, scalar);
  std::string event = "\x09";
  AppendRaw(event, wall_seconds);
  event += '\x10';  // step = 2, varint
  AppendVarint(event, static_cast<uint64_t>(step));
  AppendBytes(event, 5, summary);
  return Framed(event);
}

Result<TensorboardWriter> TensorboardWriter::Open(FileSystem& files, const std::string& path,
                                                  double wall_seconds, int64_t keep_through_step) {
  std::string kept;
  if (files.Exists(path)) {
    ASSIGN_OR_RETURN(const std::string text, files.ReadFile(path, kFileMaxBytes));
    std::string_view rest = text;
    for (std::string_view record = FirstRecord(rest); !record.empty(); record = FirstRecord(rest)) {
      const auto event = record.substr(kLengthBytes + kCrcBytes, record.size() - kFrameBytes);
      if (StepOf(event) <= keep_through_step) kept += record;
      rest.remove_prefix(record.size());
    }
    if (!kept.empty() && kept.size() != text.size()) {
      RETURN_IF_ERROR(WriteFileAtomically(files, path, kept));
    }
  }
  TensorboardWriter writer;
  ASSIGN_OR_RETURN(writer.file_, files.OpenForWrite(path, kept.empty() ? WriteMode::kTruncate
                                                                       : WriteMode::kAppend));
  if (kept.empty()) {
    RETURN_IF_ERROR(writer.file_->Append(BytesOf(TensorboardVersionRecord(wall_seconds))));
  }
  return writer;
}

Status TensorboardWriter::AddScalar(double wall_seconds, int64_t step, std::string_view tag,
                                    double value) {
  return file_->Append(
      BytesOf(TensorboardScalarRecord(wall_seconds, step, tag, static_cast<float>(value))));
}

Status TensorboardWriter::Close() { return file_->Close(); }

std::string TensorboardFileName(int64_t unix_seconds, std::string_view host) {
  return fmt::format("events.out.tfevents.{}.{}", unix_seconds, host);
}

}  // namespace troupe

#include "tests/fuzz/entry_points.h"

#include <cstring>
#include <sstream>
#include <vector>

#include "actors/schedule/csv.h"
#include "actors/schedule/validator.h"
#include "runtime/base/check.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/costs_file.h"
#include "runtime/format/hf_config.h"
#include "runtime/format/safetensors.h"
#include "runtime/format/token_file.h"
#include "runtime/transport/ucx/ucx_frame.h"
#include "tests/support/load_job.h"
#include "tests/support/memory_file.h"

namespace troupe::testing {
namespace {

std::string_view TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// An error is one line that names the file.
void CheckSentence(const Error& error) {
  CHECK(error.message.starts_with("/fuzz"), "{}", error.message);
  CHECK(error.message.find('\n') == std::string::npos, "{}", error.message);
  CHECK(error.message.size() < 1000, "{}", error.message);
}

// One file, whose bytes are the caller's.
class OneFile : public FileSystem {
 public:
  explicit OneFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  Result<std::unique_ptr<ReadableFile>> OpenForRead(const std::string&) override {
    return std::unique_ptr<ReadableFile>(std::make_unique<MemoryFile>(bytes_));
  }
  Result<std::string> ReadFile(const std::string& path, int64_t) override { return No(path); }
  Result<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path, WriteMode) override {
    return No(path);
  }
  Status Rename(const std::string& from, const std::string&) override { return No(from); }
  Status SyncDirectory(const std::string& path) override { return No(path); }
  Status CreateDirectories(const std::string& path) override { return No(path); }
  Status RemoveAll(const std::string& path) override { return No(path); }
  Result<std::vector<std::string>> List(const std::string& path) override { return No(path); }
  bool Exists(const std::string&) override { return true; }
  Result<int64_t> FileBytes(const std::string& path) override { return No(path); }
  Result<int64_t> FreeBytes(const std::string& path) override { return No(path); }
  Status PointLink(const std::string& path, const std::string&) override { return No(path); }
  Result<std::string> ReadLink(const std::string& path) override { return No(path); }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path, std::string_view) override {
    return No(path);
  }

 private:
  static Error No(const std::string& path) {
    return MakeError(ErrorCode::kIo, "{}: can only be opened", path);
  }
  std::span<const std::byte> bytes_;
};

// The job file; every other file is missing.
class OneText : public OneFile {
 public:
  explicit OneText(std::string_view text) : OneFile({}), text_(text) {}
  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override {
    if (path == "/fuzz" && static_cast<int64_t>(text_.size()) <= max_bytes) {
      return std::string(text_);
    }
    return MakeError(ErrorCode::kNotFound, "{}: there is no such file", path);
  }
  // What the job trains on.
  Result<std::unique_ptr<ReadableFile>> OpenForRead(const std::string&) override {
    static const std::vector<std::byte> text(100'000, std::byte{'a'});
    return std::unique_ptr<ReadableFile>(std::make_unique<MemoryFile>(text));
  }

 private:
  std::string_view text_;
};

}  // namespace

void FuzzJobFile(std::span<const std::byte> bytes) {
  OneText files(TextOf(bytes));
  const auto job = LoadJob(files, "/fuzz", {});
  if (!job.ok()) {
    CHECK(!job.error().message.empty());
    CHECK(ExitCode(job.error().code) == 2 || ExitCode(job.error().code) == 3, "{}",
          job.error().message);
    // A line an error, each with its place.
    std::istringstream lines(job.error().message);
    for (std::string line; std::getline(lines, line);) {
      CHECK(line.starts_with("/fuzz:") && line.size() < 1200, "{}", line);
    }
    return;
  }
  // What was understood, written out and read again, is the same job.
  OneText again(job->effective_text);
  const auto reloaded = LoadJob(again, "/fuzz", {});
  CHECK(reloaded.ok(), "{}\n{}", reloaded.error().message, job->effective_text);
  CHECK(reloaded->spec.SerializeAsString() == job->spec.SerializeAsString(), "{}",
        job->effective_text);
}

void FuzzSafetensors(std::span<const std::byte> bytes) {
  OneFile files(bytes);
  const auto file = SafetensorsFile::Open(files, "/fuzz");
  if (!file.ok()) return CheckSentence(file.error());
  unsigned sum = 0;
  for (const TensorEntry& entry : file->tensors()) {
    std::vector<std::byte> tensor(static_cast<size_t>(TensorBytes(entry.spec)));
    CHECK(file->Read(entry, 0, tensor).ok());
    CHECK(file->Find(entry.spec.name) == &entry);
    for (const std::byte byte : tensor) sum += static_cast<unsigned>(byte);
  }
  CHECK(sum <= 255 * bytes.size());
}

void FuzzHfConfig(std::span<const std::byte> bytes) {
  auto config = ParseHfConfigJson(TextOf(bytes), "/fuzz");
  if (!config.ok()) return CheckSentence(config.error());
  if (const Status complete = CompleteHfConfig(*config, "/fuzz"); !complete.ok()) {
    return CheckSentence(complete.error());
  }
  CHECK(config->num_attention_heads % config->num_key_value_heads == 0);
  // What we write of it reads back as the same.
  const std::string written = HfConfigJson(*config, "float32");
  auto again = ParseHfConfigJson(written, "/fuzz");
  CHECK(again.ok() && CompleteHfConfig(*again, "/fuzz").ok(), "{}", written);
  CHECK(HfConfigJson(*again, "float32") == written, "{}", written);
}

void FuzzTokenFile(std::span<const std::byte> bytes) {
  OneFile files(bytes);
  const auto file = TokenFile::Open(files, "/fuzz.bin");
  if (!file.ok()) return CheckSentence(file.error());
  std::vector<int32_t> tokens(static_cast<size_t>(file->num_tokens()));
  CHECK(file->Read(0, file->num_tokens(), tokens.data()).ok());
  if (const Status known = file->CheckVocabulary(50257); !known.ok()) CheckSentence(known.error());
  if (const auto samples = CountSamples(*file, 16); !samples.ok()) CheckSentence(samples.error());
}

void FuzzManifest(std::span<const std::byte> bytes) {
  const auto manifest = ParseManifestJson(TextOf(bytes), "/fuzz");
  if (!manifest.ok()) return CheckSentence(manifest.error());
  for (const CheckpointTensors* tensors : {&manifest->tensors, &manifest->optimizer_tensors}) {
    for (const auto& [name, tensor] : *tensors) {
      int64_t num_elements = 0;
      for (const CheckpointPiece& piece : tensor.pieces) {
        CHECK(piece.first_element == num_elements, "{}", TextOf(bytes));
        num_elements += piece.num_elements;
      }
      CHECK(num_elements == NumElements(tensor), "{}", TextOf(bytes));
    }
  }
  const auto again = ParseManifestJson(ManifestJson(*manifest), "/fuzz");
  CHECK(again.ok() && *again == *manifest, "{}", TextOf(bytes));
}

void FuzzScheduleCsv(std::span<const std::byte> bytes) {
  const auto schedule = ParseCsv(TextOf(bytes), "fuzz");
  if (!schedule.ok()) {
    const std::string& words = schedule.error().message;
    CHECK(schedule.error().code == ErrorCode::kInvalidSpec);
    CHECK(words.starts_with("row ") && words.find(", cell ") != std::string::npos, "{}", words);
    CHECK(words.size() < 500, "{}", words);
    for (const char c : words) CHECK(c >= ' ' && c <= '~', "{}", words);
    return;
  }
  const std::string written = ToCsv(*schedule);
  const bool valid = Validate(*schedule).ok();
  CsvNotes notes;
  const auto again = ParseCsv(written, "fuzz", &notes);
  CHECK(again.ok() && again->num_directions == schedule->num_directions, "{}", written);
  // A list that cannot be, with W but no I, may look like the older dialect.
  CHECK(again->ranks == schedule->ranks || (notes.older_dialect && !valid), "{}", written);
  if (const auto plain = ToCsv(*schedule, Dialect::kPyTorch); plain.ok()) {
    CHECK(*plain == written, "{}", *plain);
  }
  if (const auto sent = ToCsvWithCommunication(*schedule); sent.ok()) {
    CHECK(valid, "{}", written);
    const auto read = ParseCsv(*sent, "fuzz");
    CHECK(read.ok() && read->ranks == schedule->ranks, "{}", *sent);
  }
}

void FuzzCostsFile(std::span<const std::byte> bytes) {
  const auto costs = ParseCostsFile(TextOf(bytes), "/fuzz");
  if (!costs.ok()) return CheckSentence(costs.error());
  CHECK(!costs->stages.empty() && costs->unit.size() <= 16);
  for (const StageTimes& stage : costs->stages) {
    CHECK(stage.forward >= 0 && stage.forward <= kCostMax);
    CHECK(stage.backward || (stage.backward_input && stage.backward_weight));
  }
  const std::string written = CostsFileJson(*costs);
  const auto again = ParseCostsFile(written, "/fuzz");
  CHECK(again.ok() && *again == *costs, "{}", written);
}

void FuzzUcxFrame(std::span<const std::byte> bytes) {
  const auto check = [](std::span<const std::byte> frame) {
    Delivery message;
    if (!ParseMessage(frame, &message).ok()) return;
    const Envelope& envelope = message.envelope;
    CHECK(message.payload.size() + envelope.header_bytes == frame.size());
    CHECK(message.payload.data() + message.payload.size() == frame.data() + frame.size());
    CHECK(envelope.num_bulk <= 1 && envelope.source_rank >= 0);
    if (envelope.header_bytes == Envelope::kFullBytes) return;
    Envelope shortened = envelope;
    ShortenHeader(&shortened);
    CHECK(shortened.header_bytes == envelope.header_bytes, "a short header said more");
  };
  check(bytes);
  for (const size_t header_bytes : {Envelope::kShortBytes, Envelope::kFullBytes}) {
    if (bytes.size() < header_bytes) continue;  // with a checksum that fits, to get past it
    std::vector<std::byte> sealed(bytes.begin(), bytes.end());
    sealed[offsetof(Envelope, header_bytes)] = static_cast<std::byte>(header_bytes);
    const uint32_t checksum = PayloadChecksum(bytes.subspan(header_bytes));
    std::memcpy(sealed.data() + offsetof(Envelope, payload_checksum), &checksum, sizeof(checksum));
    check(sealed);
  }
  if (const auto frame = ParseLinkFrame(bytes);
      frame.ok() && frame->kind == LinkFrameKind::kSlots) {
    int64_t end = 0;
    CHECK(!__builtin_mul_overflow(frame->stride_bytes, int64_t{frame->num_slots}, &end));
    CHECK(frame->slot_bytes >= 0 && frame->slot_bytes <= frame->stride_bytes);
  }
  if (const auto address = ParseAddress(TextOf(bytes)); address.ok()) {
    CHECK(EncodeAddress(*address) == TextOf(bytes));
  }
}

}  // namespace troupe::testing

#include "coordinator/job/job_files.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "actors/plan/data_order.h"
#include "actors/plan/model_config.h"
#include "actors/plan/parameter_table.h"
#include "coordinator/job/init_weights.h"
#include "runtime/format/text_check.h"
#include "runtime/format/token_file.h"

namespace troupe {
namespace {

// Legal, and rarely meant.
void CheckIsNoMarkup(FileSystem& files, const std::string& path,
                     std::vector<std::string>& warnings) {
  const auto file = files.OpenForRead(path);
  if (!file.ok()) return;
  const auto version = (*file)->Version();
  if (!version.ok()) return;
  constexpr int64_t kBeginBytes = 256;
  std::string begin(static_cast<size_t>(std::min(version->num_bytes, kBeginBytes)), '\0');
  if (!(*file)->ReadAt(0, std::as_writable_bytes(std::span(begin))).ok()) return;
  if (!BeginsAsXml(begin)) return;
  warnings.push_back(fmt::format(
      "data.train = {} begins as XML: its tags are trained on like the rest of the text", path));
}

// Likewise a separator that another tokenizer has.
void CheckSeparates(const TokenFile& file, int32_t separator, std::vector<std::string>& warnings) {
  constexpr int64_t kLookedAt = 1 << 20;
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(file.num_tokens(), kLookedAt)));
  if (!file.Read(0, std::ssize(tokens), tokens.data()).ok()) return;
  if (std::ranges::find(tokens, separator) != tokens.end()) return;
  warnings.push_back(fmt::format(
      "data.document_separator = {}: it is not among the first {} tokens of data.train = {}, so "
      "each sample there is one document",
      separator, tokens.size(), file.path()));
}

void CheckData(FileSystem& files, const proto::JobSpec& spec, std::vector<Error>& errors,
               std::vector<std::string>& warnings) {
  const proto::Data& data = spec.data();
  const auto format = ParseTokenFormat(data.format());
  if (!data.has_train()) return;
  const auto refuse = [&](Error error, std::string_view remedy) {
    errors.push_back({error.code, fmt::format("data.train = {}{}", error.message, remedy)});
  };
  // Under a format that does not exist it can at least be there.
  const auto file =
      TokenFile::Open(files, data.train(), format.ok() ? *format : TokenFormat::kBytes);
  if (!file.ok()) {
    // What cannot be opened says no more than that; what was opened says what is wrong with it.
    const bool unread =
        file.error().code == ErrorCode::kNotFound || file.error().code == ErrorCode::kIo;
    return refuse(file.error(), unread ? ": give a .txt or .bin file that can be read" : "");
  }
  if (!format.ok()) return;
  if (*format == TokenFormat::kAuto && BytesAreTokens(*format, data.train())) {
    CheckIsNoMarkup(files, data.train(), warnings);
  }
  if (spec.model().vocab_size() > 0 && !BytesAreTokens(*format, data.train())) {
    if (Status known = file->CheckVocabulary(spec.model().vocab_size()); !known.ok()) {
      refuse(known.error(), ": raise it, or give the file of this vocabulary");
    }
  }
  const int32_t vocab_size = spec.model().vocab_size();
  const bool is_token =
      data.document_separator() >= 0 && (vocab_size <= 0 || data.document_separator() < vocab_size);
  if (data.has_document_separator() && is_token) {  // else the key is refused
    CheckSeparates(*file, data.document_separator(), warnings);
  }
  if (spec.batch().seq_len() < 1) return;
  const auto samples = CountSamples(*file, spec.batch().seq_len());
  if (!samples.ok()) return refuse(samples.error(), "");
  if (!(data.val_fraction() >= 0 && data.val_fraction() < 1)) return;
  auto order = DataOrder::Make({.num_samples = *samples,
                                .val_fraction = data.val_fraction(),
                                .validates = spec.eval().every() > 0 && data.val_fraction() > 0});
  if (!order.ok()) errors.push_back(std::move(order).error());
}

}  // namespace

FileFindings CheckFiles(FileSystem& files, const proto::JobSpec& spec) {
  FileFindings findings;
  CheckData(files, spec, findings.errors, findings.warnings);
  const std::string& resume = spec.checkpoint().resume();
  const bool from_checkpoint = !resume.empty() && resume != "never" && resume != "auto";
  if (!spec.model().has_init_from() || from_checkpoint) return findings;
  const ModelConfigReading model = ReadModelConfig(spec.model());
  std::optional<ParameterTable> table;
  if (model.shapes_agree) table.emplace(model.config);
  InitWeightsFindings weights =
      CheckInitWeights(files, spec.model().init_from(), table ? &*table : nullptr,
                       spec.model().ignore_extra_tensors());
  std::ranges::move(weights.errors, std::back_inserter(findings.errors));
  std::ranges::move(weights.warnings, std::back_inserter(findings.warnings));
  return findings;
}

}  // namespace troupe

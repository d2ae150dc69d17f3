#include "actors/rank_load.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <new>
#include <numeric>

#include "actors/checkpoint_store.h"
#include "actors/plan/context_parallel_keys.h"
#include "actors/plan/data_parallel_keys.h"
#include "actors/plan/job_shape.h"
#include "actors/plan/resumption.h"
#include "actors/rank_setup.h"
#include "runtime/base/bytes_in_words.h"
#include "runtime/base/file_system.h"
#include "runtime/format/checkpoint_manifest.h"

namespace troupe {
namespace {

constexpr std::string_view kWhatToLower =
    "lower batch.micro_batch_size or batch.seq_len, take more hosts with a larger parallelism.pp, "
    "or end what else runs here";

std::string Words(int64_t num_bytes) { return BytesInWords(static_cast<double>(num_bytes)); }

// For the last words of a process without memory: what it was to need, and some room to say it in.
constexpr size_t kReserveBytes = size_t{4} << 20;
std::atomic<int64_t> process_needs_bytes{0};
std::atomic<char*> reserve{nullptr};

// Without memory of its own, where even the reserve is not enough.
void SayOutOfMemory(int64_t wanted_bytes) noexcept {
  delete[] reserve.exchange(nullptr);
  constexpr std::string_view kBare =
      "out of memory while it works: `troupe plan` says what a rank needs: lower "
      "batch.micro_batch_size or batch.seq_len, or end what else runs here\n";
  const auto say = [](std::string_view words) {
    [[maybe_unused]] const ssize_t said = ::write(STDERR_FILENO, words.data(), words.size());
  };
  try {
    say(OutOfMemory(wanted_bytes, process_needs_bytes, ReadHostMemory(SystemFiles())) + "\n");
  } catch (...) {
    say(kBare);
  }
}

Status CheckFits(const JobPlan& plan, Rank rank, const std::optional<HostMemory>& memory) {
  if (!memory) return {};
  const int64_t wanted = PredictedBytes(plan, rank);
  const int64_t most = std::min(memory->total_bytes, memory->process_bytes);
  if (wanted <= most) return {};
  return MakeError(ErrorCode::kInfeasible, "it does not fit: {} are needed, {} may be had ({}): {}",
                   Words(wanted), Words(most),
                   memory->process_bytes < memory->total_bytes ? "ulimit" : memory->bound,
                   kWhatToLower);
}

// The same bytes under another path are the same data.
Status CheckData(const proto::JobSpec& spec, const CheckpointManifest& manifest,
                 RunContent& content) {
  if (!manifest.data || !content.data) return {};
  const std::string difference = Difference(*manifest.data, *content.data);
  if (difference.empty()) return {};
  if (!spec.data().allow_change()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "data.train = {}: it {}: these are not the data of the checkpoint: give the "
                     "same bytes, or set data.allow_change to go on with others",
                     spec.data().train(), difference);
  }
  content.data_changed = true;
  return {};
}

Result<std::optional<TokenSource>> OpenTokens(FileSystem& files, const proto::StartRank& start,
                                              const JobPlan& plan, RunContent& content) {
  if (!DataLoaderOptionsOf(start.spec(), plan, Rank(start.rank())).fields.any_of_file()) {
    return std::optional<TokenSource>();
  }
  const proto::Data& data = start.spec().data();
  ASSIGN_OR_RETURN(const TokenFormat format, ParseTokenFormat(data.format()));
  ASSIGN_OR_RETURN(TokenFile file, TokenFile::Open(files, data.train(), format));
  RETURN_IF_ERROR(file.CheckVocabulary(static_cast<int32_t>(plan.config.vocab_size)));
  ASSIGN_OR_RETURN(content.data, file.Identify());
  ASSIGN_OR_RETURN(DataOrder order, DataOrderOf(start.spec(), plan, file));
  return std::optional(TokenSource{.file = std::move(file), .order = std::move(order)});
}

// Whether the run that was saved added its gradients in another shape.
bool SumsDiffer(const CheckpointManifest& manifest, const proto::JobSpec& spec,
                const JobPlan& plan) {
  if (manifest.gradient_groups != plan.batch.gradient_groups) return true;
  proto::JobSpec saved;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (!google::protobuf::util::JsonStringToMessage(manifest.job_json, &saved, options).ok()) {
    return false;  // the coordinator has read it
  }
  const auto reduce = GradReduceOf(saved.parallelism());
  const auto widths = WidthsOf(saved.train());
  return !ShareSequencesAlike(saved, spec) || RingSumsDiffer(saved, spec) ||
         (reduce.ok() && *reduce != plan.batch.grad_reduce) ||
         (widths.ok() && widths->grad_bytes != plan.widths.grad_bytes);
}

Result<LoadedRank> Load(FileSystem& files, const proto::StartRank& start, const JobPlan& plan,
                        MemoryLedger& ledger) {
  LoadedRank loaded;
  const proto::Model& model = start.spec().model();
  if (start.resume_from().empty() && model.has_init_from() && !model.ignore_extra_tensors()) {
    RETURN_IF_ERROR(CheckNoExtraTensors(files, model.init_from(), plan.table));
  }
  loaded.stages = BuildStages(start.spec(), plan, Rank(start.rank()), ledger);
  ASSIGN_OR_RETURN(loaded.progress.step, FillStages(files, start, loaded.stages));
  ASSIGN_OR_RETURN(loaded.tokens, OpenTokens(files, start, plan, loaded.content));
  if (start.resume_from().empty()) {
    if (!start.spec().model().has_init_from()) return loaded;
    ASSIGN_OR_RETURN(loaded.content.init_from,
                     IdentityOfWeights(files, start.spec().model().init_from()));
    return loaded;
  }
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(files, start.resume_from()));
  loaded.content.init_from = manifest.init_from;
  loaded.progress.updates = manifest.updates();
  if (StartsNewRun(start.spec(), start.run_directory(), start.resume_from())) return loaded;
  loaded.progress.skipped_steps = manifest.skipped_steps;
  loaded.progress.tokens = manifest.tokens.value_or(manifest.step * plan.batch.tokens_per_step());
  loaded.content.data_changed = manifest.data_changed;
  loaded.content.groups_changed =
      manifest.groups_changed || SumsDiffer(manifest, start.spec(), plan);
  RETURN_IF_ERROR(CheckData(start.spec(), manifest, loaded.content));
  return loaded;
}

}  // namespace

int64_t PredictedBytes(const JobPlan& plan, Rank rank) {
  const MemoryPrediction bytes = plan.MemoryOf(rank, ThisVectorIsa());
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

Result<LoadedRank> LoadRank(FileSystem& files, const proto::StartRank& start, const JobPlan& plan,
                            const std::optional<HostMemory>& memory, MemoryLedger& ledger) {
  const Rank rank(start.rank());
  process_needs_bytes = PredictedBytes(plan, rank);
  RETURN_IF_ERROR(CheckFits(plan, rank, memory));
  try {
    return Load(files, start, plan, ledger);
  } catch (const BufferTooLarge& refused) {
    return MakeError(ErrorCode::kResourceExhausted, "{}",
                     OutOfMemory(refused.num_bytes(), PredictedBytes(plan, rank), memory));
  } catch (const std::bad_alloc&) {
    return MakeError(ErrorCode::kResourceExhausted, "{}",
                     OutOfMemory(0, PredictedBytes(plan, rank), memory));
  }
}

Result<LoadedRank> LoadRankHere(FileSystem& files, const proto::StartRank& start,
                                const JobPlan& plan, MemoryLedger& ledger) {
  const auto memory = ReadHostMemory(files);
  return LoadRank(files, start, plan, memory, ledger);
}

std::string OutOfMemory(int64_t wanted_bytes, int64_t predicted_bytes,
                        const std::optional<HostMemory>& memory) {
  std::string text = "out of memory: ";
  if (wanted_bytes > 0) text += fmt::format("{} more wanted, ", Words(wanted_bytes));
  if (memory) {
    text += fmt::format("{} of {} are left here, ", Words(memory->available_bytes),
                        Words(memory->total_bytes));
    if (memory->process_bytes < memory->total_bytes) {
      text += fmt::format("ulimit leaves a process {}, ", Words(memory->process_bytes));
    }
  }
  if (predicted_bytes > 0) {
    text += fmt::format("this rank needs {} in all", Words(predicted_bytes));
  }
  if (text.ends_with(", ")) text.resize(text.size() - 2);
  return text + (text.ends_with(": ") ? "" : ": ") + std::string(kWhatToLower);
}

void SayWhereMemoryRunsOut() {
  delete[] reserve.exchange(new char[kReserveBytes]);
  std::set_terminate([] {
    try {
      if (std::current_exception()) std::rethrow_exception(std::current_exception());
    } catch (const BufferTooLarge& refused) {
      SayOutOfMemory(refused.num_bytes());
      ::_exit(1);
    } catch (const std::bad_alloc&) {
      SayOutOfMemory(0);
      ::_exit(1);
    } catch (...) {
    }
    std::abort();
  });
}

}  // namespace troupe

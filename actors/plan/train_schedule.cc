#include "actors/plan/train_schedule.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "actors/plan/batch_arithmetic.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/execution_settings.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/schedule_choice.h"

namespace troupe {
namespace {

// "auto, 1f1b (pipedream-flush), …"
std::string KnownNames() {
  std::string list(kAutoSchedule);
  for (const ScheduleInfo& schedule : KnownSchedules()) {
    list += fmt::format(", {}", schedule.name);
    std::vector<std::string_view> aliases;
    std::ranges::copy_if(schedule.aliases, std::back_inserter(aliases),
                         [](std::string_view alias) { return !alias.empty(); });
    if (!aliases.empty()) list += fmt::format(" (or {})", fmt::join(aliases, ", "));
  }
  return list;
}

// The schedule's name and its number of chunks. False: nothing else can be said of its lists.
bool CheckWords(const proto::Parallelism& spec, std::vector<Error>& errors) {
  if (spec.has_schedule_actions()) return true;  // a file's lists go under a name of their own
  const size_t errors_before = errors.size();
  const std::string& name = spec.schedule();
  if (spec.has_schedule() && name != kAutoSchedule && !CanonicalScheduleName(name).ok()) {
    constexpr size_t kShownBytes = 60;
    errors.push_back(MakeError(
        ErrorCode::kInvalidSpec,
        "parallelism.schedule = {}: use one of {}; hyphens, underscores and case do not matter",
        name.substr(0, kShownBytes), KnownNames()));
  }
  if (spec.virtual_stages() < 0 || spec.virtual_stages() > kStagesMax) {
    errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                               "parallelism.virtual_stages = {}: use 1 to {}",
                               spec.virtual_stages(), kStagesMax));
  }
  return errors.size() == errors_before;
}

Result<Schedule> Generated(const proto::Parallelism& spec, int num_ranks, int num_microbatches) {
  auto lists = Generate({.name = spec.has_schedule() ? spec.schedule() : "1f1b",
                         .num_ranks = num_ranks,
                         .num_microbatches = num_microbatches,
                         .chunks_per_rank = spec.virtual_stages()});
  if (lists.ok()) return lists;
  const std::string noun =
      spec.has_virtual_stages()
          ? fmt::format("parallelism.schedule with parallelism.virtual_stages = {}",
                        spec.virtual_stages())
          : "parallelism.schedule";
  return Context(noun, std::move(lists).error());
}

// 0 microbatches: as many as the file has.
Result<Schedule> OfFile(const std::string& actions, int num_ranks, int num_microbatches) {
  auto read = ParseCsv(actions, "csv");
  if (!read.ok()) return Context("parallelism.schedule_csv", std::move(read).error());
  if (read->forward_only) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv: row 1, cell 1: there are Forwards only; a job "
                     "trains: add the backward of each");
  }
  if (read->num_ranks != num_ranks && num_microbatches == 0) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv is for {} ranks, the job has parallelism.pp = {}: "
                     "change the one or the other",
                     read->num_ranks, num_ranks);
  }
  if (read->num_ranks != num_ranks ||
      (num_microbatches > 0 && read->num_microbatches != num_microbatches)) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv is for {} ranks and {} microbatches, the job has "
                     "parallelism.pp = {} and {} microbatches a step: change the one or the other",
                     read->num_ranks, read->num_microbatches, num_ranks, num_microbatches);
  }
  for (PipelineRank rank{}; rank.value < num_ranks; rank = rank.Next()) {
    if (!read->StagesOf(rank).empty()) continue;
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv: row {} gives rank {} no stage: a job's ranks hold "
                     "one or more each; leave the row out and lower parallelism.pp",
                     rank.value + 1, rank);
  }
  return read;
}

ExecutionSettings SettingsOf(const proto::Parallelism& spec) {
  ExecutionSettings settings{.style = SettingStyle::kJobKey};
  if (spec.has_executor()) {
    settings.executor = spec.executor();
  } else if (ReducesEachMicrobatch(spec)) {
    settings.executor = ExecutorModeName(ExecutorMode::kStrict);  // CheckGroups
  }
  if (spec.has_activation_slack()) settings.activation_slack = spec.activation_slack();
  if (spec.has_activation_limit()) settings.activation_limit = spec.activation_limit();
  if (spec.has_weight_parts()) settings.weight_parts = spec.weight_parts();
  if (spec.has_pairs()) settings.pairs = spec.pairs();
  if (spec.has_backward_output()) settings.backward_output = spec.backward_output();
  settings.lists_name =
      spec.has_schedule_actions() ? "parallelism.schedule_csv" : "parallelism.schedule";
  return settings;
}

// Chunks and parts of a weight gradient multiply what a step's lists hold.
Status CheckSize(const proto::Parallelism& spec, int num_ranks, int num_microbatches) {
  const int64_t pieces = std::max({int64_t{1}, int64_t{spec.virtual_stages()},
                                   int64_t{spec.virtual_stages()} * spec.weight_parts() / 4,
                                   int64_t{spec.weight_parts()} / 4});
  const int64_t forwards = int64_t{num_ranks} * num_microbatches;
  if (forwards <= kForwardsMax / pieces) return {};
  if (forwards <= kForwardsMax) {
    return MakeError(
        ErrorCode::kInvalidSpec,
        "parallelism.virtual_stages = {}, parallelism.weight_parts = {}: a step of {} microbatches "
        "on {} ranks has too many actions to plan; their product may be {} forwards, or four "
        "parts for each",
        spec.virtual_stages(), spec.weight_parts(), num_microbatches, num_ranks, kForwardsMax);
  }
  return MakeError(ErrorCode::kInvalidSpec,
                   "parallelism.pp = {}: {} microbatches a step are too many; use at most {}",
                   num_ranks, num_microbatches, kForwardsMax / num_ranks);
}

// The lists as far as they are known; nothing where they are not, or cannot be.
std::optional<Schedule> ReadLists(const proto::Parallelism& spec, int num_ranks,
                                  int num_microbatches, std::vector<Error>& errors) {
  if (!CheckWords(spec, errors) || num_ranks == 0) return std::nullopt;
  const bool of_file = spec.has_schedule_actions();
  // Every schedule takes twice as many microbatches as ranks.
  const int generated = num_microbatches > 0 ? num_microbatches : 2 * num_ranks;
  if (Status small = CheckSize(spec, num_ranks, generated); !small.ok()) {
    if (num_microbatches > 0) errors.push_back(std::move(small).error());
    return std::nullopt;
  }
  auto lists = of_file ? OfFile(spec.schedule_actions(), num_ranks, num_microbatches)
                       : Generated(spec, num_ranks, generated);
  if (lists.ok()) return *std::move(lists);
  errors.push_back(std::move(lists).error());
  return std::nullopt;
}

}  // namespace

int StagesByKeys(const proto::Parallelism& spec, int num_ranks) {
  if (spec.has_schedule_actions()) {
    const auto read = ParseCsv(spec.schedule_actions(), "csv");
    return read.ok() && read->num_ranks == num_ranks ? read->StagesPerDirection() : 0;
  }
  const auto name = CanonicalScheduleName(spec.has_schedule() ? spec.schedule() : "1f1b");
  if (!name.ok()) return 0;
  const auto known = std::ranges::find(KnownSchedules(), *name, &ScheduleInfo::name);
  const int chunks = spec.virtual_stages() == 0 ? known->chunks_default : spec.virtual_stages();
  const bool may_be =
      chunks >= known->chunks_min && (known->chunks_max == 0 || chunks <= known->chunks_max);
  return may_be && chunks <= kStagesMax / num_ranks ? num_ranks * chunks : 0;
}

std::optional<TrainSchedule> ReadTrainSchedule(const proto::Parallelism& spec, int num_ranks,
                                               int num_microbatches, std::vector<Error>& errors) {
  const ExecutionSettings settings = SettingsOf(spec);
  const size_t errors_before = errors.size();
  std::optional<Schedule> lists = ReadLists(spec, num_ranks, num_microbatches, errors);
  std::ranges::move(CheckSettings(lists ? &*lists : nullptr, settings), std::back_inserter(errors));
  if (!lists || errors.size() > errors_before) return std::nullopt;
  auto executable = MakeExecutable(*std::move(lists), settings);
  if (!executable.ok()) {
    errors.push_back(std::move(executable).error());
    return std::nullopt;
  }
  if (num_microbatches == 0) return std::nullopt;
  return TrainSchedule{.schedule = std::move(executable->schedule),
                       .policy = executable->policy,
                       .ascending = executable->report.ascending};
}

Result<TrainSchedule> TrainScheduleOf(const proto::Parallelism& spec, int num_ranks,
                                      int num_microbatches) {
  std::vector<Error> errors;
  auto train = ReadTrainSchedule(spec, num_ranks, num_microbatches, errors);
  if (!train) return std::move(errors.front());
  return *std::move(train);
}

}  // namespace troupe

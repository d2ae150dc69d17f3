#include "actors/plan/train_schedule.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "actors/schedule/csv.h"
#include "actors/schedule/execution_settings.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/schedule_choice.h"

namespace troupe {
namespace {

// The schedule's name and its number of chunks.
Status CheckName(const proto::Parallelism& spec) {
  if (spec.has_schedule_actions()) return {};  // a file's lists go under a name of their own
  const std::string& name = spec.schedule();
  if (spec.has_schedule() && name != kAutoSchedule && !CanonicalScheduleName(name).ok()) {
    constexpr size_t kShownBytes = 60;
    std::vector<std::string_view> known = {kAutoSchedule};
    for (const ScheduleInfo& schedule : KnownSchedules()) known.push_back(schedule.name);
    return MakeError(ErrorCode::kInvalidSpec, "parallelism.schedule = {}: use one of {}",
                     name.substr(0, kShownBytes), fmt::join(known, ", "));
  }
  if (spec.virtual_stages() < 0 || spec.virtual_stages() > kStagesMax) {
    return MakeError(ErrorCode::kInvalidSpec, "parallelism.virtual_stages = {}: use 1 to {}",
                     spec.virtual_stages(), kStagesMax);
  }
  return {};
}

Result<Schedule> ListsOf(const proto::Parallelism& spec, int num_ranks, int num_microbatches) {
  RETURN_IF_ERROR(CheckName(spec));
  if (!spec.has_schedule_actions()) {
    auto lists = Generate({.name = spec.has_schedule() ? spec.schedule() : "1f1b",
                           .num_ranks = num_ranks,
                           .num_microbatches = num_microbatches,
                           .chunks_per_rank = spec.virtual_stages()});
    if (!lists.ok()) {
      const std::string noun = spec.has_virtual_stages() ? fmt::format(
                                                               "parallelism.schedule with "
                                                               "parallelism.virtual_stages = {}",
                                                               spec.virtual_stages())
                                                         : "parallelism.schedule";
      return Context(noun, std::move(lists).error());
    }
    return lists;
  }
  CsvNotes notes;
  auto read = ParseCsv(spec.schedule_actions(), "csv", &notes);
  if (!read.ok()) return Context("parallelism.schedule_csv", std::move(read).error());
  if (!notes.collective.empty()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv: {}: no job runs UNSHARD, RESHARD, REDUCE_GRAD or "
                     "WAIT_REDUCE_GRAD yet; take them out",
                     notes.collective);
  }
  if (read->forward_only) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv: row 1, cell 1: there are Forwards only; a job "
                     "trains: add the backward of each");
  }
  if (read->num_ranks != num_ranks || read->num_microbatches != num_microbatches) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv is for {} ranks and {} microbatches, the job has "
                     "parallelism.pp = {} and {} microbatches a step: change the one or the other",
                     read->num_ranks, read->num_microbatches, num_ranks, num_microbatches);
  }
  for (Rank rank{}; rank.value < num_ranks; rank = rank.Next()) {
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
  if (spec.has_executor()) settings.executor = spec.executor();
  if (spec.has_activation_slack()) settings.activation_slack = spec.activation_slack();
  if (spec.has_activation_limit()) settings.activation_limit = spec.activation_limit();
  if (spec.has_weight_parts()) settings.weight_parts = spec.weight_parts();
  if (spec.has_pairs()) settings.pairs = spec.pairs();
  if (spec.has_backward_output()) settings.backward_output = spec.backward_output();
  settings.lists_name =
      spec.has_schedule_actions() ? "parallelism.schedule_csv" : "parallelism.schedule";
  return settings;
}

}  // namespace

void CheckScheduleKeys(const proto::Parallelism& spec, std::vector<Error>& errors) {
  if (Status name = CheckName(spec); !name.ok()) errors.push_back(std::move(name).error());
  std::ranges::move(CheckSettings(nullptr, SettingsOf(spec)), std::back_inserter(errors));
}

std::optional<TrainSchedule> ReadTrainSchedule(const proto::Parallelism& spec, int num_ranks,
                                               int num_microbatches, std::vector<Error>& errors) {
  const ExecutionSettings settings = SettingsOf(spec);
  const size_t errors_before = errors.size();
  // Chunks and parts of a weight gradient multiply what a step's lists hold.
  const int64_t pieces = std::max({int64_t{1}, int64_t{spec.virtual_stages()},
                                   int64_t{spec.virtual_stages()} * spec.weight_parts() / 4,
                                   int64_t{spec.weight_parts()} / 4});
  const bool too_many = int64_t{num_ranks} * num_microbatches > kForwardsMax / pieces;
  if (too_many && int64_t{num_ranks} * num_microbatches <= kForwardsMax) {
    errors.push_back(MakeError(
        ErrorCode::kInvalidSpec,
        "parallelism.virtual_stages = {}, parallelism.weight_parts = {}: a step of {} microbatches "
        "on {} ranks has too many actions to plan; their product may be {} forwards, or four "
        "parts for each",
        spec.virtual_stages(), spec.weight_parts(), num_microbatches, num_ranks, kForwardsMax));
  } else if (too_many) {
    errors.push_back(
        MakeError(ErrorCode::kInvalidSpec,
                  "parallelism.pp = {}: {} microbatches a step are too many; use at most {}",
                  num_ranks, num_microbatches, kForwardsMax / num_ranks));
  }
  auto lists = too_many ? Result<Schedule>(Schedule{}) : ListsOf(spec, num_ranks, num_microbatches);
  const bool lists_known = lists.ok() && !too_many;
  if (!lists.ok()) errors.push_back(std::move(lists).error());
  std::ranges::move(CheckSettings(lists_known ? &*lists : nullptr, settings),
                    std::back_inserter(errors));
  if (errors.size() > errors_before) return std::nullopt;
  auto executable = MakeExecutable(*std::move(lists), settings);
  if (!executable.ok()) {
    errors.push_back(std::move(executable).error());
    return std::nullopt;
  }
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

#include "actors/plan/train_schedule.h"

#include <utility>

#include "actors/schedule/csv.h"
#include "actors/schedule/execution_settings.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

Result<Schedule> ListsOf(const proto::Parallelism& spec, int num_ranks, int num_microbatches) {
  if (!spec.has_schedule_actions()) {
    auto lists = Generate({.name = spec.has_schedule() ? spec.schedule() : "1f1b",
                           .num_ranks = num_ranks,
                           .num_microbatches = num_microbatches,
                           .chunks_per_rank = spec.virtual_stages()});
    if (!lists.ok()) return Context("parallelism.schedule", std::move(lists).error());
    return lists;
  }
  auto read = ParseCsv(spec.schedule_actions(), "csv");
  if (!read.ok()) return Context("parallelism.schedule_csv", std::move(read).error());
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

Result<TrainSchedule> TrainScheduleOf(const proto::Parallelism& spec, int num_ranks,
                                      int num_microbatches) {
  if (int64_t{num_ranks} * num_microbatches > kForwardsMax) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.pp = {}: {} microbatches a step are too many; use at most {}",
                     num_ranks, num_microbatches, kForwardsMax / num_ranks);
  }
  ASSIGN_OR_RETURN(Schedule lists, ListsOf(spec, num_ranks, num_microbatches));
  ASSIGN_OR_RETURN(ExecutableSchedule executable,
                   MakeExecutable(std::move(lists), SettingsOf(spec)));
  return TrainSchedule{.schedule = std::move(executable.schedule),
                       .policy = executable.policy,
                       .ascending = executable.report.ascending};
}

}  // namespace troupe

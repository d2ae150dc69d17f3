#include "coordinator/cli/schedule_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "actors/schedule/collective_lists.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/schedule_choice.h"

namespace troupe {
namespace {

constexpr int64_t kActionsMax = 4'000'000;  // a gigabyte, some seconds
constexpr std::string_view kCompare = "compare";

template <typename... Args>
Error Refuse(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...);
}

const ScheduleInfo& InfoOf(const std::string& canonical) {
  const auto known = KnownSchedules();
  const auto info =
      std::ranges::find_if(known, [&](const ScheduleInfo& i) { return i.name == canonical; });
  CHECK(info != known.end(), "{}", canonical);
  return *info;
}

bool TakesChunks(const ScheduleInfo& info) { return info.chunks_max != info.chunks_min; }

bool IsFile(const std::string& name) {
  return name.ends_with(".csv") || name.find('/') != std::string::npos;
}

// ---- what is to be drawn ---------------------------------------------------------------------

struct NamedLists {
  std::string placement{};
  Schedule lists{};
};

std::string PlacementNameOf(const Schedule& schedule) {
  if (schedule.num_directions == 2) {
    return std::string(schedule.placement == BidirectionalPlacement(schedule.num_ranks)
                           ? PlacementName(PlacementKind::kBidirectional)
                           : "custom");
  }
  if (schedule.placement == LoopPlacement(schedule.num_ranks, schedule.num_stages)) {
    return std::string(PlacementName(PlacementKind::kLoop));
  }
  return std::string(schedule.placement == VPlacement(schedule.num_ranks, schedule.num_stages)
                         ? PlacementName(PlacementKind::kV)
                         : "custom");
}

class ListsReader {
 public:
  ListsReader(const ScheduleFlags& options, FileSystem& files, std::vector<std::string>& remarks)
      : options_(options), files_(files), remarks_(remarks) {}

  Result<NamedLists> Read(const std::string& name, bool compare) const {
    return IsFile(name) ? FromFile(name) : Generated(name, compare);
  }

 private:
  Result<NamedLists> Generated(const std::string& name, bool compare) const {
    const auto known = CanonicalScheduleName(name);
    if (!known.ok()) return Refuse("{}{}", known.error().message, compare ? "" : ", auto");
    const std::string& canonical = *known;
    const ScheduleInfo& info = InfoOf(canonical);
    if (!options_.ranks || !options_.microbatches) {
      return Refuse("schedule {}: give --stages P (ranks of the pipeline) and --microbatches M",
                    canonical);
    }
    ScheduleSpec spec{.name = canonical,
                      .num_ranks = *options_.ranks,
                      .num_microbatches = *options_.microbatches};
    // Beside schedules that take chunks or groups, those that do not stay as they are.
    if (options_.chunks && !(compare && !TakesChunks(info))) {
      const bool fixed = !TakesChunks(info) && *options_.chunks != info.chunks_min;
      if (fixed || *options_.chunks < info.chunks_min) {
        return Refuse("--chunks {}: schedule {} holds {}{} a rank; leave --chunks out",
                      *options_.chunks, canonical, info.chunks_min, fixed ? "" : " or more");
      }
      spec.chunks_per_rank = *options_.chunks;
    }
    if (options_.group && !(compare && !info.has_groups)) {
      if (!info.has_groups) {
        return Refuse("--group {}: schedule {} takes no groups of microbatches; leave --group out",
                      *options_.group, canonical);
      }
      spec.group = *options_.group;
    }
    const int64_t chunks = std::max(spec.chunks_per_rank, info.chunks_default);
    const int64_t actions = 3 * chunks * spec.num_ranks * spec.num_microbatches;
    if (actions > kActionsMax) {
      return Refuse(
          "schedule {}: {} ranks × {} microbatches make up to {} actions, more than {}; "
          "take fewer",
          canonical, spec.num_ranks, spec.num_microbatches, actions, kActionsMax);
    }
    ASSIGN_OR_RETURN(Schedule lists, Generate(spec));
    return NamedLists{.placement = std::string(PlacementName(info.placement)),
                      .lists = std::move(lists)};
  }

  Result<NamedLists> FromFile(const std::string& path) const {
    ASSIGN_OR_RETURN(const std::string text, files_.ReadFile(path, kCsvBytesMax));
    CsvNotes notes;
    auto read = ParseCsv(text, path, &notes);
    if (!read.ok()) return Context(path, std::move(read).error());
    if (options_.ranks.value_or(read->num_ranks) != read->num_ranks) {
      return Refuse("--stages {}: {} is for {} ranks; leave --stages out", *options_.ranks, path,
                    read->num_ranks);
    }
    if (options_.microbatches.value_or(read->num_microbatches) != read->num_microbatches) {
      return Refuse("--microbatches {}: {} is for {} microbatches; leave --microbatches out",
                    *options_.microbatches, path, read->num_microbatches);
    }
    if (notes.older_dialect) {
      remarks_.push_back(
          fmt::format("{} is in PyTorch's older dialect: BW is read as B, and its B as I", path));
    }
    if (notes.with_communication) {
      remarks_.push_back(fmt::format(
          "{} has sends and receives: they are those that the compute actions need", path));
    }
    const auto idle = std::ranges::find_if(
        read->ranks, [](const std::vector<Action>& actions) { return actions.empty(); });
    if (idle != read->ranks.end()) {
      remarks_.push_back(fmt::format("{} gives rank {} nothing to do: row {} has no action", path,
                                     idle - read->ranks.begin(), idle - read->ranks.begin() + 1));
    }
    return NamedLists{.placement = PlacementNameOf(*read), .lists = *std::move(read)};
  }

  const ScheduleFlags& options_;
  FileSystem& files_;
  std::vector<std::string>& remarks_;
};

// ---- numbers ---------------------------------------------------------------------------------

Status CheckRange(const std::optional<int>& given, std::string_view flag, int max) {
  if (!given || (*given >= 1 && *given <= max)) return {};
  return Refuse("--{} {}: use 1 to {}", flag, *given, max);
}

Status CheckNumbers(const ScheduleFlags& options) {
  RETURN_IF_ERROR(CheckRange(options.ranks, "stages", kRanksMax));
  RETURN_IF_ERROR(CheckRange(options.microbatches, "microbatches", kMicrobatchesMax));
  RETURN_IF_ERROR(CheckRange(options.chunks, "chunks", kStagesMax));
  RETURN_IF_ERROR(CheckRange(options.group, "group", kMicrobatchesMax));
  RETURN_IF_ERROR(CheckRange(options.unshard, "unshard", kStagesMax));
  RETURN_IF_ERROR(CheckRange(options.samples, "samples", kSamplesMax));
  if (!(options.rho >= 0 && options.rho <= 1)) {
    return Refuse("--rho {}: use 0 to 1, the part of an activation that the weight gradient needs",
                  options.rho);
  }
  if (options.memory_limit && !(*options.memory_limit >= 1 && *options.memory_limit <= 1e6)) {
    return Refuse("--memory-limit {}: a rank must hold 1 microbatch or more",
                  *options.memory_limit);
  }
  return {};
}

// ---- the whole -------------------------------------------------------------------------------

// The words after the verb, without "compare".
Result<std::vector<std::string>> NamesOf(const ScheduleFlags& options, bool compare) {
  std::vector<std::string> names(options.names.begin() + (compare ? 1 : 0), options.names.end());
  if (compare && names.size() < 2) {
    return Refuse(
        "schedule compare: name two schedules or more, as in: "
        "troupe schedule compare 1f1b zb-v --stages 4 --microbatches 8");
  }
  if (names.empty()) {
    return Refuse("name a schedule, or a FILE.csv; troupe schedule --list shows the names");
  }
  if (!compare && names.size() > 1) {
    return Refuse("schedule draws one; to see several together: troupe schedule compare {}",
                  fmt::join(names, " "));
  }
  return names;
}

Status CheckCompare(const ScheduleFlags& options, const std::vector<std::string>& names) {
  const auto some = [&names](const auto& takes) {
    return std::ranges::any_of(names, [&](const std::string& name) {
      const auto canonical = CanonicalScheduleName(name);
      return canonical.ok() && takes(InfoOf(*canonical));
    });
  };
  if (options.chunks && !some(TakesChunks)) {
    return Refuse(
        "--chunks {}: none of the schedules takes another number of chunks; leave "
        "--chunks out",
        *options.chunks);
  }
  if (options.group && !some([](const ScheduleInfo& info) { return info.has_groups; })) {
    return Refuse(
        "--group {}: none of the schedules takes groups of microbatches; leave --group "
        "out",
        *options.group);
  }
  return {};
}

Status ReadOutput(const ScheduleFlags& options, ScheduleRequest& request) {
  ASSIGN_OR_RETURN(request.output, ParseScheduleOutput(options.output));
  if (options.dialect != "troupe" && options.dialect != "pytorch") {
    return Refuse("--dialect {}: use troupe or pytorch", options.dialect);
  }
  request.dialect = options.dialect == "pytorch" ? Dialect::kPyTorch : Dialect::kTroupe;
  request.with_communication = options.with_communication;
  const bool csv = request.output == ScheduleOutput::kCsv;
  if (csv && request.compare) {
    return Refuse("--output csv: a file holds one schedule; with compare use text, json or svg");
  }
  if (!csv && (options.with_communication || request.dialect != Dialect::kTroupe)) {
    return Refuse("--{} is for -o csv, not {}",
                  options.with_communication ? "with-communication" : "dialect pytorch",
                  options.output);
  }
  return {};
}

Result<Schedule> Lowered(const Schedule& lists, int num_stages) {
  for (const std::vector<Action>& actions : lists.ranks) {
    if (std::ranges::none_of(actions, IsCollective, &Action::kind)) continue;
    return Refuse("--unshard {}: {} has collectives of its own; leave --unshard out", num_stages,
                  lists.name);
  }
  auto lowered = WithCollectives(lists, num_stages);
  if (lowered.ok()) return lowered;
  return Context(fmt::format("--unshard {}", num_stages), std::move(lowered).error());
}

Result<ExecutableSchedule> Executable(const ScheduleFlags& options, Schedule lists) {
  if (options.unshard) {
    ASSIGN_OR_RETURN(lists, Lowered(lists, *options.unshard));
  }
  ExecutionSettings settings = options.execution;
  settings.style = SettingStyle::kFlag;
  settings.lists_name = lists.name;
  ASSIGN_OR_RETURN(const ExecutorMode mode, ExecutorModeOf(lists, settings));
  // Elsewhere the limit is the lower bound's alone.
  if (mode == ExecutorMode::kFreeRun) settings.activation_limit = options.memory_limit;
  return MakeExecutable(std::move(lists), settings);
}

// The schedule that simulation with these costs likes best; why goes to the remarks.
Result<RequestedSchedule> Chosen(const ScheduleFlags& options, const UserCosts& costs,
                                 std::vector<std::string>& remarks) {
  const ExecutionSettings& execution = options.execution;
  const std::pair<bool, const char*> chosen[] = {
      {options.chunks.has_value(), "chunks"},
      {options.group.has_value(), "group"},
      {options.unshard.has_value(), "unshard"},
      {execution.executor.has_value(), "executor"},
      {execution.activation_slack.has_value(), "activation-slack"},
      {execution.weight_parts.has_value(), "weight-parts"},
      {execution.backward_output.has_value(), "backward-output"}};
  for (const auto& [given, flag] : chosen) {
    if (given) return Refuse("--{}: schedule auto chooses it; leave it out", flag);
  }
  if (!options.ranks || !options.microbatches) {
    return Refuse("schedule auto: give --stages P (ranks of the pipeline) and --microbatches M");
  }
  ChoiceOptions choice{
      .num_ranks = *options.ranks,
      .num_microbatches = *options.microbatches,
      .activation_limit = options.memory_limit.value_or(DefaultActivationLimit(*options.ranks)),
      .style = SettingStyle::kFlag};
  if (execution.pairs) {
    ASSIGN_OR_RETURN(choice.pairs, ParsePairMode(*execution.pairs));
  }
  if (int64_t{*options.ranks} * *options.microbatches > kChoiceMax) {
    return Refuse("schedule auto: {} ranks × {} microbatches are more than it simulates ({})",
                  *options.ranks, *options.microbatches, kChoiceMax);
  }
  double ticks = 0;  // the work of every schedule is the same, so the first's will do
  choice.costs = [&](const Schedule& schedule) -> Result<CostModel> {
    std::vector<std::string> unsaid;
    ASSIGN_OR_RETURN(const auto times, StageTimesOf(costs, schedule, unsaid));
    if (ticks == 0) {
      // With room for schedules of more hops, and for noise.
      constexpr double kRoom = 64;
      ASSIGN_OR_RETURN(ticks, TicksPerUnit(kRoom * TotalTime(times, costs, schedule)));
    }
    return InTicks(times, costs, ticks);
  };
  ASSIGN_OR_RETURN(ScheduleChoice ranked, ChooseSchedule(choice));
  const std::string unit = costs.unit.empty() ? "" : " " + costs.unit;
  remarks.push_back(fmt::format("auto: {}", ReasonFor(ranked, choice, ticks, unit)));
  ScheduleOrder& first = ranked.ranked.front();
  return RequestedSchedule{
      .name = first.spec.name,
      .placement = std::string(PlacementName(InfoOf(first.spec.name).placement)),
      .executable = std::move(first.executable)};
}

Status ReadCosts(const UserCosts& costs, ScheduleRequest& request) {
  std::vector<std::vector<StageTimes>> stages;
  double most = 0;
  for (const RequestedSchedule& requested : request.schedules) {
    const Schedule& schedule = requested.executable.schedule;
    ASSIGN_OR_RETURN(auto times, StageTimesOf(costs, schedule, request.remarks));
    stages.push_back(std::move(times));
    most = std::max(most, TotalTime(stages.back(), costs, schedule));
  }
  ASSIGN_OR_RETURN(const double ticks, TicksPerUnit(most * LongestBy(request.figures.noise)));
  for (size_t i = 0; i < stages.size(); ++i) {
    request.schedules[i].costs = InTicks(stages[i], costs, ticks);
  }
  request.unit = {.ns = ticks, .name = costs.unit};
  return {};
}

}  // namespace

Result<ScheduleOutput> ParseScheduleOutput(const std::string& name) {
  constexpr std::array<std::string_view, 4> kNames = {"text", "json", "csv", "svg"};
  const auto found = std::ranges::find(kNames, name);
  if (found == kNames.end()) return Refuse("--output {}: use text, json, csv or svg", name);
  return static_cast<ScheduleOutput>(found - kNames.begin());
}

Result<ScheduleRequest> MakeScheduleRequest(const ScheduleFlags& options, FileSystem& files) {
  ScheduleRequest request;
  request.compare = !options.names.empty() && options.names.front() == kCompare;
  RETURN_IF_ERROR(ReadOutput(options, request));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesOf(options, request.compare));
  RETURN_IF_ERROR(CheckNumbers(options));
  if (request.compare) RETURN_IF_ERROR(CheckCompare(options, names));
  ASSIGN_OR_RETURN(request.figures.noise, NoiseOf(options.noise));
  request.figures.num_samples = options.samples;
  request.figures.held_for_weight = options.rho;
  request.figures.activations_max = options.memory_limit;
  const ListsReader reader(options, files, request.remarks);
  ASSIGN_OR_RETURN(const UserCosts costs, ReadUserCosts(options.costs, files));
  for (const std::string& name : names) {
    if (name == kAutoSchedule) {
      ASSIGN_OR_RETURN(RequestedSchedule chosen, Chosen(options, costs, request.remarks));
      RETURN_IF_ERROR(
          CheckStraggler(request.figures.noise, options.noise, chosen.executable.schedule));
      request.schedules.push_back(std::move(chosen));
      continue;
    }
    ASSIGN_OR_RETURN(NamedLists named, reader.Read(name, request.compare));
    RequestedSchedule requested{.name = named.lists.name, .placement = named.placement};
    RETURN_IF_ERROR(CheckStraggler(request.figures.noise, options.noise, named.lists));
    ASSIGN_OR_RETURN(requested.executable, Executable(options, std::move(named.lists)));
    request.schedules.push_back(std::move(requested));
  }
  RETURN_IF_ERROR(ReadCosts(costs, request));
  return request;
}

}  // namespace troupe

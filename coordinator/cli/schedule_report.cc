#include "coordinator/cli/schedule_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include <nlohmann/json.hpp>

#include "actors/schedule/activations.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/schedule_choice.h"

namespace troupe {
namespace {

using nlohmann::ordered_json;
using Figures = std::vector<ScheduleFigures>;
using Table = std::vector<std::vector<std::string>>;

// Ticks and means carry rounding in their last bits; twelve digits are what was meant.
double Rounded(double value) {
  if (std::abs(value) < 1e-12) return 0;
  return std::strtod(fmt::format("{:.12g}", value).c_str(), nullptr);
}

// Shown numbers of one report, in the user's unit.
class Shown {
 public:
  explicit Shown(const ScheduleRequest& request)
      : unit_(request.unit), several_(request.figures.num_samples > 1) {}

  double Units(double ns) const { return Rounded(ns / unit_.ns); }
  // "28.5" or "28.52 ± 0.03".
  std::string Time(const Estimate& ns) const {
    return Number(ns.mean / unit_.ns, ns.standard_error / unit_.ns);
  }
  std::string Time(double ns) const { return fmt::format("{:.6g}", Rounded(ns / unit_.ns)); }
  // "5.26 %" or "5.26 ± 0.03 %".
  static std::string Percent(double share) { return fmt::format("{:.2f} %", 100 * Rounded(share)); }
  std::string Percent(const Estimate& share) const {
    if (!several_) return Percent(share.mean);
    return fmt::format("{:.2f} ± {:.2f} %", 100 * Rounded(share.mean), 100 * share.standard_error);
  }
  std::string unit() const { return unit_.name.empty() ? "" : " " + unit_.name; }
  bool several() const { return several_; }

 private:
  std::string Number(double mean, double error) const {
    return several_ ? fmt::format("{:.5g} ± {:.2g}", Rounded(mean), Rounded(error))
                    : fmt::format("{:.6g}", Rounded(mean));
  }

  const TimeUnit& unit_;
  bool several_;
};

std::string TitleOf(const RequestedSchedule& requested) {
  const Schedule& schedule = requested.executable.schedule;
  std::string title =
      fmt::format("{} · {} rank{} × {} microbatch{}", requested.name, schedule.num_ranks,
                  schedule.num_ranks == 1 ? "" : "s", schedule.num_microbatches,
                  schedule.num_microbatches == 1 ? "" : "es");
  if (schedule.num_stages > schedule.num_ranks) {
    title += fmt::format(" · {} stages", schedule.num_stages);
  }
  const ExecutionPolicy& policy = requested.executable.policy;
  if (policy.mode == ExecutorMode::kGuided) {
    title += policy.activation_slack > 0
                 ? fmt::format(" · guided with a slack of {}", policy.activation_slack)
                 : " · guided";
  } else if (policy.mode == ExecutorMode::kFreeRun) {
    title += fmt::format(" · free-run within {} microbatches", policy.activation_limit);
  }
  return title;
}

double PeakOf(const ScheduleFigures& figures) { return std::ranges::max(figures.peak_activations); }

double AboveBound(const ScheduleFigures& figures) {
  return figures.makespan_ns.mean / static_cast<double>(figures.lower_bound.makespan_ns) - 1;
}

Table TableOf(const ScheduleRequest& request, const Figures& figures) {
  const Shown shown(request);
  Table table = {{"schedule", "makespan", "bubble", "span", "bubble", "peak", "copies", "messages",
                  "bound", "above it"}};
  if (shown.several()) table.front().push_back("above samples'");
  for (size_t i = 0; i < figures.size(); ++i) {
    const ScheduleFigures& f = figures[i];
    const ScheduleReport& report = request.schedules[i].executable.report;
    table.push_back({request.schedules[i].name, shown.Time(f.makespan_ns),
                     shown.Percent(f.bubble_makespan), shown.Time(f.span_ns),
                     shown.Percent(f.bubble_span), fmt::format("{:g}", Rounded(PeakOf(f))),
                     fmt::format("{}", report.parameter_replicas),
                     fmt::format("{}", report.messages_per_microbatch),
                     shown.Time(static_cast<double>(f.lower_bound.makespan_ns)),
                     Shown::Percent(AboveBound(f))});
    if (shown.several()) table.back().push_back(shown.Percent(f.excess));
  }
  return table;
}

// Columns, not bytes.
size_t WidthOf(const std::string& text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string Aligned(const Table& table) {
  std::vector<size_t> widths(table.front().size(), 0);
  for (const auto& row : table) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], WidthOf(row[i]));
  }
  std::string text;
  for (const auto& row : table) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - WidthOf(row[i]), ' ');
      text += i == 0 ? row[i] + space : "  " + space + row[i];
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
  }
  return text;
}

// By rank, the most stages that the list keeps gathered at one time.
std::vector<int> GatheredStages(const Schedule& schedule) {
  const std::vector<int64_t> one(static_cast<size_t>(schedule.num_stages), 1);
  std::vector<int> most;
  for (PipelineRank rank{}; rank.value < schedule.num_ranks; rank = rank.Next()) {
    most.push_back(static_cast<int>(PeakGathered(schedule, rank, one)));
  }
  return most;
}

std::string FiguresText(const ScheduleRequest& request, const ScheduleFigures& f) {
  const Shown shown(request);
  const RequestedSchedule& requested = request.schedules.front();
  const ScheduleReport& report = requested.executable.report;
  std::string text =
      fmt::format("makespan     {}{}, bubble {} ({})\n", shown.Time(f.makespan_ns), shown.unit(),
                  shown.Percent(f.bubble_makespan), shown.Time(f.bubble_makespan_ns));
  text += fmt::format("span         {}{}, bubble {} ({})\n", shown.Time(f.span_ns), shown.unit(),
                      shown.Percent(f.bubble_span), shown.Time(f.bubble_span_ns));
  text += fmt::format(
      "lower bound  {}{} with {:g} microbatches' activations a rank; the makespan is {} above\n",
      shown.Time(static_cast<double>(f.lower_bound.makespan_ns)), shown.unit(),
      Rounded(f.lower_bound_activations), Shown::Percent(AboveBound(f)));
  if (shown.several()) {
    text += fmt::format("samples      {}, on average {} above each one's own bound\n",
                        request.figures.num_samples, shown.Percent(f.excess));
  }
  std::vector<std::string> peaks;
  for (const double peak : f.peak_activations) peaks.push_back(fmt::format("{:g}", Rounded(peak)));
  const bool alike = std::ranges::all_of(peaks, [&](const auto& p) { return p == peaks.front(); });
  text += fmt::format("activations  {} microbatches{}\n",
                      alike ? peaks.front() : fmt::format("{}", fmt::join(peaks, " ")),
                      alike && peaks.size() > 1 ? " on every rank" : " by rank");
  if (const std::vector<int> gathered = GatheredStages(requested.executable.schedule);
      std::ranges::max(gathered) > 0) {
    text += fmt::format("gathered     the parameters of up to {} stages at a time by rank\n",
                        fmt::join(gathered, " "));
  }
  text += fmt::format(
      "parameters   {}; {} message{} a microbatch between ranks\n",
      report.parameter_replicas == 1 ? "held once"
                                     : fmt::format("held {} times", report.parameter_replicas),
      report.messages_per_microbatch, report.messages_per_microbatch == 1 ? "" : "s");
  return text;
}

std::vector<Panel> PanelsOf(const ScheduleRequest& request, const Figures& figures) {
  std::vector<Panel> panels;
  for (size_t i = 0; i < figures.size(); ++i) {
    panels.push_back({request.compare ? TitleOf(request.schedules[i]) : "", figures[i].timeline});
  }
  return panels;
}

bool HasParts(const Schedule& schedule) {
  return std::ranges::any_of(schedule.ranks, [](const std::vector<Action>& actions) {
    return std::ranges::any_of(actions, [](const Action& a) { return a.num_parts > 1; });
  });
}

// ---- JSON ------------------------------------------------------------------------------------

void Add(ordered_json& json, const std::string& key, double mean, double error, bool several) {
  json[key] = Rounded(mean);
  if (several) json[key + "_standard_error"] = Rounded(error);
}

ordered_json JsonOf(const ScheduleRequest& request, const RequestedSchedule& requested,
                    const ScheduleFigures& f) {
  const Shown shown(request);
  const Schedule& schedule = requested.executable.schedule;
  const auto rate = [&](ordered_json& json, const std::string& key, const Estimate& estimate) {
    Add(json, key, estimate.mean, estimate.standard_error, shown.several());
  };
  const auto time = [&](ordered_json& json, const std::string& key, const Estimate& ns) {
    Add(json, key, ns.mean / request.unit.ns, ns.standard_error / request.unit.ns, shown.several());
  };
  ordered_json json;
  json["name"] = requested.name;
  json["ranks"] = schedule.num_ranks;
  json["stages"] = schedule.num_stages;
  json["microbatches"] = schedule.num_microbatches;
  json["placement"] = requested.placement;
  if (shown.several()) json["samples"] = request.figures.num_samples;
  time(json, "makespan", f.makespan_ns);
  time(json, "span", f.span_ns);
  rate(json, "bubble_makespan", f.bubble_makespan);
  rate(json, "bubble_span", f.bubble_span);
  time(json, "bubble_makespan_time", f.bubble_makespan_ns);
  time(json, "bubble_span_time", f.bubble_span_ns);
  json["peak_activations"] = ordered_json::array();
  for (const double peak : f.peak_activations) json["peak_activations"].push_back(Rounded(peak));
  if (const std::vector<int> gathered = GatheredStages(schedule); std::ranges::max(gathered) > 0) {
    json["gathered_stages"] = gathered;
  }
  json["parameter_replicas"] = requested.executable.report.parameter_replicas;
  json["messages_per_microbatch"] = requested.executable.report.messages_per_microbatch;
  json["lower_bound_makespan"] = shown.Units(static_cast<double>(f.lower_bound.makespan_ns));
  if (shown.several()) rate(json, "excess_over_sampled_lower_bound", f.excess);
  json["valid"] = true;  // what cannot run is refused before
  json["actions"] = ordered_json::array();
  for (const auto& actions : f.executed.ranks) json["actions"].push_back(ToCsvRow(actions));
  return json;
}

std::string Dumped(const ordered_json& json) {
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

// ---- the list --------------------------------------------------------------------------------

std::string ChunksText(const ScheduleInfo& info) {
  if (info.chunks_max == info.chunks_min) {
    return fmt::format("{} chunk{}", info.chunks_min, info.chunks_min == 1 ? "" : "s");
  }
  return fmt::format("{} chunk{} or more ({} unless given)", info.chunks_min,
                     info.chunks_min == 1 ? "" : "s", info.chunks_default);
}

// What the list says of `auto`, which has no order of its own.
constexpr std::string_view kAutoNote =
    "fastest by simulation of those with one copy of the weights, also guided and free-run";
std::string AutoConstraint() { return fmt::format("any p, any m, pm <= {}", kChoiceMax); }
std::string AutoPeak() {
  return fmt::format("at most --memory-limit, unless given {:g}p",
                     DefaultActivationLimit(1000) / 1000);
}

std::string ListText() {
  std::string text =
      "p ranks, rank r, m microbatches, v chunks a rank, groups of N; f, b, w: time of Forward, "
      "input\ngradient, weight gradient of a rank's whole share; f alone where f = b = w.\n";
  for (const ScheduleInfo& info : KnownSchedules()) {
    std::string aliases;
    for (const std::string_view alias : info.aliases) {
      if (!alias.empty()) aliases += fmt::format("{}{}", aliases.empty() ? "" : ", ", alias);
    }
    text += fmt::format("\n{}{}\n", info.name, aliases.empty() ? "" : " (" + aliases + ")");
    text += fmt::format("  shape        {}; {} placement, {}{}\n", info.constraint,
                        PlacementName(info.placement), ChunksText(info),
                        info.parameter_replicas > 1
                            ? fmt::format(", parameters held {} times", info.parameter_replicas)
                            : "");
    text += fmt::format("  bubble       {}\n  activations  {}\n  messages     {} a microbatch\n",
                        info.bubble, info.peak, info.messages);
    if (!info.note.empty()) text += fmt::format("  note         {}\n", info.note);
  }
  return text + fmt::format("\n{}\n  shape        {}\n  activations  {}\n  note         {}\n",
                            kAutoSchedule, AutoConstraint(), AutoPeak(), kAutoNote);
}

// An empty text is a fact that the schedule has not.
ordered_json OrNull(std::string_view text) {
  return text.empty() ? ordered_json(nullptr) : ordered_json(text);
}

std::string ListJson() {
  ordered_json json;
  for (const ScheduleInfo& info : KnownSchedules()) {
    ordered_json aliases = ordered_json::array();
    for (const std::string_view alias : info.aliases) {
      if (!alias.empty()) aliases.push_back(alias);
    }
    json["schedules"].push_back(
        {{"name", info.name},
         {"aliases", std::move(aliases)},
         {"constraint", info.constraint},
         {"placement", PlacementName(info.placement)},
         {"chunks_default", info.chunks_default},
         {"chunks_min", info.chunks_min},
         {"chunks_max",
          info.chunks_max == 0 ? ordered_json(nullptr) : ordered_json(info.chunks_max)},
         {"has_groups", info.has_groups},
         {"parameter_replicas", info.parameter_replicas},
         {"bubble", info.bubble},
         {"peak_activations", info.peak},
         {"messages_per_microbatch", info.messages},
         {"note", OrNull(info.note)}});
  }
  // `auto` has the keys of the others; null is what the order that it takes decides.
  json["schedules"].push_back({{"name", kAutoSchedule},
                               {"aliases", ordered_json::array()},
                               {"constraint", AutoConstraint()},
                               {"placement", nullptr},
                               {"chunks_default", nullptr},
                               {"chunks_min", nullptr},
                               {"chunks_max", nullptr},
                               {"has_groups", false},
                               {"parameter_replicas", 1},
                               {"bubble", nullptr},
                               {"peak_activations", AutoPeak()},
                               {"messages_per_microbatch", nullptr},
                               {"note", kAutoNote}});
  return Dumped(json);
}

}  // namespace

std::string ScheduleText(const ScheduleRequest& request, const Figures& figures, int columns) {
  std::string text = request.compare ? "" : TitleOf(request.schedules.front()) + "\n";
  text += DrawText(PanelsOf(request, figures), columns);
  return text + "\n" +
         (request.compare ? Aligned(TableOf(request, figures))
                          : FiguresText(request, figures.front()));
}

std::string ScheduleJson(const ScheduleRequest& request, const Figures& figures) {
  if (!request.compare) {
    return Dumped(JsonOf(request, request.schedules.front(), figures.front()));
  }
  ordered_json json;
  for (size_t i = 0; i < figures.size(); ++i) {
    json["schedules"].push_back(JsonOf(request, request.schedules[i], figures[i]));
  }
  return Dumped(json);
}

Result<std::string> ScheduleCsv(const ScheduleRequest& request, const ScheduleFigures& figures) {
  const bool pytorch = request.dialect == Dialect::kPyTorch;
  if (pytorch && HasParts(figures.executed)) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "--dialect pytorch: PyTorch's files have no parts of a weight gradient; give "
                     "--weight-parts 1");
  }
  auto csv = request.with_communication ? ToCsvWithCommunication(figures.executed, request.dialect)
                                        : ToCsv(figures.executed, request.dialect);
  if (!csv.ok()) {
    return Context(pytorch ? "--dialect pytorch" : "--with-communication", std::move(csv).error());
  }
  return csv;
}

std::string ScheduleSvg(const ScheduleRequest& request, const Figures& figures) {
  SvgOptions options{.unit = request.unit};
  if (request.compare) {
    options.table = TableOf(request, figures);
  } else {
    options.title = TitleOf(request.schedules.front());
  }
  return DrawSvg(PanelsOf(request, figures), options);
}

Result<std::string> ScheduleList(ScheduleOutput output) {
  if (output == ScheduleOutput::kText) return ListText();
  if (output == ScheduleOutput::kJson) return ListJson();
  return MakeError(ErrorCode::kInvalidSpec, "--list: use --output text or json");
}

std::vector<std::string> ScheduleRemarks(const ScheduleRequest& request, const Figures& figures) {
  std::vector<std::string> remarks = request.remarks;
  const auto limit = request.figures.activations_max;
  for (size_t i = 0; i < figures.size(); ++i) {
    if (limit && PeakOf(figures[i]) > *limit + 1e-9) {
      remarks.push_back(fmt::format(
          "{} holds {:g} microbatches' activations on a rank, above --memory-limit {:g}",
          request.schedules[i].name, Rounded(PeakOf(figures[i])), *limit));
    }
  }
  return remarks;
}

}  // namespace troupe

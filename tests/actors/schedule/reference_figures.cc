#include "tests/actors/schedule/reference_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "actors/schedule/execution_settings.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"
#include "tests/actors/schedule/reference_tables.h"

namespace troupe::testing {
namespace {

// Times are counted in a 1200th of a unit, which every number of chunks here divides.
constexpr int64_t kUnitNs = 1200;
constexpr double kExact = 1e-9;
constexpr double kNotJudged = -1;

// In units.
struct Times {
  double f = 1;
  double b = 1;
  double w = 1;
  double hop = 0;
};

struct Run {
  ExecutableSchedule executable{};
  Simulation simulation{};

  double MakespanBubble() const { return Units(simulation.bubble_makespan_ns); }
  double SpanBubble() const { return Units(simulation.bubble_span_ns); }
  double Makespan() const { return Units(simulation.idle.makespan_ns); }
  double Peak() const { return std::ranges::max(simulation.peak_activations); }
  static double Units(int64_t ns) { return static_cast<double>(ns) / kUnitNs; }
};

struct HowToRun {
  int64_t unit_ns = kUnitNs;
  double pair_factor = 1;
  double held_for_weight = 1;
};

Run RunOf(const ScheduleSpec& spec, const Times& times, const ExecutionSettings& settings = {},
          const HowToRun& how = {}) {
  const auto ns = [&how](double units) {
    return std::llround(units * static_cast<double>(how.unit_ns));
  };
  Run run{.executable = *MakeExecutable(*Generate(spec), settings)};
  CostModel costs = CostModel::Uniform(run.executable.schedule,
                                       {.forward_ns = ns(times.f),
                                        .backward_input_ns = ns(times.b),
                                        .backward_weight_ns = ns(times.w)},
                                       ns(times.hop));
  costs.pair_factor = how.pair_factor;
  run.simulation = *Simulate(run.executable.schedule, costs,
                             {.policy = run.executable.policy,
                              .held_for_weight = how.held_for_weight,
                              .keep_bars = false});
  return run;
}

ExecutionSettings Pairs(bool fused) { return {.pairs = fused ? "fused" : "eager"}; }

std::string Label(const std::string& name, int chunks, bool fused) {
  return fmt::format("{}{}{}", name, chunks > 0 ? fmt::format(" v={}", chunks) : "",
                     fused ? ", fused pairs" : "");
}

// ---- closed forms ------------------------------------------------------------------------------

struct ClosedForm {
  std::string name{};
  int chunks = 0;
  int group = 0;
  bool fused = false;
  Times times{};
  std::optional<double> makespan{};  // bubbles, in units
  std::optional<double> span{};
  double peak = 0;  // m where that is less
  int messages = 0;
};

constexpr Times kEqual{};
constexpr Times kUnequalTimes{.f = 3, .b = 4, .w = 2};
constexpr double kAllMicrobatches = std::numeric_limits<double>::infinity();

void AddWholeBackwards(int p, std::vector<ClosedForm>& forms) {
  const int around = 2 * (p - 1);
  for (const char* name : {"gpipe", "1f1b"}) {
    for (const Times& t : {kEqual, kUnequalTimes}) {
      const double bubble = (p - 1) * (t.f + t.b + t.w);
      const double peak = std::string(name) == "gpipe" ? kAllMicrobatches : p;
      forms.push_back({name, 0, 0, false, t, bubble, bubble, peak, around});
    }
  }
  for (const int v : {2, 3, 4}) {
    for (const Times& t : {kEqual, kUnequalTimes}) {
      const double bubble = (p - 1) * (t.f + t.b + t.w) / v;
      for (const int group : {p, p + 2, 2 * p}) {
        const double peak = ((v - 1.0) * group + 2 * (p - 1) + 1) / v;
        forms.push_back(
            {"interleaved-1f1b", v, group, false, t, bubble, bubble, peak, 2 * (p * v - 1)});
      }
    }
  }
  for (const int v : {2, 3, 4}) {
    for (const Times& t : {kEqual, kUnequalTimes}) {
      const double bubble = (p - 1) * (t.f + t.b + t.w) / v;
      forms.push_back(
          {"looped-bfs", v, 0, false, t, bubble, bubble, kAllMicrobatches, 2 * (p * v - 1)});
    }
  }
}

void AddSplitBackwards(int p, std::vector<ClosedForm>& forms) {
  const int around = 2 * (p - 1);
  for (const Times& t : {kEqual, kUnequalTimes}) {
    const double bubble = (p - 1) * (t.f + t.b - t.w);
    forms.push_back({"zb-h1", 0, 0, false, t, bubble, bubble, 1.0 * p, around});
  }
  for (Times t : {kEqual, kUnequalTimes}) {
    for (const double hop : {0.0, 0.1}) {
      t.hop = hop;
      const double span = (p - 1) * (t.f + t.b - 2 * t.w) + 2 * hop * (p - 1);
      std::optional<double> makespan;
      if (t.f == t.w && hop == 0) makespan = span + (p - 1) * t.f;
      forms.push_back({"zb-h2", 0, 0, false, t, makespan, span, 2.0 * p - 1, around});
    }
  }
  for (const int v : {2, 1, 3, 4}) {
    for (const Times& t : {kEqual, kUnequalTimes}) {
      const double bubble = (p - 1) * (t.f + t.b - t.w) / v;
      forms.push_back({"interleaved-zb", v, 0, false, t, bubble, bubble, 1.0 * p, 2 * (p * v - 1)});
    }
  }
}

void AddOnTheV(int p, std::vector<ClosedForm>& forms) {
  const int there_and_back = 4 * (p - 1);
  forms.push_back({"zb-v", 0, 0, false, kEqual, (p - 1) / 2.0, 0.0, 1.0 * p, there_and_back});
  const double bubble = 2.0 * (p - 1);
  forms.push_back({"zb-v", 0, 0, false, kUnequalTimes, bubble, bubble, 1.0 * p, there_and_back});
  const double half = 1.5 * p - 3.5;
  const double least = 2.0 * p - 2.5;
  forms.push_back({"v-half", 0, 0, false, kEqual, half, half, (p + 2) / 2 * 1.0, there_and_back});
  forms.push_back({"v-min", 0, 0, false, kEqual, least, least, (p + 4) / 3 * 1.0, there_and_back});
}

// For f, b, w = 3, 4, 2 the published formulas are above what the schedules take: what they take
// stands here.
void AddPairs(int p, std::vector<ClosedForm>& forms) {
  const size_t i = p == 4 ? 0 : p == 8 ? 1 : 2;
  constexpr double kEagerDual[] = {5, 15, 39};
  constexpr double kFusedDual[] = {8, 24, 60};
  constexpr double kFusedDualV[] = {12, 30, 66};
  const int around = 2 * (p - 1);
  const auto add = [&](const char* name, bool fused, const Times& t, double bubble) {
    const bool v = std::string(name) == "dualpipe-v";
    forms.push_back(
        {name, 0, 0, fused, t, bubble, bubble, p + (v ? 0.5 : 1), v ? 2 * around : around});
  };
  add("dualpipe", false, kEqual, p / 2 - 1);
  add("dualpipe", false, kUnequalTimes, kEagerDual[i]);
  add("dualpipe", true, kEqual, p - 2);
  add("dualpipe", true, kUnequalTimes, kFusedDual[i]);
  add("dualpipe-v", false, kEqual, (p - 1) / 2.0);
  add("dualpipe-v", true, kEqual, p - 1);
  add("dualpipe-v", true, kUnequalTimes, kFusedDualV[i]);
}

FigureRow CompareWith(const ClosedForm& form, int p, int m) {
  const Run run = RunOf({.name = form.name,
                         .num_ranks = p,
                         .num_microbatches = m,
                         .chunks_per_rank = form.chunks,
                         .group = form.group},
                        form.times, Pairs(form.fused));
  const Times& t = form.times;
  FigureRow row{.label = Label(form.name, 0, form.fused),
                .p = p,
                .shape = fmt::format("m = {}, v = {}, N = {}, f, b, w, c = {}, {}, {}, {}", m,
                                     form.chunks, form.group, t.f, t.b, t.w, t.hop)};
  if (form.makespan) {
    row.figures.push_back({"makespan bubble", run.MakespanBubble(), *form.makespan, kExact});
  }
  if (form.span) row.figures.push_back({"span bubble", run.SpanBubble(), *form.span, kExact});
  row.figures.push_back({"peak", run.Peak(), std::min<double>(form.peak, m), kExact});
  row.figures.push_back({"messages", 1.0 * run.executable.report.messages_per_microbatch,
                         1.0 * form.messages, kExact});
  return row;
}

}  // namespace

bool Figure::equal() const { return std::abs(ours - reference) <= tolerance; }

int FigureTable::NumJudged() const {
  int count = 0;
  for (const FigureRow& row : rows) count += std::ranges::count_if(row.figures, &Figure::judged);
  return count;
}

int FigureTable::NumEqual() const {
  int count = 0;
  for (const FigureRow& row : rows) count += std::ranges::count_if(row.figures, &Figure::equal);
  return count;
}

FigureTable ClosedFormFigures() {
  FigureTable table{.title = "closed forms of 12 schedules, p = 4, 8, 16", .decimals = 2};
  for (const int p : {4, 8, 16}) {
    std::vector<ClosedForm> forms;
    AddWholeBackwards(p, forms);
    AddSplitBackwards(p, forms);
    AddOnTheV(p, forms);
    AddPairs(p, forms);
    for (const ClosedForm& form : forms) {
      for (const int m : {4 * p, 3 * p, 2 * p}) {
        const bool groups_fit = form.group == 0 || m % form.group == 0 || m % form.group >= p;
        if (groups_fit) table.rows.push_back(CompareWith(form, p, m));
      }
    }
  }
  return table;
}

FigureTable ProfileFigures() {
  FigureTable table{.title = "rates on 12 measured profiles", .decimals = 4};
  for (const ProfileRow& row : kProfiles) {
    const Times times{.f = row.f_ms, .b = row.b_ms, .w = row.w_ms, .hop = row.hop_ms};
    const auto idle_of = [&](const char* name, int chunks = 0) {
      return RunOf({.name = name,
                    .num_ranks = row.p,
                    .num_microbatches = row.m,
                    .chunks_per_rank = chunks},
                   times, {}, {.unit_ns = 1'000'000})
          .simulation.idle;
    };
    table.rows.push_back(
        {.label = fmt::format("m = {}, f, b, w, c = {}, {}, {}, {} ms", row.m, row.f_ms, row.b_ms,
                              row.w_ms, row.hop_ms),
         .p = row.p,
         .shape = "",
         .figures = {
             {"1f1b", idle_of("1f1b").bubble_makespan, row.one_f_one_b, kFourDecimals},
             {"interleaved-1f1b", idle_of("interleaved-1f1b", row.chunks).bubble_makespan,
              row.interleaved, kFourDecimals},
             {"zb-h1", idle_of("zb-h1").bubble_makespan, row.zb_h1, kFourDecimals},
             {"zb-h2 (span)", idle_of("zb-h2").bubble_span, row.zb_h2, kFourDecimals},
         }});
  }
  return table;
}

FigureTable EqualTimeFigures() {
  FigureTable table{.title = "rates for f=b=w, per cent", .decimals = 2};
  for (const UnitRow& row : kUnitRows) {
    FigureRow figures{.label = Label(row.name, row.chunks, row.fused) + (row.span ? " (span)" : ""),
                      .p = row.p};
    for (int i = 0; i < 3; ++i) {
      const UnitRates& rates = row.rates[i];
      if (rates.free_hops < 0) continue;
      const int m = row.p << i;
      const auto run_with = [&](double hop) {
        return RunOf({.name = row.name,
                      .num_ranks = row.p,
                      .num_microbatches = m,
                      .chunks_per_rank = row.chunks},
                     {.hop = hop}, Pairs(row.fused));
      };
      const auto rate = [&row](const Run& run) {
        const Idle& idle = run.simulation.idle;
        return 100 * (row.span ? idle.bubble_span : idle.bubble_makespan);
      };
      const Run free = run_with(0);
      figures.figures.push_back({fmt::format("m={}", m), rate(free), rates.free_hops, kOneDecimal});
      figures.figures.push_back(
          {fmt::format("m={} c=.1", m), rate(run_with(0.1)), rates.slow_hops, kOneDecimal});
      if (i == 2) {
        figures.figures.push_back({"peak", free.Peak(), row.peak < 0 ? m : row.peak, kExact});
      }
    }
    table.rows.push_back(std::move(figures));
  }
  return table;
}

FigureTable UnequalTimeFigures() {
  FigureTable table{.title = "makespans for f, b, w = 1, 1.1, 0.8 and 1, 1.2, 0.6", .decimals = 2};
  for (const UnequalRow& row : kUnequalRows) {
    FigureRow figures{.label = fmt::format("{}, c = {}", Label(row.name, 0, row.fused), row.hop),
                      .p = 8};
    const auto add = [&](const char* name, double b, double w, double reference) {
      if (reference < 0) return;
      const Run run = RunOf({.name = row.name, .num_ranks = 8, .num_microbatches = 16},
                            {.b = b, .w = w, .hop = row.hop}, Pairs(row.fused));
      figures.figures.push_back({name, run.Makespan(), reference, kExact});
    };
    add("mild", 1.1, .8, row.mild);
    add("strong", 1.2, .6, row.strong);
    table.rows.push_back(std::move(figures));
  }
  return table;
}

FigureTable OverlapFigures() {
  FigureTable table{.title = "makespans of overlapped fused pairs", .decimals = 2};
  for (const OverlapRow& row : kOverlapRows) {
    FigureRow figures{.label = Label(row.name, 0, true), .p = 8};
    for (size_t i = 0; i < kPairFactors.size(); ++i) {
      const Run run = RunOf({.name = row.name, .num_ranks = 8, .num_microbatches = 32}, {},
                            Pairs(true), {.pair_factor = kPairFactors[i]});
      figures.figures.push_back({fmt::format("pair takes {}", kPairFactors[i]), run.Makespan(),
                                 row.makespans[i], kExact});
    }
    table.rows.push_back(std::move(figures));
  }
  return table;
}

FigureTable ModelFigures() {
  FigureTable table{.title = "span bubbles on profiles of whole models", .decimals = 4};
  for (const ModelRow& row : kModelRows) {
    const ProfileRow& profile = kProfiles[static_cast<size_t>(row.profile)];
    const double kept = 32.0 * row.hidden / (34.0 * row.hidden + 5.0 * row.heads * 1024);
    const auto span_of = [&](const char* name, const ExecutionSettings& settings) {
      return RunOf({.name = name, .num_ranks = profile.p, .num_microbatches = profile.m},
                   {.f = profile.f_ms, .b = profile.b_ms, .w = profile.w_ms, .hop = profile.hop_ms},
                   settings, {.unit_ns = 1'000'000, .held_for_weight = kept})
          .simulation.idle.bubble_span;
    };
    FigureRow figures{.label = fmt::format("{} parameters, m = {}", row.parameters, profile.m),
                      .p = profile.p,
                      .shape = "",
                      .figures = {{"zb-v", span_of("zb-v", {}), row.zb_v, kFourDecimals}}};
    const auto add_free_run = [&](double limit, double reference) {
      if (reference < 0) return;
      const auto span_in = [&](int parts) {
        return span_of("dynamic", {.activation_limit = limit * profile.p, .weight_parts = parts});
      };
      figures.figures.push_back({fmt::format("free-run within {}p", limit),
                                 std::min(span_in(1), span_in(4)), reference,
                                 reference > 0 ? kNotJudged : kFourDecimals});
    };
    add_free_run(1.5, row.free_run_150);
    add_free_run(1.75, row.free_run_175);
    table.rows.push_back(std::move(figures));
  }
  return table;
}

}  // namespace troupe::testing

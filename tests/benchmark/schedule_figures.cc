// Every figure of schedules beside its reference, and the goals under noise: a Markdown table
// each, then a summary; `--jsonl` prints one object a figure. Ends with 1 where a figure differs or
// a goal is missed. Run by `./run figures`.
#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/actors/schedule/jitter_figures.h"
#include "tests/actors/schedule/reference_figures.h"
#include "tests/actors/schedule/reference_tables.h"

namespace troupe::testing {
namespace {

constexpr int kNumSamples = 240;

using Json = nlohmann::ordered_json;

// Without zeros at the end: "3.5", "21", "0.1".
std::string Number(double value, int decimals) {
  std::string text = fmt::format("{:.{}f}", value, decimals);
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string WithError(const Estimate& estimate) {
  return fmt::format("{:.2f} ± {:.2f}", estimate.mean, estimate.standard_error);
}

Json JsonOf(const Estimate& estimate) {
  return {{"mean", estimate.mean}, {"standard_error", estimate.standard_error}};
}

std::string Equal(int equal, int judged) { return fmt::format("{} of {}", equal, judged); }

// ---- tables of figures that must be equal ------------------------------------------------------

// Rows from `first` on with one label and p, as one line.
size_t PrintLine(const FigureTable& table, size_t first) {
  const FigureRow& row = table.rows[first];
  FigureTable alike;
  size_t next = first;
  for (; next < table.rows.size(); ++next) {
    const FigureRow& other = table.rows[next];
    if (other.label != row.label || other.p != row.p) break;
    alike.rows.push_back(other);
  }
  std::vector<std::string> names, ours, reference;
  for (const Figure& figure : row.figures) {
    names.push_back(figure.name);
    ours.push_back(Number(figure.ours, table.decimals));
    reference.push_back(Number(figure.reference, table.decimals));
    if (!figure.judged()) reference.back() += " (not judged)";
  }
  fmt::print("| {} | {} | {} | {} | {} | {} |\n", row.label, row.p, fmt::join(names, ", "),
             fmt::join(ours, ", "), fmt::join(reference, ", "),
             Equal(alike.NumEqual(), alike.NumJudged()));
  return next;
}

void PrintMarkdown(const FigureTable& table) {
  fmt::print("\n### {}\n\n| schedule | p | figures | ours | reference | equal |\n", table.title);
  fmt::print("|---|---|---|---|---|---|\n");
  for (size_t row = 0; row < table.rows.size();) row = PrintLine(table, row);
}

void PrintJson(const FigureTable& table) {
  for (const FigureRow& row : table.rows) {
    for (const Figure& figure : row.figures) {
      Json json{{"table", table.title},         {"schedule", row.label}, {"p", row.p},
                {"shape", row.shape},           {"figure", figure.name}, {"ours", figure.ours},
                {"reference", figure.reference}};
      json["equal"] = figure.judged() ? Json(figure.equal()) : Json();
      fmt::print("{}\n", json.dump());
    }
  }
}

void NameDifferences(const FigureTable& table) {
  for (const FigureRow& row : table.rows) {
    for (const Figure& figure : row.figures) {
      if (!figure.judged() || figure.equal()) continue;
      fmt::print(stderr, "{}: {} p={} {}: {} is {}, not {}\n", table.title, row.label, row.p,
                 row.shape, figure.name, figure.ours, figure.reference);
    }
  }
}

// ---- tables of means ---------------------------------------------------------------------------

struct JitterLine {
  Estimate makespan_bubble{};
  Estimate span_bubble{};
  Estimate above_bound{};
  Estimate above_busiest{};
  std::optional<double> reference_span{};
  std::optional<double> reference_above{};
};

JitterLine LineOf(const JitterRow& row, Jitter condition) {
  const JitterSamples samples = SampleJitter(row, kJitterConditions[condition], kNumSamples);
  JitterLine line{.makespan_bubble = EstimateOf(samples.makespan_bubble),
                  .span_bubble = EstimateOf(samples.span_bubble),
                  .above_bound = EstimateOf(samples.above_bound),
                  .above_busiest = EstimateOf(samples.above_busiest)};
  if (condition == kMiddle) line.reference_span = row.span;
  if (condition == kMiddle) line.reference_above = row.above[0];
  if (condition == kUnequal) line.reference_above = row.above[1];
  if (condition == kHiccups) line.reference_above = row.above[2];
  return line;
}

void PrintJitter(Jitter condition, bool jsonl) {
  const char* name = kJitterConditions[condition].name;
  if (!jsonl) {
    fmt::print(
        "\n### p = 8, m = 32, c = 0.1, {}: per cent, means of {} samples\n\n"
        "| schedule | makespan bubble | reference | span bubble | reference | above the bound "
        "| above the busiest rank's | reference |\n|---|---|---|---|---|---|---|---|\n",
        name, kNumSamples);
  }
  const auto text = [](const std::optional<double>& number) {
    return number ? Number(*number, 2) : "–";
  };
  const auto json = [](const std::optional<double>& number) {
    return number ? Json(*number) : Json();
  };
  for (const JitterRow& row : kJitterRows) {
    const JitterLine line = LineOf(row, condition);
    const double reference = row.makespan[condition];
    if (!jsonl) {
      fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} |\n", LabelOf(row),
                 WithError(line.makespan_bubble), reference, WithError(line.span_bubble),
                 text(line.reference_span), WithError(line.above_bound),
                 WithError(line.above_busiest), text(line.reference_above));
      continue;
    }
    const Json object{{"table", name},
                      {"schedule", LabelOf(row)},
                      {"num_samples", kNumSamples},
                      {"makespan_bubble", JsonOf(line.makespan_bubble)},
                      {"reference_makespan_bubble", reference},
                      {"span_bubble", JsonOf(line.span_bubble)},
                      {"reference_span_bubble", json(line.reference_span)},
                      {"above_bound", JsonOf(line.above_bound)},
                      {"above_busiest", JsonOf(line.above_busiest)},
                      {"reference_above_busiest", json(line.reference_above)}};
    fmt::print("{}\n", object.dump());
  }
}

// True where all goals are met.
bool PrintGoals(bool jsonl) {
  bool met = true;
  if (!jsonl) {
    fmt::print("\n| {}, p = 8, m = 32, c = 0.1 | per cent | goal | met |\n|---|---|---|---|\n",
               LabelOf(FreeRunRow()));
  }
  for (const JitterGoal& goal : JitterGoals(kNumSamples)) {
    met = met && goal.met();
    const std::string bound = fmt::format("{} {}", goal.at_most ? "≤" : "≥", goal.goal);
    if (jsonl) {
      const Json json{{"goal", goal.what},
                      {"ours", JsonOf(goal.figure)},
                      {"bound", bound},
                      {"met", goal.met()}};
      fmt::print("{}\n", json.dump());
    } else {
      fmt::print("| {} | {} | {} | {} |\n", goal.what, WithError(goal.figure), bound,
                 goal.met() ? "yes" : "NO");
    }
    if (!goal.met()) {
      fmt::print(stderr, "{} is {}, not {}\n", goal.what, WithError(goal.figure), bound);
    }
  }
  return met;
}

int PrintAll(bool jsonl) {
  const std::vector<FigureTable> tables = {
      ClosedFormFigures(), ProfileFigures(), EqualTimeFigures(), UnequalTimeFigures(),
      OverlapFigures(),    ModelFigures(),   StillFigures()};
  bool good = true;
  for (const FigureTable& table : tables) {
    jsonl ? PrintJson(table) : PrintMarkdown(table);
    NameDifferences(table);
    good = good && table.NumEqual() == table.NumJudged();
  }
  for (const Jitter condition : {kMild, kMiddle, kStrong, kUnequal, kHiccups}) {
    PrintJitter(condition, jsonl);
    std::fflush(stdout);
  }
  if (!jsonl) {
    fmt::print("\n### summary\n\n| figures | equal |\n|---|---|\n");
    for (const FigureTable& table : tables) {
      fmt::print("| {} | {} |\n", table.title, Equal(table.NumEqual(), table.NumJudged()));
    }
  }
  return PrintGoals(jsonl) && good ? 0 : 1;
}

}  // namespace
}  // namespace troupe::testing

int main(int argc, char** argv) {
  bool jsonl = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--jsonl") {
      jsonl = true;
    } else if (flag != "--header" && flag != "--no-header") {  // as the benchmarks have them
      fmt::print(stderr, "{}: unknown flag {}\n", argv[0], flag);
      return 2;
    }
  }
  return troupe::testing::PrintAll(jsonl);
}

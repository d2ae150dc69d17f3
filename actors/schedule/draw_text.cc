#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "actors/schedule/drawing.h"

namespace troupe {
namespace {

// Colours of the 256-colour palette, readable under black text.
int AnsiBackground(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return 111;  // blue
    case ActionKind::kBackwardInput:
      return 80;  // cyan
    case ActionKind::kBackwardWeight:
      return 114;  // green
    case ActionKind::kBackward:
      return 72;  // teal
    default:
      return 179;  // communication: amber
  }
}

struct Scale {
  int64_t origin_ns = 0;
  int64_t length_ns = 0;
  int columns = 0;

  int ColumnOf(int64_t at_ns) const {
    const double share = static_cast<double>(at_ns - origin_ns) / static_cast<double>(length_ns);
    return std::clamp(static_cast<int>(std::lround(share * columns)), 0, columns);
  }
};

// The bar's label cut or filled to its width: "F3---", "F", or in colour " 3   ".
std::string BarText(const Action& action, int width, bool color) {
  const std::string number =
      HasMicrobatch(action.kind) ? fmt::format("{}", action.microbatch) : std::string();
  std::string label = color ? number : fmt::format("{}{}", KindLetters(action.kind), number);
  if (static_cast<int>(label.size()) > width) {
    // A cut number would be a wrong one.
    label = color ? std::string() : std::string(KindLetters(action.kind).substr(0, 1));
  }
  label.resize(width, color ? ' ' : '-');
  return color ? fmt::format("\x1b[48;5;{};38;5;16m{}\x1b[0m", AnsiBackground(action.kind), label)
               : label;
}

std::string LabelledRow(const std::vector<Bar>& bars, const Scale& scale, bool color) {
  std::string row;
  int column = 0;
  for (const Bar& bar : bars) {
    const int start = std::max(column, scale.ColumnOf(bar.start_ns));
    const int end = scale.ColumnOf(bar.end_ns);
    if (end > start) {
      row.append(start - column, '.');
      row += BarText(bar.action, end - start, color);
      column = end;
    }
  }
  return row.append(scale.columns - column, '.');
}

// For bars shorter than two characters: what fills each character's stretch of time.
std::string DensityRow(const std::vector<Bar>& bars, const Scale& scale) {
  constexpr double kDominant = 0.8;
  // Busy nanoseconds per character and compute kind.
  std::vector<std::array<double, 4>> busy(scale.columns, std::array<double, 4>{});
  const double column_ns = static_cast<double>(scale.length_ns) / scale.columns;
  for (const Bar& bar : bars) {
    const auto start = static_cast<double>(bar.start_ns - scale.origin_ns);
    const auto end = static_cast<double>(bar.end_ns - scale.origin_ns);
    const int last = std::min(scale.columns - 1, static_cast<int>(end / column_ns));
    for (int column = static_cast<int>(start / column_ns); column <= last; ++column) {
      busy[column][static_cast<size_t>(bar.action.kind)] +=
          std::min(end, (column + 1) * column_ns) - std::max(start, column * column_ns);
    }
  }
  std::string row;
  for (const auto& kinds : busy) {
    const double sum = std::accumulate(kinds.begin(), kinds.end(), 0.0);
    const auto most = std::ranges::max_element(kinds);
    const auto kind = static_cast<ActionKind>(most - kinds.begin());
    row += sum < column_ns / 2 ? '.' : *most >= kDominant * sum ? KindLetters(kind).front() : '=';
  }
  return row;
}

std::string Legend(const Timeline& timeline, bool color) {
  std::string legend;
  for (int kind = 0; kind < kNumActionKinds; ++kind) {
    const auto action_kind = static_cast<ActionKind>(kind);
    const bool present = std::ranges::any_of(
        timeline.bars, [&](const Bar& bar) { return bar.action.kind == action_kind; });
    if (present && IsCompute(action_kind)) {
      legend += color ? fmt::format("  \x1b[48;5;{}m  \x1b[0m {}", AnsiBackground(action_kind),
                                    KindName(action_kind))
                      : fmt::format("  {} {}", KindLetters(action_kind), KindName(action_kind));
    }
  }
  return legend + "  . idle";
}

}  // namespace

std::string DrawText(const Timeline& timeline, const TextOptions& options) {
  constexpr int kFewestColumns = 40;
  constexpr int kPercentWidth = 8;  // "|  12.3%"
  const std::string last_label = fmt::format("rank {} |", timeline.num_ranks - 1);
  const Idle idle = IdleOf(timeline);
  std::string text = options.title.empty() ? "" : options.title + "\n";
  if (timeline.bars.empty() || idle.makespan_ns == 0) {
    return text + "nothing ran\n";
  }
  const auto label_width = static_cast<int>(last_label.size());
  const Scale scale{
      .origin_ns = std::ranges::min(timeline.bars, {}, &Bar::start_ns).start_ns,
      .length_ns = idle.makespan_ns,
      .columns = std::max(options.columns, kFewestColumns) - label_width - kPercentWidth};
  std::vector<std::vector<Bar>> rows(timeline.num_ranks);
  size_t num_bars = 0;
  for (const Bar& bar : timeline.bars) {
    if (IsCompute(bar.action.kind)) {
      rows[bar.rank.value].push_back(bar);
      ++num_bars;
    }
  }
  // Mean length of a bar in characters.
  const double bar_columns = static_cast<double>(idle.work_ns) /
                             static_cast<double>(idle.makespan_ns) * scale.columns /
                             static_cast<double>(num_bars);
  const bool labelled = bar_columns >= 2;
  const std::vector<double> bubbles = BubbleByRank(timeline);
  for (int rank = 0; rank < timeline.num_ranks; ++rank) {
    std::ranges::sort(rows[rank], {}, &Bar::start_ns);
    text += fmt::format(
        "{:>{}}{}| {:5.1f}%\n", fmt::format("rank {} |", rank), label_width,
        labelled ? LabelledRow(rows[rank], scale, options.color) : DensityRow(rows[rank], scale),
        100 * bubbles[rank]);
  }
  if (!options.relative_costs) {
    text += fmt::format("makespan {:.3f} ms, bubble {:.1f} % of it\n",
                        static_cast<double>(idle.makespan_ns) / 1e6, 100 * idle.bubble_makespan);
  }
  text += Legend(timeline, options.color && labelled).substr(2);
  return text + (labelled ? "\n" : "  = several in turn\n");
}

}  // namespace troupe

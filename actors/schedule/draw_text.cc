#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <numeric>
#include <utility>

#include "actors/schedule/drawing.h"
#include "actors/schedule/drawn_bars.h"

namespace troupe {
namespace {

constexpr int kFewestColumns = 40;
constexpr int kPercentWidth = 8;  // "|  12.3%"
constexpr int kAside = 3;

struct Scale {
  int64_t origin_ns = 0;
  int64_t length_ns = 0;
  int columns = 0;

  double ColumnsOf(int64_t time_ns) const {
    return static_cast<double>(time_ns) / static_cast<double>(length_ns) * columns;
  }
  int ColumnOf(int64_t at_ns) const {
    return std::clamp(static_cast<int>(std::lround(ColumnsOf(at_ns - origin_ns))), 0, columns);
  }
};

std::string LettersOf(ActionKind kind, bool lower) {
  std::string letters(KindLetters(kind));
  if (lower) std::ranges::transform(letters, letters.begin(), ::tolower);
  return letters;
}

char LaneLetter(ActionKind kind) {
  return kind == ActionKind::kUnshard ? 'U' : kind == ActionKind::kReshard ? 'R' : 'G';
}

// One panel's rows, ready to draw.
class PanelRows {
 public:
  PanelRows(const Timeline& timeline, int64_t length_ns, int columns)
      : num_ranks_(timeline.num_ranks),
        chunks_(ChunksOf(timeline)),
        rows_(static_cast<size_t>(timeline.num_ranks)) {
    scale_ = {.length_ns = length_ns, .columns = columns};
    if (!timeline.bars.empty()) {
      scale_.origin_ns = std::ranges::min(timeline.bars, {}, &Bar::start_ns).start_ns;
    }
    for (const Bar& bar : timeline.bars) {
      if (!IsCompute(bar.action.kind) && !IsOnLane(bar.action.kind)) continue;
      kinds_[static_cast<size_t>(bar.action.kind)] = true;
      if (!IsCompute(bar.action.kind)) {
        lanes_.resize(rows_.size());
        lanes_[static_cast<size_t>(bar.rank.value)].push_back(bar);
        continue;
      }
      rows_[static_cast<size_t>(bar.rank.value)].push_back(bar);
    }
    for (auto& lane : lanes_) {
      std::ranges::stable_sort(lane, {},
                               [](const Bar& bar) { return std::pair(bar.start_ns, bar.end_ns); });
    }
    for (auto& row : rows_) {
      std::ranges::sort(row, {}, &Bar::start_ns);
      row = WithPartsJoined(row);
    }
  }

  bool has(ActionKind kind) const { return kinds_[static_cast<size_t>(kind)]; }
  const DrawnChunks& chunks() const { return chunks_; }

  // Nearly every bar has a character of its own.
  bool Labelled() const {
    size_t num_bars = 0;
    size_t num_short = 0;
    for (const auto& row : rows_) {
      for (const Bar& bar : row) {
        ++num_bars;
        num_short += scale_.ColumnsOf(bar.end_ns - bar.start_ns) < 1 ? 1 : 0;
      }
    }
    return num_short * 20 <= num_bars;
  }

  std::string Row(int rank, bool labelled) const {
    const auto& bars = rows_[static_cast<size_t>(rank)];
    return labelled ? LabelledRow(bars) : DensityRow(bars);
  }
  int num_ranks() const { return num_ranks_; }

  bool has_lanes() const { return !lanes_.empty(); }
  // The rank's collectives. Those that take no time push one another aside, but not far.
  std::string Lane(int rank) const {
    std::string lane;
    for (const Bar& bar : lanes_[static_cast<size_t>(rank)]) {
      const auto own = std::min(scale_.ColumnOf(bar.start_ns), scale_.columns - 1);
      const size_t start = std::max(lane.size(), static_cast<size_t>(own));
      if (start > static_cast<size_t>(std::min(own + kAside, scale_.columns - 1))) {
        lane.back() = '=';
        continue;
      }
      const auto end = std::max(static_cast<size_t>(scale_.ColumnOf(bar.end_ns)), start + 1);
      lane.resize(start, ' ');
      std::string label = fmt::format("{}{}", LaneLetter(bar.action.kind), bar.action.stage);
      if (label.size() > end - start) label.resize(1);
      label.resize(end - start, '-');
      lane += label;
    }
    lane.resize(static_cast<size_t>(scale_.columns), ' ');
    return lane;
  }

 private:
  bool IsOdd(const Action& action) const { return chunks_.Of(action) % 2 == 1; }

  // The bar's label cut or filled to its width: "F3---" or "F".
  std::string BarText(const Action& action, int width) const {
    const std::string letters = LettersOf(action.kind, IsOdd(action));
    std::string label = letters;
    label += fmt::format("{}", action.microbatch);
    if (static_cast<int>(label.size()) > width) {
      label = letters.substr(0, 1);  // a cut number would be a wrong one
    }
    label.resize(static_cast<size_t>(width), '-');
    return label;
  }

  std::string LabelledRow(const std::vector<Bar>& bars) const {
    std::string row;
    int column = 0;
    for (const Bar& bar : bars) {
      const int start = std::max(column, scale_.ColumnOf(bar.start_ns));
      const int end = scale_.ColumnOf(bar.end_ns);
      if (end > start) {
        row.append(static_cast<size_t>(start - column), '.');
        row += BarText(bar.action, end - start);
        column = end;
      }
    }
    return row.append(static_cast<size_t>(scale_.columns - column), '.');
  }

  // What fills each character's stretch of time.
  std::string DensityRow(const std::vector<Bar>& bars) const {
    constexpr double kDominant = 0.8;
    struct Busy {  // nanoseconds by compute kind: of all chunks, and of every second one
      std::array<double, 4> all{};
      std::array<double, 4> odd{};
    };
    std::vector<Busy> busy(static_cast<size_t>(scale_.columns));
    const double column_ns = static_cast<double>(scale_.length_ns) / scale_.columns;
    for (const Bar& bar : bars) {
      const auto start = static_cast<double>(bar.start_ns - scale_.origin_ns);
      const auto end = static_cast<double>(bar.end_ns - scale_.origin_ns);
      const int last = std::min(scale_.columns - 1, static_cast<int>(end / column_ns));
      for (int column = static_cast<int>(start / column_ns); column <= last; ++column) {
        const double ns =
            std::min(end, (column + 1) * column_ns) - std::max(start, column * column_ns);
        Busy& cell = busy[static_cast<size_t>(column)];
        cell.all[static_cast<size_t>(bar.action.kind)] += ns;
        if (IsOdd(bar.action)) cell.odd[static_cast<size_t>(bar.action.kind)] += ns;
      }
    }
    std::string row;
    for (const auto& [all, odd] : busy) {
      const double sum = std::accumulate(all.begin(), all.end(), 0.0);
      const auto most = std::ranges::max_element(all);
      const auto kind = static_cast<size_t>(most - all.begin());
      row += sum < column_ns / 2 ? '.'
             : *most >= kDominant * sum
                 ? LettersOf(static_cast<ActionKind>(kind), odd[kind] >= kDominant * *most)[0]
                 : '=';
    }
    return row;
  }

  int num_ranks_;
  DrawnChunks chunks_;
  std::vector<std::vector<Bar>> rows_;
  std::vector<std::vector<Bar>> lanes_{};  // empty where there are no collectives
  std::array<bool, kNumActionKinds> kinds_{};
  Scale scale_{};
};

std::string Legend(const std::vector<PanelRows>& panels, bool labelled) {
  std::string legend;
  for (int i = 0; i < kNumActionKinds; ++i) {
    const auto kind = static_cast<ActionKind>(i);
    if (std::ranges::none_of(panels, [kind](const PanelRows& p) { return p.has(kind); })) continue;
    legend += IsCompute(kind) ? fmt::format("  {} {}", KindLetters(kind), KindName(kind))
                              : fmt::format("  {} {}", LaneLetter(kind), KindName(kind));
  }
  legend += "  . idle";
  const bool lanes = std::ranges::any_of(panels, &PanelRows::has_lanes);
  if (!labelled || lanes) legend += "  = several in turn";
  int num_chunks = 1;
  bool directions = false;
  bool chunks = false;
  for (const PanelRows& panel : panels) {
    const bool several = panel.chunks().num_chunks > 1;
    num_chunks = std::max(num_chunks, panel.chunks().num_chunks);
    directions = directions || (several && panel.chunks().directions);
    chunks = chunks || (several && !panel.chunks().directions);
  }
  if (directions || chunks) {
    legend += fmt::format("  lower case: {}{}{}",
                          !chunks          ? ""
                          : num_chunks > 2 ? "odd chunks"
                                           : "chunk 1",
                          directions && chunks ? " or " : "", directions ? "direction 1" : "");
  }
  return legend.substr(2) + "\n";
}

}  // namespace

std::string DrawText(const std::vector<Panel>& panels, int columns) {
  int most_ranks = 1;
  int64_t length_ns = 0;
  for (const Panel& panel : panels) {
    most_ranks = std::max(most_ranks, panel.timeline.num_ranks);
    length_ns = std::max(length_ns, IdleOf(panel.timeline).makespan_ns);
  }
  if (length_ns == 0) return "nothing ran\n";
  const auto label_width = static_cast<int>(fmt::format("rank {} |", most_ranks - 1).size());
  const int bar_columns = std::max(columns, kFewestColumns) - label_width - kPercentWidth;
  std::vector<PanelRows> drawn;
  bool labelled = true;
  for (const Panel& panel : panels) {
    drawn.emplace_back(panel.timeline, length_ns, bar_columns);
    labelled = labelled && drawn.back().Labelled();
  }
  std::string text;
  for (size_t i = 0; i < panels.size(); ++i) {
    if (!panels[i].title.empty()) text += panels[i].title + "\n";
    const std::vector<double> bubbles = BubbleByRank(panels[i].timeline);
    for (int rank = 0; rank < drawn[i].num_ranks(); ++rank) {
      text += fmt::format("{:>{}}{}| {:5.1f}%\n", fmt::format("rank {} |", rank), label_width,
                          drawn[i].Row(rank, labelled), 100 * bubbles[static_cast<size_t>(rank)]);
      if (drawn[i].has_lanes()) {
        text += fmt::format("{:>{}}{}|\n", "|", label_width, drawn[i].Lane(rank));
      }
    }
  }
  return text + Legend(drawn, labelled);
}

std::string DrawText(const Timeline& timeline, int columns) {
  return DrawText(std::vector<Panel>{{.timeline = timeline}}, columns);
}

}  // namespace troupe

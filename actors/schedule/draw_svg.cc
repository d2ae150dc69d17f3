#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "actors/schedule/draw_chunks.h"
#include "actors/schedule/drawing.h"

namespace troupe {
namespace {

// Pixels; y grows downwards.
constexpr double kMargin = 24;
constexpr double kRankLabelWidth = 56;
constexpr double kPercentWidth = 52;
constexpr double kTitleHeight = 36;
constexpr double kPanelTitleHeight = 26;
constexpr double kPanelGap = 18;
constexpr double kAxisHeight = 30;
constexpr double kLegendHeight = 30;
constexpr double kPhaseLine = 3;
constexpr double kTableRow = 20;
constexpr double kDigitWidth = 0.62;  // of the font size

constexpr std::string_view kStyle =
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'Liberation Sans','DejaVu Sans',"
    "sans-serif;fill:#2b3440}"
    ".t{font-size:17px;font-weight:600}.p{font-size:13px;font-weight:600}"
    ".s{font-size:12px;fill:#5c6773}.d{font-size:13px}.n{text-anchor:middle}.r{text-anchor:end}"
    ".g{stroke:#e3e7ec;stroke-width:1}.a{stroke:#9aa5b1;stroke-width:1}"
    ".z{fill:url(#idle)}.q{fill:#e8705f;fill-opacity:.82}"
    ".u{fill:#f3c969}.v{fill:#b4bdc8}.x{fill:#b79ad9}";

// Quotes stay: every use is text content, never an attribute.
std::string Escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return safe;
}

// 1, 2 or 5 times a power of ten, so that about `wanted` steps cover `length`.
double NiceStep(double length, int wanted) {
  const double raw = length / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * 0.999) {
      return factor * power;
    }
  }
  return 10 * power;
}

struct Phases {
  int64_t first_start_ns = 0;
  int64_t first_backward_ns = 0;
  int64_t last_forward_ns = 0;
  int64_t last_end_ns = 0;
};

// bars: one rank's compute bars by start, not empty.
Phases PhasesOf(const std::vector<Bar>& bars) {
  Phases phases{.first_start_ns = bars.front().start_ns,
                .first_backward_ns = bars.back().end_ns,
                .last_forward_ns = bars.front().start_ns,
                .last_end_ns = bars.back().end_ns};
  for (const Bar& bar : bars) {
    if (bar.action.kind == ActionKind::kForward) {
      phases.last_forward_ns = bar.end_ns;
    } else {
      phases.first_backward_ns = std::min(phases.first_backward_ns, bar.start_ns);
    }
  }
  // Without a steady part (all Forwards, then all backwards) the cool-down follows the warm-up.
  phases.last_forward_ns = std::max(phases.last_forward_ns, phases.first_backward_ns);
  return phases;
}

class SvgDrawing {
 public:
  SvgDrawing(const std::vector<Panel>& panels, const SvgOptions& options)
      : panels_(panels), options_(options) {
    int most_ranks = 1;
    int64_t longest_ns = 1;
    for (const Panel& panel : panels) {
      idles_.push_back(IdleOf(panel.timeline));
      chunks_.push_back(ChunksOf(panel.timeline));
      most_chunks_ = std::max(most_chunks_, chunks_.back().num_chunks);
      longest_ns = std::max(longest_ns, LengthNs(panel.timeline));
      most_ranks = std::max(most_ranks, panel.timeline.num_ranks);
      for (const Bar& bar : panel.timeline.bars) {
        last_microbatch_ = std::max(last_microbatch_, bar.action.microbatch.value);
      }
    }
    digits_ = static_cast<double>(fmt::format("{}", last_microbatch_).size());
    width_ =
        options.width_px > 0 ? std::max<double>(options.width_px, 480) : LegibleWidth(longest_ns);
    left_ = kMargin + kRankLabelWidth;
    right_ = width_ - kMargin - kPercentWidth;
    row_height_ = std::clamp(460.0 / most_ranks, 15.0, 34.0);
    length_ = Units(longest_ns);
    px_per_ns_ = (right_ - left_) / static_cast<double>(longest_ns);
  }

  std::string Draw() {
    double y = kMargin;
    if (!options_.title.empty()) {
      Text("t", kMargin, y + 15, Escaped(options_.title));
      y += kTitleHeight;
    }
    for (size_t i = 0; i < panels_.size(); ++i) {
      y = DrawPanel(i, y);
    }
    DrawAxis(y);
    DrawLegend(y + kAxisHeight);
    y = DrawTable(y + kAxisHeight + kLegendHeight);
    return Frame(y + kMargin / 2);
  }

 private:
  static int64_t LengthNs(const Timeline& timeline) {
    if (timeline.bars.empty()) {
      return 0;
    }
    return std::ranges::max(timeline.bars, {}, &Bar::end_ns).end_ns -
           std::ranges::min(timeline.bars, {}, &Bar::start_ns).start_ns;
  }

  double Units(int64_t time_ns) const { return static_cast<double>(time_ns) / options_.unit.ns; }
  // "3 ms", or "3" where the times are plain numbers.
  std::string Time(int64_t time_ns) const {
    return fmt::format("{:.4g}{}{}", Units(time_ns), options_.unit.name.empty() ? "" : " ",
                       Escaped(options_.unit.name));
  }

  // Wide enough for a number in every panel's Forwards of middling length, within what a page can
  // take.
  double LegibleWidth(int64_t longest_ns) const {
    constexpr double kNarrowest = 1120;
    constexpr double kWidest = 6000;
    const double wanted_px = digits_ * kDigitWidth * 8 + 2;
    double width = kNarrowest;
    for (const Panel& panel : panels_) {
      std::vector<int64_t> lengths_ns;
      for (const Bar& bar : panel.timeline.bars) {
        if (bar.action.kind == ActionKind::kForward) {
          lengths_ns.push_back(bar.end_ns - bar.start_ns);
        }
      }
      if (lengths_ns.empty()) continue;
      const auto middle = lengths_ns.begin() + static_cast<int64_t>(lengths_ns.size() / 2);
      std::ranges::nth_element(lengths_ns, middle);
      const double bars =
          static_cast<double>(longest_ns) / std::max(1.0, static_cast<double>(*middle));
      width = std::max(width, bars * wanted_px + 2 * kMargin + kRankLabelWidth + kPercentWidth);
    }
    return std::min(width, kWidest);
  }

  static std::string ChunkStyle(int chunk, int num_chunks) {
    std::string style;
    for (int i = 0; i < kNumLooks; ++i) {
      style += fmt::format(".{0}{{fill:{1}}}text.{0}m{{fill:{2};text-anchor:middle}}",
                           CssClassOf(LookAt(i), chunk, num_chunks),
                           FillOf(LookAt(i), chunk, num_chunks),
                           TextColorOf(LookAt(i), chunk, num_chunks));
    }
    return style;
  }

  std::string Frame(double height) const {
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0:.0f} {1:.0f}\">\n<style>{2}",
        width_, height, kStyle);
    std::set<int> numbers = {1};
    for (const DrawnChunks& chunks : chunks_) numbers.insert(chunks.num_chunks);
    for (const int num_chunks : numbers) {
      for (int chunk = num_chunks == 1 ? 0 : 1; chunk < num_chunks; ++chunk) {
        svg += ChunkStyle(chunk, num_chunks);
      }
    }
    svg +=
        "</style>\n<defs><pattern id=\"idle\" width=\"6\" height=\"6\" "
        "patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"6\" "
        "height=\"6\" fill=\"#f3f5f8\"/><rect width=\"1.4\" height=\"6\" fill=\"#dde2e9\"/>"
        "</pattern></defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
    return svg + body_ + "</svg>\n";
  }

  void Text(std::string_view css_class, double x, double y, std::string_view safe_text) {
    body_ += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", css_class, x,
                         y, safe_text);
  }
  // rounding: corner radius; the tooltip, where there is one, is safe text.
  void Rect(std::string_view css_class, double x, double y, double width, double height,
            double rounding = 0, std::string_view tooltip = {}) {
    body_ += fmt::format(
        "<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\"",
        css_class, x, y, width, height);
    if (rounding > 0) {
      body_ += fmt::format(" rx=\"{}\"", rounding);
    }
    body_ +=
        tooltip.empty() ? std::string("/>\n") : fmt::format("><title>{}</title></rect>\n", tooltip);
  }

  double DrawPanel(size_t index, double y) {
    const Panel& panel = panels_[index];
    const Idle& idle = idles_[index];
    panel_chunks_ = &chunks_[index];
    std::vector<std::vector<Bar>> rows(panel.timeline.num_ranks);
    int64_t origin_ns = panel.timeline.bars.empty() ? 0 : panel.timeline.bars.front().start_ns;
    int64_t waited_ns = 0;
    for (const Bar& bar : panel.timeline.bars) {
      rows[bar.rank.value].push_back(bar);
      origin_ns = std::min(origin_ns, bar.start_ns);
      waited_ns += IsCompute(bar.action.kind) ? WaitedNs(bar) : 0;
    }
    std::string figures = fmt::format("makespan {} · bubble {:.1f} % of it", Time(idle.makespan_ns),
                                      100 * idle.bubble_makespan);
    // Clocks of wall and CPU time differ by microseconds; below a per mille there was no waiting.
    if (waited_ns * 1000 > idle.work_ns) {
      figures += fmt::format(
          " · waiting for a core {:.1f} %",
          100.0 * static_cast<double>(waited_ns) /
              std::max(1.0, static_cast<double>(idle.makespan_ns) * panel.timeline.num_ranks));
      any_waiting_ = true;
    }
    body_ += fmt::format(
        "<text class=\"p\" x=\"{:.1f}\" y=\"{:.1f}\">{}<tspan class=\"s\" font-weight=\"400\" "
        "dx=\"{}\">{}</tspan></text>\n",
        kMargin, y + 13, Escaped(panel.title), panel.title.empty() ? 0 : 10, figures);
    Text("s r", right_ + kPercentWidth, y + 13, "bubble");
    y += kPanelTitleHeight;
    const double height = row_height_ * panel.timeline.num_ranks;
    DrawGrid(y - 4, height + 4);
    const std::vector<double> bubbles = BubbleByRank(panel.timeline);
    for (int rank = 0; rank < panel.timeline.num_ranks; ++rank) {
      DrawRow(rank, std::move(rows[rank]), origin_ns, idle, bubbles[rank], y + rank * row_height_);
    }
    return y + height + kPanelGap;
  }

  void DrawRow(int rank, std::vector<Bar> bars, int64_t origin_ns, const Idle& idle, double bubble,
               double y) {
    std::ranges::stable_sort(bars, {}, &Bar::start_ns);
    const double height = row_height_ - 3 - kPhaseLine;  // of a bar
    const double baseline = y + height / 2 + 4;
    Text("s r", left_ - 10, baseline, fmt::format("rank {}", rank));
    Text("s r", right_ + kPercentWidth, baseline, fmt::format("{:.1f} %", 100 * bubble));
    Rect("z", left_, y, static_cast<double>(idle.makespan_ns) * px_per_ns_, height);
    std::vector<Bar> compute;
    for (const Bar& bar : bars) {
      DrawBar(bar, left_ + static_cast<double>(bar.start_ns - origin_ns) * px_per_ns_, y, height);
      if (IsCompute(bar.action.kind)) {
        compute.push_back(bar);
      }
    }
    if (compute.empty()) {
      return;
    }
    const Phases phases = PhasesOf(compute);
    const auto line = [&](std::string_view css_class, int64_t start_ns, int64_t end_ns) {
      if (end_ns > start_ns) {
        Rect(css_class, left_ + static_cast<double>(start_ns - origin_ns) * px_per_ns_,
             y + height + 1, static_cast<double>(end_ns - start_ns) * px_per_ns_, kPhaseLine);
      }
    };
    line("u", phases.first_start_ns, phases.first_backward_ns);
    line("v", phases.first_backward_ns, phases.last_forward_ns);
    line("x", phases.last_forward_ns, phases.last_end_ns);
  }

  static int64_t WaitedNs(const Bar& bar) {
    return std::max<int64_t>(0, bar.end_ns - bar.start_ns - bar.cpu_ns);
  }

  void DrawBar(const Bar& bar, double x, double y, double height) {
    const Look& look = LookOf(bar.action.kind);
    kinds_seen_[static_cast<size_t>(&look - &LookAt(0))] = true;
    const std::string css_class =
        CssClassOf(look, panel_chunks_->Of(bar.action), panel_chunks_->num_chunks);
    const int64_t length_ns = bar.end_ns - bar.start_ns;
    // A hair of white between neighbours, where they are wide enough to afford it.
    const double whole_width = static_cast<double>(length_ns) * px_per_ns_;
    const double width = whole_width > 3 ? whole_width - 0.7 : std::max(whole_width, 0.3);
    if (!IsCompute(bar.action.kind)) {
      Rect(css_class, x, y + height * 0.7, width, height * 0.3);  // may overlap compute
      return;
    }
    const double waited =
        length_ns > 0 ? static_cast<double>(WaitedNs(bar)) / static_cast<double>(length_ns) : 0;
    std::string tooltip =
        fmt::format("{} · {} of microbatch {} · {}", ToString(bar.action),
                    KindName(bar.action.kind), bar.action.microbatch, Time(length_ns));
    if (waited > 0.01) {
      tooltip += fmt::format(" · {} waiting for a core", Time(WaitedNs(bar)));
    }
    Rect(css_class, x, y, width, height, width > 3 ? 1 : 0, tooltip);
    if (waited > 0.01) {
      Rect("q", x, y + height * (1 - waited), width, height * waited, width > 3 ? 1 : 0);
    }
    DrawNumber(bar.action, css_class, x + width / 2, y + height / 2, width, height);
  }

  void DrawNumber(const Action& action, const std::string& css_class, double x, double y,
                  double width, double height) {
    // Sized for the longest number, so that a row does not lose its numbers half way.
    const double size = std::min({12.0, height * 0.62, (width - 1) / (digits_ * kDigitWidth)});
    if (size >= 6.5) {
      body_ += fmt::format(
          "<text class=\"{}m\" font-size=\"{:.1f}\" x=\"{:.2f}\" y=\"{:.2f}\">{}</text>\n",
          css_class, size, x, y + size * 0.36, action.microbatch);
    }
  }

  void DrawGrid(double y, double height) {
    const double step = NiceStep(length_, 10);
    for (int i = 0; i * step <= length_ * 1.0001; ++i) {
      const double x = left_ + i * step * options_.unit.ns * px_per_ns_;
      body_ += fmt::format(
          "<line class=\"g\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>\n", x, y,
          y + height);
    }
  }

  void DrawAxis(double y) {
    y -= kPanelGap - 4;
    body_ += fmt::format(
        "<line class=\"a\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>\n", left_,
        right_, y);
    const double step = NiceStep(length_, 10);
    for (int i = 0; i * step <= length_ * 1.0001; ++i) {
      const double x = left_ + i * step * options_.unit.ns * px_per_ns_;
      body_ += fmt::format(
          "<line class=\"a\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>\n", x, y,
          y + 4);
      Text("s n", x, y + 18, fmt::format("{:.6g}", i * step));
    }
    Text("s r", right_ + kPercentWidth, y + 18, Escaped(options_.unit.name));
  }

  void DrawLegend(double y) {
    double x = left_;
    const auto entry = [&](std::string_view css_class, double swatch_height,
                           std::string_view text) {
      Rect(css_class, x, y + 11 - swatch_height, 16, swatch_height, swatch_height > 4 ? 1 : 0);
      Text("s", x + 22, y + 10, text);
      x += 22 + 6.9 * static_cast<double>(text.size()) + 20;
    };
    for (int i = 0; i < kNumLooks; ++i) {
      if (kinds_seen_[static_cast<size_t>(i)]) {
        entry(LookAt(i).css_class, 12, LookAt(i).legend);
      }
    }
    if (most_chunks_ > 1) {
      const std::string text = ChunksLegend();
      for (int chunk = 0; chunk < most_chunks_; chunk += (most_chunks_ + 7) / 8) {
        Rect(CssClassOf(LookOf(ActionKind::kForward), chunk, most_chunks_), x, y - 1, 16, 12);
        x += 16;
      }
      Text("s", x + 6, y + 10, text);
      x += 6 + 6.9 * static_cast<double>(text.size()) + 20;
    }
    entry("z", 12, "bubble");
    if (any_waiting_) {
      entry("q", 12, "waiting for a core");
    }
    entry("u", 3, "warm-up");
    entry("v", 3, "steady");
    entry("x", 3, "cool-down");
  }

  // "chunks 0 and 1", "chunks or directions 0 and 1", "chunks 0 to 3".
  std::string ChunksLegend() const {
    bool directions = false;
    bool chunks = false;
    for (const DrawnChunks& drawn : chunks_) {
      directions = directions || drawn.directions;
      chunks = chunks || (drawn.num_chunks > 1 && !drawn.directions);
    }
    return fmt::format("{}{}{} 0 {} {}", chunks ? "chunks" : "", chunks && directions ? " or " : "",
                       directions ? "directions" : "", most_chunks_ > 2 ? "to" : "and",
                       most_chunks_ - 1);
  }

  // Returns where it ends.
  double DrawTable(double y) {
    if (options_.table.empty()) return y;
    std::vector<double> widths;
    for (const auto& row : options_.table) {
      widths.resize(std::max(widths.size(), row.size()), 0);
      for (size_t i = 0; i < row.size(); ++i) {
        widths[i] = std::max(widths[i], 7.0 * static_cast<double>(row[i].size()) + 28);
      }
    }
    for (size_t i = 0; i < options_.table.size(); ++i) {
      y += kTableRow;
      double x = kMargin;
      for (size_t column = 0; column < options_.table[i].size(); ++column) {
        const bool left = column == 0;
        Text(i == 0 ? (left ? "s" : "s r") : (left ? "d" : "d r"), left ? x : x + widths[column], y,
             Escaped(options_.table[i][column]));
        x += widths[column];
      }
    }
    return y + kTableRow / 2;
  }

  const std::vector<Panel>& panels_;
  const SvgOptions& options_;
  std::vector<Idle> idles_;
  std::vector<DrawnChunks> chunks_;
  const DrawnChunks* panel_chunks_ = nullptr;  // of the panel being drawn
  int most_chunks_ = 1;
  std::string body_;
  std::array<bool, kNumLooks> kinds_seen_{};
  bool any_waiting_ = false;
  int last_microbatch_ = 0;
  double digits_ = 1;  // of the largest microbatch number
  double width_ = 0;
  double left_ = 0;
  double right_ = 0;
  double row_height_ = 0;
  double length_ = 0;
  double px_per_ns_ = 0;
};

}  // namespace

std::string DrawSvg(const std::vector<Panel>& panels, const SvgOptions& options) {
  return SvgDrawing(panels, options).Draw();
}

}  // namespace troupe

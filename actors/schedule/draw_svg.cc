#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "actors/schedule/drawing.h"
#include "actors/schedule/drawn_bars.h"
#include "actors/schedule/svg_page.h"

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
constexpr double kLane = 6;  // of collectives, with the gap above it
constexpr double kTableRow = 20;
constexpr double kDigitWidth = 0.62;  // of the font size

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
        lane_height_ = IsOnLane(bar.action.kind) ? kLane : lane_height_;
      }
    }
    digits_ = static_cast<double>(fmt::format("{}", last_microbatch_).size());
    width_ =
        options.width_px > 0 ? std::max<double>(options.width_px, 480) : LegibleWidth(longest_ns);
    width_ = std::max(width_, SvgPage::TableWidth(options.table) + 2 * kMargin);
    left_ = kMargin + kRankLabelWidth;
    right_ = width_ - kMargin - kPercentWidth;
    row_height_ = std::clamp(460.0 / most_ranks, 15.0, 34.0) + lane_height_;
    length_ = Units(longest_ns);
    px_per_ns_ = (right_ - left_) / static_cast<double>(longest_ns);
  }

  std::string Draw() {
    double y = kMargin;
    if (!options_.title.empty()) {
      page_.Text("t", kMargin, y + 15, SvgEscaped(options_.title));
      y += kTitleHeight;
    }
    for (size_t i = 0; i < panels_.size(); ++i) {
      y = DrawPanel(i, y);
    }
    DrawAxis(y);
    y = DrawLegend(y + kAxisHeight);
    y = page_.Table(options_.table, kMargin, y);
    return page_.Finished(width_, y + kMargin / 2, LooksStyle());
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
                       SvgEscaped(options_.unit.name));
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

  std::string LooksStyle() const {
    std::set<int> numbers = {1};
    for (const DrawnChunks& chunks : chunks_) numbers.insert(chunks.num_chunks);
    std::string style;
    for (const int num_chunks : numbers) {
      for (int chunk = num_chunks == 1 ? 0 : 1; chunk < num_chunks; ++chunk) {
        for (int i = 0; i < kNumLooks; ++i) {
          style += fmt::format(".{0}{{fill:{1}}}text.{0}m{{fill:{2};text-anchor:middle}}",
                               CssClassOf(LookAt(i), chunk, num_chunks),
                               FillOf(LookAt(i), chunk, num_chunks),
                               TextColorOf(LookAt(i), chunk, num_chunks));
        }
      }
    }
    return style;
  }

  double PxOf(int64_t time_ns) const { return static_cast<double>(time_ns) * px_per_ns_; }
  double XOf(int64_t since_origin_ns) const { return left_ + PxOf(since_origin_ns); }

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
    page_.Add(fmt::format(
        "<text class=\"p\" x=\"{:.1f}\" y=\"{:.1f}\">{}<tspan class=\"s\" font-weight=\"400\" "
        "dx=\"{}\">{}</tspan></text>\n",
        kMargin, y + 13, SvgEscaped(panel.title), panel.title.empty() ? 0 : 10, figures));
    page_.Text("s r", right_ + kPercentWidth, y + 13, "bubble");
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
    // A tick above what starts at its place.
    std::ranges::stable_sort(bars, {},
                             [](const Bar& bar) { return std::pair(bar.start_ns, -bar.end_ns); });
    const double height = row_height_ - 3 - kPhaseLine - lane_height_;  // of a bar
    const double baseline = y + height / 2 + 4;
    page_.Text("s r", left_ - 10, baseline, fmt::format("rank {}", rank));
    page_.Text("s r", right_ + kPercentWidth, baseline, fmt::format("{:.1f} %", 100 * bubble));
    page_.Rect("z", left_, y, PxOf(idle.makespan_ns), height);
    std::vector<Bar> compute;
    for (const Bar& bar : bars) {
      const double x = XOf(bar.start_ns - origin_ns);
      if (IsCompute(bar.action.kind)) {
        DrawBar(bar, x, y, height);
        compute.push_back(bar);
      } else if (IsOnLane(bar.action.kind)) {
        DrawOnLane(bar, x, y + height + 2);
      }
    }
    if (compute.empty()) {
      return;
    }
    DrawNumbers(compute, origin_ns, y, height);
    DrawPairs(compute, origin_ns, y, height);
    const Phases phases = PhasesOf(compute);
    const auto line = [&](std::string_view css_class, int64_t start_ns, int64_t end_ns) {
      if (end_ns > start_ns) {
        page_.Rect(css_class, XOf(start_ns - origin_ns), y + height + lane_height_ + 1,
                   PxOf(end_ns - start_ns), kPhaseLine);
      }
    };
    line("u", phases.first_start_ns, phases.first_backward_ns);
    line("v", phases.first_backward_ns, phases.last_forward_ns);
    line("x", phases.last_forward_ns, phases.last_end_ns);
  }

  static int64_t WaitedNs(const Bar& bar) {
    return std::max<int64_t>(0, bar.end_ns - bar.start_ns - bar.cpu_ns);
  }

  const Look& Seen(ActionKind kind) {
    const Look& look = LookOf(kind);
    kinds_seen_[static_cast<size_t>(&look - &LookAt(0))] = true;
    return look;
  }

  // What takes no time is a tick.
  void DrawOnLane(const Bar& bar, double x, double y) {
    constexpr double kTick = 1.6;
    const int64_t length_ns = bar.end_ns - bar.start_ns;
    std::string tooltip = fmt::format("{} · {} of stage {}", ToString(bar.action),
                                      KindName(bar.action.kind), bar.action.stage);
    if (length_ns > 0) tooltip += fmt::format(" · {}", Time(length_ns));
    page_.Rect(Seen(bar.action.kind).css_class, x, y, std::max(PxOf(length_ns) - 0.7, kTick),
               kLane - 2, 0, tooltip);
  }

  void DrawBar(const Bar& bar, double x, double y, double height) {
    const Look& look = Seen(bar.action.kind);
    const std::string css_class =
        CssClassOf(look, panel_chunks_->Of(bar.action), panel_chunks_->num_chunks);
    const int64_t length_ns = bar.end_ns - bar.start_ns;
    // A hair of white between neighbours, where they are wide enough to afford it.
    const double whole_width = PxOf(length_ns);
    const double gap = bar.action.num_parts > 1 ? 0.3 : 0.7;
    const double width = whole_width > 3 ? whole_width - gap : std::max(whole_width, 0.3);
    const double waited =
        length_ns > 0 ? static_cast<double>(WaitedNs(bar)) / static_cast<double>(length_ns) : 0;
    std::string tooltip =
        fmt::format("{} · {} of microbatch {} · {}", ToString(bar.action),
                    KindName(bar.action.kind), bar.action.microbatch, Time(length_ns));
    if (waited > 0.01) {
      tooltip += fmt::format(" · {} waiting for a core", Time(WaitedNs(bar)));
    }
    page_.Rect(css_class, x, y, width, height, width > 3 ? 1 : 0, tooltip);
    if (waited > 0.01) {
      page_.Rect("q", x, y + height * (1 - waited), width, height * waited, width > 3 ? 1 : 0);
    }
  }

  // bars: one rank's compute bars by start.
  void DrawNumbers(const std::vector<Bar>& bars, int64_t origin_ns, double y, double height) {
    for (const Bar& bar : WithPartsJoined(bars)) {
      const double width = PxOf(bar.end_ns - bar.start_ns);
      // Sized for the longest number, so that a row does not lose its numbers half way.
      const double size = std::min({12.0, height * 0.62, (width - 1.7) / (digits_ * kDigitWidth)});
      if (size < 6.5) continue;
      page_.Add(fmt::format(
          "<text class=\"{}m\" font-size=\"{:.1f}\" x=\"{:.2f}\" y=\"{:.2f}\">{}</text>\n",
          CssClassOf(LookOf(bar.action.kind), panel_chunks_->Of(bar.action),
                     panel_chunks_->num_chunks),
          size, XOf(bar.start_ns - origin_ns) + (width - 0.7) / 2, y + height / 2 + size * 0.36,
          bar.action.microbatch));
    }
  }

  // A frame around an overlapped pair that ran together.
  void DrawPairs(const std::vector<Bar>& bars, int64_t origin_ns, double y, double height) {
    for (size_t i = 0; i + 1 < bars.size(); ++i) {
      const Bar& bar = bars[i];
      if (bar.action.pair == kNotPaired || bars[i + 1].action.pair != bar.action.pair ||
          bars[i + 1].start_ns != bar.end_ns) {
        continue;
      }
      const double width = PxOf(bars[i + 1].end_ns - bar.start_ns);
      if (width > 6) page_.Rect("o", XOf(bar.start_ns - origin_ns), y, width - 0.7, height, 1);
      any_pair_ = any_pair_ || width > 6;
    }
  }

  void DrawGrid(double y, double height) {
    const double step = NiceStep(length_, 10);
    for (int i = 0; i * step <= length_ * 1.0001; ++i) {
      const double x = left_ + i * step * options_.unit.ns * px_per_ns_;
      page_.Line("g", x, y, x, y + height);
    }
  }

  void DrawAxis(double y) {
    y -= kPanelGap - 4;
    page_.Line("a", left_, y, right_, y);
    const double step = NiceStep(length_, 10);
    for (int i = 0; i * step <= length_ * 1.0001; ++i) {
      const double x = left_ + i * step * options_.unit.ns * px_per_ns_;
      page_.Line("a", x, y, x, y + 4);
      page_.Text("s n", x, y + 18, fmt::format("{:.6g}", i * step));
    }
    page_.Text("s r", right_ + kPercentWidth, y + 18, SvgEscaped(options_.unit.name));
  }

  // Returns where it ends.
  double DrawLegend(double y) {
    double x = kMargin;
    // Room for swatches and text; in a new line where this one is full.
    const auto place = [&](double swatches_width, std::string_view text) {
      const double width = swatches_width + 6 + 6.8 * static_cast<double>(text.size());
      if (x > kMargin && x + width > width_ - kMargin) {
        x = kMargin;
        y += kTableRow;
      }
      page_.Text("s", x + swatches_width + 6, y + 10, text);
      return std::exchange(x, x + width + 16);
    };
    const auto entry = [&](std::string_view css_class, double height, std::string_view text) {
      const double at = place(16, text);
      page_.Rect(css_class, at, y + 11 - height, 16, height, height > 4 ? 1 : 0);
    };
    for (int i = 0; i < kNumLooks; ++i) {
      if (!kinds_seen_[static_cast<size_t>(i)]) continue;
      const bool on_lane = i > static_cast<int>(ActionKind::kBackward);
      entry(LookAt(i).css_class, on_lane ? kLane - 2 : 12, LookAt(i).legend);
    }
    if (most_chunks_ > 1) {
      const int stride = (most_chunks_ + 7) / 8;
      const int swatches = (most_chunks_ + stride - 1) / stride;
      double at = place(16.0 * swatches, ChunksLegend());
      for (int chunk = 0; chunk < most_chunks_; chunk += stride, at += 16) {
        page_.Rect(CssClassOf(LookOf(ActionKind::kForward), chunk, most_chunks_), at, y - 1, 16,
                   12);
      }
    }
    if (any_pair_) entry("o", 12, "overlapped pair");
    entry("z", 12, "bubble");
    if (any_waiting_) entry("q", 12, "waiting for a core");
    entry("u", 3, "warm-up");
    entry("v", 3, "steady");
    entry("x", 3, "cool-down");
    return y + kLegendHeight;
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

  const std::vector<Panel>& panels_;
  const SvgOptions& options_;
  std::vector<Idle> idles_;
  std::vector<DrawnChunks> chunks_;
  const DrawnChunks* panel_chunks_ = nullptr;  // of the panel being drawn
  int most_chunks_ = 1;
  SvgPage page_;
  std::array<bool, kNumLooks> kinds_seen_{};
  bool any_waiting_ = false;
  bool any_pair_ = false;
  int last_microbatch_ = 0;
  double digits_ = 1;  // of the largest microbatch number
  double width_ = 0;
  double left_ = 0;
  double right_ = 0;
  double row_height_ = 0;
  double lane_height_ = 0;  // 0 where no panel has collectives
  double length_ = 0;
  double px_per_ns_ = 0;
};

}  // namespace

std::string DrawSvg(const std::vector<Panel>& panels, const SvgOptions& options) {
  return SvgDrawing(panels, options).Draw();
}

}  // namespace troupe

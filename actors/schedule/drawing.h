// Pictures of a timeline: text for a terminal and SVG for a file. Called by the command line
// (planned schedules) and by the coordinator after a step (measured over planned). Pure.
#pragma once

#include <string>
#include <vector>

#include "actors/schedule/timeline.h"

namespace troupe {

inline constexpr int kTextColumns = 100;

struct Panel {
  std::string title{};  // "measured", "planned"; none where empty
  Timeline timeline{};
};

// What the timelines' nanoseconds stand for, in figures and on the axis.
struct TimeUnit {
  double ns = 1e6;
  std::string name = "ms";  // empty: plain numbers
};

// Panels above one another to one time scale. One row a rank, every character the same stretch of
// time: "F3" or "B12" at the start of a bar, '-' to its end, '.' idle; in lower case for every
// second model chunk of a rank, or for the second direction. Where bars are too short for that,
// each character is what fills most of its stretch, '=' being several kinds in turn. Where there
// are collectives, a second row of the rank shows them by kind and stage, "U2" an Unshard, "R2" a
// Reshard, "G2" a ReduceGrad, each at least one character, '=' being several. Right: the rank's
// bubble. Last: the legend. No line is wider than `columns`.
std::string DrawText(const std::vector<Panel>& panels, int columns = kTextColumns);
std::string DrawText(const Timeline& timeline, int columns = kTextColumns);

struct SvgOptions {
  std::string title{};  // "1f1b · 4 ranks × 8 microbatches"
  int width_px = 0;     // 0: wide enough for the microbatch numbers, 1120 to 6000
  TimeUnit unit{};
  // Below the panels: rows of cells, the first the head; the first column to the left.
  std::vector<std::vector<std::string>> table{};
};

// Panels above one another to one time scale, each starting at its own first bar. Forward, input
// gradient, weight gradient and full backward by colour, paler for a rank's later chunks or the
// second direction, microbatch numbers where they are legible, idle time within the makespan
// hatched with its per cent in the panel's title. Collectives are thin bars below the rank's row,
// or ticks where they take no time. The lower part of a bar is shaded by the share of its time that
// was spent waiting for a core. A line under each row marks warm-up (until the rank's first
// backward), steady and cool-down (after its last Forward).
std::string DrawSvg(const std::vector<Panel>& panels, const SvgOptions& options = {});

}  // namespace troupe

// Figures of schedules beside those that they must have: closed forms, rates on measured profiles,
// tables of equal and unequal times, overlapped pairs. Checked by reference_figures_test and
// printed by schedule_figures (./run figures); the tables' numbers are in reference_tables.h.
// Pure; a schedule that cannot be generated or run is a broken CHECK.
#pragma once

#include <string>
#include <vector>

namespace troupe::testing {

// Half a unit of a table's last decimal; a little more where the table was rounded twice.
constexpr double kFourDecimals = 0.00005;
constexpr double kOneDecimal = 0.06;

struct Figure {
  std::string name{};  // "makespan bubble"
  double ours = 0;
  double reference = 0;
  double tolerance = 0;  // negative: shown, not judged

  bool judged() const { return tolerance >= 0; }
  bool equal() const;
};

// What one or several runs of a schedule gave. Neighbours with one label and p are shown as one
// line, with the figures of the first.
struct FigureRow {
  std::string label{};  // "dualpipe, fused pairs"
  int p = 0;
  std::string shape{};  // "m = 32, v = 2, f, b, w = 3, 4, 2"
  std::vector<Figure> figures{};
};

struct FigureTable {
  std::string title{};
  int decimals = 0;  // of its figures, at most
  std::vector<FigureRow> rows{};

  int NumJudged() const;
  int NumEqual() const;
};

// Bubbles in units of f, most activations of a rank, messages a microbatch: every schedule at its
// closed form for p = 4, 8, 16 and m = 2p, 3p, 4p, with f = b = w and with f, b, w = 3, 4, 2, free
// hops, all chunks and groups. The pairs of DualPipe and DualPipeV eager and fused.
FigureTable ClosedFormFigures();
// Rates of 1F1B, interleaved 1F1B, ZB-H1 and ZB-H2 on twelve measured profiles, to four decimals.
FigureTable ProfileFigures();
// Rates and peaks for f = b = w, free hops and hops of f/10, p = 4, 8, 16 and m = p, 2p, 4p, in per
// cent to one decimal.
FigureTable EqualTimeFigures();
// Makespans where f, b and w differ, p = 8, m = 16.
FigureTable UnequalTimeFigures();
// Makespans where pairs overlap, p = 8, m = 32.
FigureTable OverlapFigures();
// Span bubbles on profiles of whole models, ZB-V and free-running within 1.5p and 1.75p
// activations, to four decimals.
FigureTable ModelFigures();

}  // namespace troupe::testing

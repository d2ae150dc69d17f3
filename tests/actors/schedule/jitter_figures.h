// Schedules under noise: sampled steps of the policies of kJitterRows on 8 ranks with 32
// microbatches and hops of 0.1, and the goals that free-running on the V placement must reach.
// Checked by jitter_figures_test and printed by schedule_figures (./run figures). Pure.
//
// Sample s of two policies on one placement meets the same noise, so that their difference is
// sampled in pairs. Under noise ranks have unequal work, and a step is held against two bounds:
//   bound    the largest over ranks of the start that the mean times allow and the sampled work
//   busiest  start and work of the rank with the most work alone: never more, so that a makespan is
//            further above it. The reference figures are above this one.
// A span bubble is (longest span - most work of a rank) / longest span, as in the reference.
#pragma once

#include <string>
#include <vector>

#include "actors/schedule/schedule_figures.h"
#include "tests/actors/schedule/reference_figures.h"
#include "tests/actors/schedule/reference_tables.h"

namespace troupe::testing {

// Of every sample, in per cent.
struct JitterSamples {
  std::vector<double> makespan_bubble{};
  std::vector<double> span_bubble{};
  std::vector<double> above_bound{};
  std::vector<double> above_busiest{};
};

JitterSamples SampleJitter(const JitterRow& row, const JitterCondition& condition, int num_samples);

// "dynamic, free-run within 1.5p, 4 parts".
std::string LabelOf(const JitterRow& row);

// The row of free-running on the V placement within 1.5p activations, weight gradients in four
// parts, and that of ZB-V in its order.
const JitterRow& FreeRunRow();
const JitterRow& ZeroBubbleVRow();

// Makespan bubbles of all rows without noise, in per cent to one decimal.
FigureTable StillFigures();

// Mean and standard error; the second is 0 for one sample.
Estimate EstimateOf(const std::vector<double>& samples);
// Of a - b, sample by sample.
Estimate EstimateOfDifference(const std::vector<double>& a, const std::vector<double>& b);

struct JitterGoal {
  std::string what{};
  Estimate figure{};
  double goal = 0;
  bool at_most = true;  // else at least

  bool met() const { return at_most ? figure.mean <= goal : figure.mean >= goal; }
};
// At least 200 samples make their means comparable with the goals.
std::vector<JitterGoal> JitterGoals(int num_samples);

}  // namespace troupe::testing

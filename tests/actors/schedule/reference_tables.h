// Figures that schedules must have, as tables, written here alone: of papers where one is named,
// else of an independent simulator in Python. Compared by reference_figures.h and jitter_figures.h.
#pragma once

#include <array>

namespace troupe::testing {

// Rates on measured profiles, of the zero-bubble paper (2401.10241): makespan for 1F1B, its
// interleaved form with two layers a stage, and ZB-H1, span for ZB-H2. Interleaved 1F1B as it is
// with every dependency kept; the paper's own figures left out most waits of the first rank for the
// last.
struct ProfileRow {
  int p = 0;
  int m = 0;
  double f_ms = 0;
  double b_ms = 0;
  double w_ms = 0;
  double hop_ms = 0;
  int chunks = 0;  // of interleaved 1F1B
  double one_f_one_b = 0;
  double interleaved = 0;
  double zb_h1 = 0;
  double zb_h2 = 0;
};
inline constexpr std::array<ProfileRow, 12> kProfiles = {{
    {8, 24, 18.522, 18.086, 9.337, .601, 3, .2431, .1090, .1585, .1083},
    {8, 32, 18.513, 18.086, 9.331, .626, 3, .1985, .0847, .1242, .0837},
    {8, 64, 18.546, 18.097, 9.321, .762, 3, .1240, .0461, .0674, .0444},
    {8, 24, 29.718, 29.444, 19.927, .527, 4, .2347, .0827, .1323, .0698},
    {8, 32, 29.802, 29.428, 19.530, .577, 4, .1898, .0644, .1045, .0559},
    {8, 64, 29.935, 29.621, 19.388, .535, 4, .1091, .0328, .0554, .0294},
    {16, 48, 11.347, 11.248, 8.132, .377, 3, .2552, .1136, .1397, .0672},
    {16, 64, 11.307, 11.254, 8.101, .379, 3, .2082, .0878, .1088, .0516},
    {16, 128, 11.325, 11.308, 8.109, .378, 3, .1251, .0459, .0576, .0266},
    {32, 96, 10.419, 10.207, 7.715, .408, 2, .2646, .1528, .1421, .0641},
    {32, 128, 10.408, 10.204, 7.703, .408, 2, .2168, .1192, .1106, .0490},
    {32, 256, 10.402, 10.248, 7.698, .460, 2, .1352, .0641, .0594, .0257},
}};

// Per cent of the makespan (or span) for f = b = w, with free hops and with hops of f/10, and the
// most activations of a rank. m = p, 2p, 4p in turn; negative where the schedule cannot be.
struct UnitRates {
  double free_hops = -1;
  double slow_hops = -1;
};
struct UnitRow {
  const char* name = "";
  int chunks = 0;
  bool span = false;
  bool fused = false;  // pairs
  int p = 0;
  std::array<UnitRates, 3> rates{};
  double peak = 0;  // at m = 4p; below 0: m
};
inline constexpr std::array<UnitRow, 51> kUnitRows = {{
    {"gpipe", 0, false, false, 4, {{{42.9, 44.4}, {27.3, 28.6}, {15.8, 16.7}}}, -1},
    {"gpipe", 0, false, false, 8, {{{46.7, 48.3}, {30.4, 31.8}, {17.9, 18.9}}}, -1},
    {"gpipe", 0, false, false, 16, {{{48.4, 50.0}, {31.9, 33.3}, {19.0, 20.0}}}, -1},
    {"1f1b", 0, false, false, 4, {{{42.9, 45.5}, {27.3, 30.6}, {15.8, 19.7}}}, 4},
    {"1f1b", 0, false, false, 8, {{{46.7, 49.6}, {30.4, 34.3}, {17.9, 22.5}}}, 8},
    {"1f1b", 0, false, false, 16, {{{48.4, 51.4}, {31.9, 35.9}, {19.0, 23.8}}}, 16},
    {"interleaved-1f1b", 2, false, false, 4, {{{27.3, 33.0}, {15.8, 19.7}, {8.6, 11.0}}}, 5.5},
    {"interleaved-1f1b", 2, false, false, 8, {{{30.4, 36.0}, {17.9, 22.0}, {9.9, 12.3}}}, 11.5},
    {"interleaved-1f1b", 2, false, false, 16, {{{31.9, 37.4}, {19.0, 23.0}, {10.5, 13.0}}}, 23.5},
    {"interleaved-1f1b", 4, false, false, 4, {{{15.8, 30.4}, {8.6, 17.9}, {4.5, 9.9}}}, 4.75},
    {"interleaved-1f1b", 4, false, false, 8, {{{17.9, 32.3}, {9.9, 19.3}, {5.2, 10.7}}}, 9.75},
    {"interleaved-1f1b", 4, false, false, 16, {{{19.0, 33.2}, {10.5, 19.9}, {5.5, 11.1}}}, 19.75},
    {"looped-bfs", 2, false, false, 4, {{{27.3, 33.0}, {15.8, 17.5}, {8.6, 9.6}}}, -1},
    {"looped-bfs", 2, false, false, 8, {{{30.4, 36.0}, {17.9, 19.9}, {9.9, 11.0}}}, -1},
    {"looped-bfs", 2, false, false, 16, {{{31.9, 37.4}, {19.0, 21.0}, {10.5, 11.7}}}, -1},
    {"zb-h1", 0, false, false, 4, {{{20.0, 25.0}, {11.1, 14.9}, {5.9, 8.1}}}, 4},
    {"zb-h1", 0, false, false, 8, {{{22.6, 28.6}, {12.7, 17.0}, {6.8, 9.3}}}, 8},
    {"zb-h1", 0, false, false, 16, {{{23.8, 30.2}, {13.5, 18.0}, {7.3, 9.9}}}, 16},
    {"zb-h2", 0, false, false, 4, {{{}, {11.1, 12.1}, {5.9, 6.4}}}, 7},
    {"zb-h2", 0, false, false, 8, {{{}, {12.7, 13.8}, {6.8, 7.4}}}, 15},
    {"zb-h2", 0, false, false, 16, {{{}, {13.5, 14.7}, {7.3, 7.9}}}, 31},
    {"zb-h2", 0, true, false, 4, {{{}, {0.0, 2.4}, {0.0, 1.2}}}, 7},
    {"zb-h2", 0, true, false, 8, {{{}, {0.0, 2.8}, {0.0, 1.4}}}, 15},
    {"zb-h2", 0, true, false, 16, {{{}, {0.0, 3.0}, {0.0, 1.5}}}, 31},
    {"interleaved-zb", 2, false, false, 4, {{{11.1, 19.5}, {5.9, 11.4}, {3.0, 6.1}}}, 4},
    {"interleaved-zb", 2, false, false, 8, {{{12.7, 22.3}, {6.8, 12.9}, {3.5, 6.9}}}, 8},
    {"interleaved-zb", 2, false, false, 16, {{{13.5, 23.7}, {7.3, 13.6}, {3.8, 7.3}}}, 16},
    {"zb-v", 0, false, false, 4, {{{20.0, 25.9}, {5.9, 10.5}, {3.0, 5.5}}}, 4},
    {"zb-v", 0, false, false, 8, {{{22.6, 29.0}, {6.8, 12.4}, {3.5, 6.6}}}, 8},
    {"zb-v", 0, false, false, 16, {{{23.8, 30.4}, {7.3, 13.4}, {3.8, 7.2}}}, 16},
    {"zb-v", 0, true, false, 4, {{{}, {0.0, 6.3}, {0.0, 3.2}}}, 4},
    {"zb-v", 0, true, false, 8, {{{}, {0.0, 7.7}, {0.0, 4.0}}}, 8},
    {"zb-v", 0, true, false, 16, {{{}, {0.0, 8.4}, {0.0, 4.4}}}, 16},
    {"v-half", 0, false, false, 4, {{{29.4, 35.5}, {9.4, 16.4}, {5.0, 8.9}}}, 3},
    {"v-half", 0, false, false, 8, {{{26.2, 35.3}, {15.0, 21.7}, {8.1, 12.2}}}, 5},
    {"v-half", 0, false, false, 16, {{{29.9, 39.9}, {17.6, 24.2}, {9.7, 13.8}}}, 9},
    {"v-min", 0, false, false, 4, {{{31.4, 39.7}, {18.6, 28.4}, {10.3, 20.9}}}, 2},
    {"v-min", 0, false, false, 8, {{{36.0, 45.3}, {22.0, 33.4}, {12.3, 25.2}}}, 4},
    {"v-min", 0, false, false, 16, {{{38.1, 47.8}, {23.5, 35.4}, {13.3, 26.9}}}, 6},
    {"dualpipe", 0, false, false, 4, {{{}, {4.0, 6.6}, {2.0, 3.4}}}, 5},
    {"dualpipe", 0, false, false, 8, {{{}, {5.9, 8.9}, {3.0, 4.7}}}, 9},
    {"dualpipe", 0, false, false, 16, {{{}, {6.8, 10.0}, {3.5, 5.3}}}, 17},
    {"dualpipe-v", 0, false, false, 4, {{{}, {5.9, 10.4}, {3.0, 5.5}}}, 4.5},
    {"dualpipe-v", 0, false, false, 8, {{{}, {6.8, 13.0}, {3.5, 7.0}}}, 8.5},
    {"dualpipe-v", 0, false, false, 16, {{{}, {7.3, 14.3}, {3.8, 7.7}}}, 16.5},
    {"dualpipe", 0, false, true, 4, {{{}, {7.7, 10.8}, {4.0, 6.8}}}, 5},
    {"dualpipe", 0, false, true, 8, {{{}, {11.1, 14.7}, {5.9, 9.2}}}, 9},
    {"dualpipe", 0, false, true, 16, {{{}, {12.7, 16.6}, {6.8, 10.3}}}, 17},
    {"dualpipe-v", 0, false, true, 4, {{{}, {11.1, 16.4}, {5.9, 11.0}}}, 4.5},
    {"dualpipe-v", 0, false, true, 8, {{{}, {12.7, 19.9}, {6.8, 13.3}}}, 8.5},
    {"dualpipe-v", 0, false, true, 16, {{{}, {13.5, 21.5}, {7.3, 14.4}}}, 16.5},
}};

// Makespans in units of f on 8 ranks with 16 microbatches.
struct UnequalRow {
  const char* name = "";
  bool fused = false;
  double hop = 0;     // in units of f
  double mild = 0;    // b, w = 1.1, 0.8
  double strong = 0;  // b, w = 1.2, 0.6
};
inline constexpr std::array<UnequalRow, 10> kUnequalRows = {{
    {"zb-h1", false, 0, 55.5, 56.0},
    {"zb-h2", false, 0, 53.4, 51.8},
    {"zb-v", false, 0, 50.25, 49.0},
    {"interleaved-1f1b", false, 0, 56.55, 54.6},
    {"interleaved-zb", false, 0, 50.95, 50.4},
    {"dualpipe", true, 0, 53.3, 52.6},
    {"dualpipe", false, 0, 50.3, -1},
    {"zb-h1", false, .1, 58.3, 58.8},
    {"zb-v", false, .1, 53.55, 53.0},
    {"interleaved-zb", false, .1, 54.55, 54.0},
}};

// Makespans of fused pairs in units of f = b = w on 8 ranks with 32 microbatches, where a pair
// takes 1, 0.9, 0.8 and 0.7 of its actions' times one after the other.
struct OverlapRow {
  const char* name = "";
  std::array<double, 4> makespans{};
};
inline constexpr std::array<double, 4> kPairFactors = {1, .9, .8, .7};
inline constexpr std::array<OverlapRow, 2> kOverlapRows = {{
    {"dualpipe", {102, 94.2, 86.4, 78.6}},
    {"dualpipe-v", {103, 94.9, 86.8, 78.7}},
}};

// Span bubbles on profiles of whole models, one of kProfiles each, where the part 32h/(34h+5as) of
// an activation stays until the weight gradient (hidden size h, a heads, s = 1024 tokens): ZB-V in
// its order, and free-running on the V placement within 1.5p and 1.75p activations, the better of
// weight gradients whole and in four parts. The figure above 0 had a look-ahead that this executor
// has not; negative where there is none.
struct ModelRow {
  int profile = 0;  // index into kProfiles
  const char* parameters = "";
  int hidden = 0;
  int heads = 0;
  double zb_v = 0;
  double free_run_150 = 0;
  double free_run_175 = 0;
};
inline constexpr std::array<ModelRow, 4> kModelRows = {{
    {0, "1.5 B", 2304, 24, .0728, .0166, 0},
    {4, "6.2 B", 4096, 32, .0358, 0, 0},
    {6, "14.6 B", 5120, 40, .0518, 0, 0},
    {9, "28.3 B", 6144, 48, .0541, 0, -1},
}};

// Noise on 8 ranks with 32 microbatches, f = 1, hops of 0.1.
struct JitterCondition {
  const char* name = "";
  double b = 1;
  double w = 1;
  double sigma = 0;        // of the logarithm of every action's time
  double hiccup_rate = 0;  // of the Forwards and input gradients ...
  double hiccup_size = 0;  // ... that take as many mean Forwards of their stage longer
};
enum Jitter { kStill, kMild, kMiddle, kStrong, kUnequal, kHiccups, kNumConditions };
inline constexpr std::array<JitterCondition, kNumConditions> kJitterConditions = {{
    {"f=b=w, no noise"},
    {"f=b=w, σ = 0.1", 1, 1, .1},
    {"f=b=w, σ = 0.2", 1, 1, .2},
    {"f=b=w, σ = 0.3", 1, 1, .3},
    {"f, b, w = 1, 1.1, 0.8, σ = 0.2", 1.1, .8, .2},
    {"f=b=w, σ = 0.2, hiccups", 1, 1, .2, .03, 5},
}};

// Per cent; means of 8 samples, but those above the bound of "dynamic" within 1.5p in four parts,
// of 240.
struct JitterRow {
  const char* lists = "";
  std::array<double, kNumConditions> makespan{};  // bubbles
  double span = 0;                                // bubble under kMiddle
  std::array<double, 3> above{};                  // the bound, under kMiddle, kUnequal and kHiccups
  const char* executor = "strict";
  double activations = 0;  // of p: guided, the slack; free-run, the limit
  int weight_parts = 1;
};
inline constexpr std::array<JitterRow, 15> kJitterRows = {{
    {"1f1b", {22.5, 24.6, 27.6, 30.7, 27.8, 39.7}, 25.1, {29.3, 29.6, 44.5}},
    {"interleaved-1f1b", {12.3, 12.6, 14.4, 17.2, 14.4, 27.9}, 12.4, {12.1, 12.0, 23.8}},
    {"zb-h1", {9.3, 11.7, 14.7, 18.5, 16.6, 31.6}, 11.5, {9.7, 12.2, 27.5}},
    {"zb-h2", {7.4, 8.0, 9.5, 12.1, 10.0, 22.4}, 3.5, {3.4, 3.9, 12.1}},
    {"interleaved-zb", {6.9, 9.5, 13.3, 17.7, 15.0, 31.5}, 11.2, {10.7, 12.8, 30.3}},
    {"zb-v", {6.6, 7.6, 9.7, 12.4, 10.1, 23.2}, 5.7, {6.3, 6.7, 18.2}},
    {"dualpipe", {4.7, 5.8, 8.3, 11.4, 9.1, 23.7}, 5.4, {4.4, 5.4, 17.3}},
    {"zb-v", {5.7, 7.6, 8.9, 11.1, 10.5, 20.7}, 7.1, {5.3, 7.1, 14.3}, "guided", 0, 1},
    {"zb-v", {5.5, 6.1, 7.9, 10.1, 9.9, 20.2}, 6.0, {4.2, 6.3, 13.6}, "guided", 0, 4},
    {"zb-v", {4.2, 5.1, 6.6, 8.1, 8.0, 17.6}, 4.7, {2.8, 4.1, 9.9}, "guided", .5, 4},
    {"dynamic", {7.6, 7.0, 7.7, 8.7, 9.4, 17.9}, 5.9, {4.0, 5.8, 10.5}, "free-run", 1.25, 4},
    {"dynamic", {5.0, 6.4, 7.5, 7.7, 8.5, 16.7}, 5.6, {3.7, 4.8, 8.9}, "free-run", 1.5, 1},
    {"dynamic", {4.2, 4.9, 5.6, 6.8, 7.5, 15.4}, 3.1, {1.8, 3.7, 7.62}, "free-run", 1.5, 4},
    {"dynamic", {4.2, 4.5, 5.4, 6.6, 5.7, 12.8}, 0.5, {1.4, 1.6, 3.9}, "free-run", 2, 4},
    {"interleaved-zb", {4.2, 5.4, 6.1, 8.3, 8.8, 18.0}, 2.8, {2.2, 5.2, 8.7}, "free-run", 1.5, 4},
}};

}  // namespace troupe::testing

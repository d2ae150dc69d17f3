// What pictures need to tell a rank's model chunks, or the two directions of a bidirectional
// schedule, apart: which of its rank's stages a bar is of, and the colours. Read off the bars
// alone. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/timeline.h"

namespace troupe {

struct DrawnChunks {
  int num_chunks = 1;         // most stages of one rank
  bool directions = false;    // several stages a rank, and no rank runs a microbatch in two of them
  std::vector<int> number{};  // per stage: its place among its rank's stages, from 0

  int Of(const Action& action) const {
    const auto stage = static_cast<size_t>(action.stage.value);
    return IsCompute(action.kind) && stage < number.size() ? number[stage] : 0;
  }
};
DrawnChunks ChunksOf(const Timeline& timeline);

// Shown on the lane beside compute: collectives but for waits, which are no work.
bool IsOnLane(ActionKind kind);

// When a rank warms up and cools down.
struct Phases {
  int64_t first_start_ns = 0;
  int64_t first_backward_ns = 0;  // the end of the warm-up
  int64_t last_forward_ns = 0;    // the start of the cool-down
  int64_t last_end_ns = 0;
};
// bars: one rank's compute bars by start, not empty.
Phases PhasesOf(const std::vector<Bar>& bars);

// A rank's bars by start; parts of a weight gradient that run one right behind the other as one
// bar, which has the first one's action, without the part where it is all of them.
std::vector<Bar> WithPartsJoined(const std::vector<Bar>& bars);

// Colours as in the zero-bubble papers: blue Forward, cyan input gradient, green weight gradient;
// the full backward is their mixture. Collectives stand on a lane of their own: gathers amber, sums
// of gradients magenta, the drop of what was gathered grey.
struct Look {
  std::string_view css_class;
  std::string_view legend;
  uint32_t fill = 0;       // 0xRRGGBB, of a rank's first chunk
  uint32_t text = 0;       // on it
  uint32_t pale_text = 0;  // on what is lighter than half way to the palest
};
const Look& LookOf(ActionKind kind);  // of a compute action or a collective
// Every kind that looks different.
inline constexpr int kNumLooks = 7;
const Look& LookAt(int index);

// "#rrggbb" of a chunk among `num_chunks`: the first has the colour itself, later ones paler.
std::string FillOf(const Look& look, int chunk, int num_chunks);
std::string TextColorOf(const Look& look, int chunk, int num_chunks);
// "f" for a rank's first chunk, "f1-4" for the second of four.
std::string CssClassOf(const Look& look, int chunk, int num_chunks);

}  // namespace troupe

#include "actors/schedule/drawn_bars.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <utility>

namespace troupe {
namespace {

constexpr std::array<Look, kNumLooks> kLooks = {{
    {"f", "Forward", 0x4f81e8, 0xffffff, 0x0d2a66},
    {"i", "input gradient", 0x3fb4cf, 0x06303a, 0x06303a},
    {"w", "weight gradient", 0x67bd70, 0x0d3313, 0x0d3313},
    {"b", "full backward", 0x2a9384, 0xffffff, 0x07332d},
    {"c", "gather", 0xeda63a, 0x4a2f00, 0x4a2f00},
    {"k", "drop", 0x5c6773, 0xffffff, 0x16202e},
    {"h", "gradient sum", 0xc94f8c, 0xffffff, 0x4d0a2e},
}};

// How far from the colour (0) towards white (1).
double Paleness(int chunk, int num_chunks) {
  constexpr double kPalest = 0.56;
  return num_chunks < 2 ? 0 : kPalest * chunk / (num_chunks - 1);
}

std::string Hex(uint32_t color) { return fmt::format("#{:06x}", color); }

}  // namespace

DrawnChunks ChunksOf(const Timeline& timeline) {
  DrawnChunks chunks;
  std::map<PipelineRank, std::set<StageId>> stages;
  std::map<std::pair<PipelineRank, MicrobatchId>, StageId> first_stage;
  bool apart = true;
  for (const Bar& bar : timeline.bars) {
    if (!IsCompute(bar.action.kind)) continue;
    stages[bar.rank].insert(bar.action.stage);
    const auto [seen, fresh] =
        first_stage.try_emplace({bar.rank, bar.action.microbatch}, bar.action.stage);
    apart = apart && (fresh || seen->second == bar.action.stage);
  }
  for (const auto& [rank, own] : stages) {
    const auto size = static_cast<size_t>(own.rbegin()->value) + 1;
    if (chunks.number.size() < size) chunks.number.resize(size, 0);
    int number = 0;
    for (const StageId stage : own) chunks.number[static_cast<size_t>(stage.value)] = number++;
    chunks.num_chunks = std::max(chunks.num_chunks, number);
  }
  chunks.directions = apart && chunks.num_chunks > 1;
  return chunks;
}

std::vector<Bar> WithPartsJoined(const std::vector<Bar>& bars) {
  std::vector<Bar> joined;
  for (const Bar& bar : bars) {
    const auto continues = [&bar](const Bar& last) {
      Action next = last.action;
      next.part = bar.action.part;
      return bar.action.num_parts > 1 && last.end_ns == bar.start_ns && next == bar.action;
    };
    if (joined.empty() || !continues(joined.back())) {
      joined.push_back(bar);
      continue;
    }
    Bar& last = joined.back();
    last.end_ns = bar.end_ns;
    last.cpu_ns += bar.cpu_ns;
    if (last.action.part == 0 && bar.action.part + 1 == bar.action.num_parts) {
      last.action.num_parts = 1;
    }
  }
  return joined;
}

const Look& LookAt(int index) { return kLooks[static_cast<size_t>(index)]; }

const Look& LookOf(ActionKind kind) {
  if (IsCompute(kind)) return kLooks[static_cast<size_t>(kind)];
  constexpr size_t kGather = 4;
  return kLooks[kind == ActionKind::kUnshard   ? kGather
                : kind == ActionKind::kReshard ? kGather + 1
                                               : kGather + 2];
}

bool IsOnLane(ActionKind kind) { return IsCollective(kind) && kind != ActionKind::kWaitReduceGrad; }

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

std::string FillOf(const Look& look, int chunk, int num_chunks) {
  const double paleness = Paleness(chunk, num_chunks);
  uint32_t mixed = 0;
  for (const int shift : {16, 8, 0}) {
    const double part = (look.fill >> shift) & 0xff;
    mixed |= static_cast<uint32_t>(std::lround(part + (255 - part) * paleness)) << shift;
  }
  return Hex(mixed);
}

std::string TextColorOf(const Look& look, int chunk, int num_chunks) {
  return Hex(Paleness(chunk, num_chunks) > 0.3 ? look.pale_text : look.text);
}

std::string CssClassOf(const Look& look, int chunk, int num_chunks) {
  return chunk == 0 ? std::string(look.css_class)
                    : fmt::format("{}{}-{}", look.css_class, chunk, num_chunks);
}

}  // namespace troupe

#include "coordinator/report/step_line.h"

#include <fmt/format.h>

#include <algorithm>

#include "actors/plan/batch_arithmetic.h"

namespace troupe {
namespace {

// Loss, what is left and tokens a second stay to the last.
std::string Fitted(std::vector<LinePiece> pieces, size_t columns) {
  std::string line = WholeLine(pieces);
  while (line.size() > columns) {
    const auto next = std::ranges::max_element(pieces, {}, &LinePiece::dropped);
    if (next->dropped == 0) break;
    pieces.erase(next);
    line = WholeLine(pieces);
  }
  return line;
}

}  // namespace

std::string LossText(const proto::StepMetrics& m) {
  return m.has_loss() ? fmt::format("loss {:.4f}", m.loss()) : "no loss";
}

std::vector<LinePiece> StepPieces(const proto::StepMetrics& m, int64_t steps, int workers,
                                  double seconds_left) {
  const auto rate = static_cast<int64_t>(m.tokens_per_second());
  std::vector<LinePiece> pieces = {{fmt::format("step {:>5}/{}", m.step(), steps), 3},
                                   {LossText(m)}};
  if (m.has_grad_norm()) pieces.push_back({fmt::format("grad_norm {:.3f}", m.grad_norm()), 5});
  pieces.push_back({fmt::format("lr {:.2e}", m.lr()), 4});
  pieces.push_back({fmt::format("tok/s {}", WithThousands(rate)), 2});
  if (workers > 1) pieces.push_back({fmt::format("({}/worker)", WithThousands(rate / workers)), 9});
  pieces.push_back({fmt::format("bubble {:.1f}%", 100 * m.bubble_fraction()), 7});
  if (m.mfu() > 0) pieces.push_back({fmt::format("mfu {:.1f}%", 100 * m.mfu()), 6});
  pieces.push_back({fmt::format("{:.3f} s", m.step_seconds()), 8});
  pieces.push_back({fmt::format("{} tokens", WithThousands(m.tokens())), 10});
  pieces.push_back({fmt::format("eta {}", DurationText(seconds_left)), 1});
  return pieces;
}

std::vector<LinePiece> ReferenceStepPieces(const proto::StepMetrics& m, int64_t steps) {
  return {{fmt::format("one worker: step {:>5}/{}", m.step(), steps)},
          {LossText(m), 1},
          {fmt::format("{:.3f} s", m.step_seconds()), 2}};
}

std::string WholeLine(const std::vector<LinePiece>& pieces) {
  std::string line;
  for (const LinePiece& piece : pieces) {
    const bool beside = piece.text.starts_with('(');
    line += (line.empty() ? "" : beside ? " " : " | ") + piece.text;
  }
  return line;
}

std::string FittedBesideBar(const std::vector<LinePiece>& pieces, size_t columns) {
  constexpr size_t kBar = kBarColumns + 3;
  std::string line = columns > kBar ? Fitted(pieces, columns - kBar) : "";
  return line.starts_with(pieces.front().text) && line.size() + kBar <= columns
             ? line
             : Fitted(pieces, columns);
}

std::string DurationText(double seconds) {
  if (!(seconds < 1e9)) return "?";
  const auto whole = static_cast<int64_t>(seconds);
  if (seconds < 100) return fmt::format("{:.0f}s", seconds);
  if (whole < 6000) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
}

}  // namespace troupe

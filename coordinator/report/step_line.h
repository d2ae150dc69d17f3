// The line of a step, as a console shows it: pieces, of which the less needed go where room is
// short. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/worker.pb.h"

namespace troupe {

inline constexpr int64_t kBarColumns = 24;  // of a whole progress bar, without its brackets

// Where the line is too long, the pieces of the highest number go first.
struct LinePiece {
  std::string text{};
  int dropped = 0;  // 0: stays
};

std::string LossText(const proto::StepMetrics& metrics);  // "no loss" of a skipped step
std::vector<LinePiece> StepPieces(const proto::StepMetrics& metrics, int64_t steps, int workers,
                                  double seconds_left);
// Of the run on one worker that a run is compared with.
std::vector<LinePiece> ReferenceStepPieces(const proto::StepMetrics& metrics, int64_t steps);

std::string WholeLine(const std::vector<LinePiece>& pieces);

// As many pieces as fit; beside a whole bar where the first one has room there too.
std::string FittedBesideBar(const std::vector<LinePiece>& pieces, size_t columns);

// "59s", "12m03s", "2h05m"; "?" of what is no time.
std::string DurationText(double seconds);

}  // namespace troupe

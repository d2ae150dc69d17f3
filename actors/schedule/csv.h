// Schedules as CSV files: one row a rank, one cell an action, no header. Called by the command line
// and by the planner, with files that users wrote. Pure.
//
// The grammar is PyTorch's, with three additions (in its dialect they are refused):
//   cell := "" | action | "(" action ";" action ")OVERLAP_F_B"      action: see action.h
//   parts of a weight gradient                                      3W5/1of4
//   reductions of one microbatch's gradients                        1REDUCE_GRAD3
//   two directions
// Empty cells are bubbles: they mean nothing, and between others only files of compute actions
// alone have them. A row with nothing else is a rank without actions, and so is a blank line
// between others, as PyTorch reads it; such rows at the end, and blank lines in front, which
// editors and spreadsheets leave, are none. Read as well is what spreadsheets write of such a file
// (csv_cells.h). Stages, microbatches and the stages' ranks follow from the actions. A file runs in
// *two directions* where stages and microbatches are even in number, the lower half of the stages
// runs none of the upper half of the microbatches and the other way round, and every rank that runs
// stages runs some of each half. No complete file in one direction looks so, for there every stage
// runs every microbatch.
//
// PyTorch's older dialect wrote BW for the whole backward and B for the input gradient. A file is
// read so where it has a BW, or W and B but no I: today W only ever follows I.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

enum class Dialect : uint8_t {
  kTroupe,
  kPyTorch,  // what PyTorch's loader takes
};

// One row: "0F0,0F1,0B0,(0F2;0B1)OVERLAP_F_B".
std::string ToCsvRow(const std::vector<Action>& actions);
// The lists as they are. Rows end in "\r\n".
std::string ToCsv(const Schedule& schedule);
// kInvalidSpec, naming the cell, where the dialect lacks something that the schedule has.
Result<std::string> ToCsv(const Schedule& schedule, Dialect dialect);
// With sends and receives, for runtimes that do not derive them (communication.h). PyTorch's
// dialect lists waits as well, as its recent versions ask; older ones do not know them and take
// Troupe's.
Result<std::string> ToCsvWithCommunication(const Schedule& schedule,
                                           Dialect dialect = Dialect::kTroupe);

// What a reader may want to tell its user.
struct CsvNotes {
  bool older_dialect = false;       // translated: BW to B, B to I
  bool with_communication = false;  // it had sends and receives; they matched and were dropped
};

// The longest text that is read; ranks, stages and microbatches have limits too (action.h).
inline constexpr int64_t kCsvBytesMax = int64_t{64} << 20;

// Files of compute actions, and files with sends and receives, which must be exactly those that the
// compute actions need. Whether the schedule can run is the validator's question. Errors are
// kInvalidSpec and name row and cell, both from 1.
Result<Schedule> ParseCsv(std::string_view text, std::string_view name, CsvNotes* notes = nullptr);

}  // namespace troupe

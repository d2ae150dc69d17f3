#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "actors/schedule/communication.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/csv_cells.h"

namespace troupe {
namespace {

constexpr std::string_view kPairSuffix = "OVERLAP_F_B";
constexpr std::string_view kPairForm = "(0F2;0B1)OVERLAP_F_B";
constexpr std::string_view kOlderBackward = "BW";

// Takes the text up to `separator` off the front of `text`.
std::string_view TakeUntil(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  const std::string_view token = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return token;
}

// One action in the older dialect, where a file has BW: it stands for B, and B for I.
Result<Action> ParseOlderAction(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  const size_t type = std::min(text.find_first_not_of(kDigits), text.size());
  if (text.substr(type).starts_with(kOlderBackward)) {
    auto action = ParseAction(fmt::format("{}B{}", text.substr(0, type), text.substr(type + 2)));
    if (action.ok()) return action;
    return Context(fmt::format("{}, its BW read as B", text), std::move(action).error());
  }
  ASSIGN_OR_RETURN(Action action, ParseAction(text));
  if (action.kind == ActionKind::kBackwardInput) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "action '{}': a file with BW is of an older dialect, which writes B for I; "
                     "write I and B throughout",
                     text);
  }
  if (action.kind == ActionKind::kBackward) {
    action.kind = ActionKind::kBackwardInput;
  }
  return action;
}

// One row's actions, and the cell that each of them stands in.
struct Row {
  std::vector<Action> actions{};
  std::vector<int> cells{};
  int first_empty_cell = 0;  // 0: none
};

class CsvReader {
 public:
  CsvReader(std::string_view text, std::string_view name)
      : text_(text), has_older_backward_(text.find(kOlderBackward) != std::string_view::npos) {
    schedule_.name = name;
  }

  Status Run() {
    RETURN_IF_ERROR(ReadRows());
    ReadAsOlderDialect();
    RETURN_IF_ERROR(InferStages());
    RETURN_IF_ERROR(InferMicrobatches());
    schedule_.num_directions = HasTwoDirections() ? 2 : 1;
    RETURN_IF_ERROR(CheckCommunication());
    for (Row& row : rows_) {
      std::erase_if(row.actions, [](const Action& a) { return IsCommunication(a.kind); });
      schedule_.ranks.push_back(std::move(row.actions));
    }
    return {};
  }
  Schedule TakeSchedule() { return std::move(schedule_); }
  const CsvNotes& notes() const { return notes_; }

 private:
  struct Position {
    int rank = 0;
    size_t index = 0;
  };
  Status ReadRows();
  Status ReadRow(std::string_view text, Row& row);
  Status ReadCell(std::string_view cell, int32_t& next_pair, Row& row);
  Status ReadPair(std::string_view cell, int32_t pair, Row& row);
  Result<Action> ReadAction(std::string_view text) const {
    return has_older_backward_ ? ParseOlderAction(text) : ParseAction(text);
  }
  void ReadAsOlderDialect();
  Status InferStages();
  Status InferMicrobatches();
  bool HasTwoDirections() const;
  Status CheckCommunication();

  Error At(Position at, std::string_view why) const {
    const Row& row = rows_[at.rank];
    return MakeError(ErrorCode::kInvalidSpec, "row {}, cell {} ({}): {}", at.rank + 1,
                     row.cells[at.index], ToString(row.actions[at.index]), why);
  }
  template <typename Visit>  // (Position, const Action&)
  void ForEachCompute(const Visit& visit) const {
    for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
      for (size_t i = 0; i < rows_[rank].actions.size(); ++i) {
        if (IsCompute(rows_[rank].actions[i].kind)) {
          visit(Position{rank, i}, rows_[rank].actions[i]);
        }
      }
    }
  }

  CsvCells text_;
  bool has_older_backward_;
  std::vector<Row> rows_;
  Schedule schedule_;
  CsvNotes notes_;
};

Status CsvReader::ReadRows() {
  while (const auto row = text_.NextRow()) {
    if (std::ssize(rows_) == kRanksMax) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "row {}, cell 1: a schedule has at most {} ranks; give one row a rank, or "
                       "take fewer ranks",
                       kRanksMax + 1, kRanksMax);
    }
    RETURN_IF_ERROR(ReadRow(*row, rows_.emplace_back()));
  }
  schedule_.num_ranks = static_cast<int>(rows_.size());
  return {};
}

Status CsvReader::ReadRow(std::string_view text, Row& row) {
  int32_t next_pair = 0;
  int empty_cell = 0;
  for (int cell_number = 1; !text.empty(); ++cell_number) {
    const auto refuse = [&](Error error) {
      return Context(fmt::format("row {}, cell {}", rows_.size(), cell_number), std::move(error));
    };
    auto cell = text_.TakeCell(text);
    if (!cell.ok()) return refuse(std::move(cell).error());
    if (cell->empty()) {
      empty_cell = empty_cell == 0 ? cell_number : empty_cell;
      continue;
    }
    // Empty cells at a row's end are a spreadsheet's, and no bubbles.
    row.first_empty_cell = empty_cell;
    if (Status status = ReadCell(*cell, next_pair, row); !status.ok()) {
      return refuse(std::move(status).error());
    }
    row.cells.resize(row.actions.size(), cell_number);
  }
  return {};
}

// Why the cell cannot be an action, whatever it says; nothing is quoted that a terminal cannot
// show.
Status CheckCharacters(std::string_view cell) {
  constexpr size_t kLongestCell = 100;
  if (cell.size() > kLongestCell) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{} bytes are no action; put commas between actions, as in 2F3,{}",
                     cell.size(), kPairForm);
  }
  const auto printable = [](char c) { return c >= ' ' && c <= '~'; };
  if (const auto odd = std::ranges::find_if_not(cell, printable); odd != cell.end()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "byte {:#04x} is part of no action; save the file as plain ASCII text with "
                     "cells like 2F3 or {}",
                     static_cast<unsigned char>(*odd), kPairForm);
  }
  return {};
}

// Appends the cell's action or pair.
Status CsvReader::ReadCell(std::string_view cell, int32_t& next_pair, Row& row) {
  RETURN_IF_ERROR(CheckCharacters(cell));
  if (cell.starts_with('(')) return ReadPair(cell, next_pair++, row);
  ASSIGN_OR_RETURN(const Action action, ReadAction(cell));
  row.actions.push_back(action);
  return {};
}

// "(a;b)OVERLAP_F_B". Which two actions make a pair is the validator's question.
Status CsvReader::ReadPair(std::string_view cell, int32_t pair, Row& row) {
  const size_t close = cell.find(')');
  if (close == std::string_view::npos || cell.substr(close + 1) != kPairSuffix) {
    return MakeError(ErrorCode::kInvalidSpec, "pair '{}' does not end in ){}; write it as {}", cell,
                     kPairSuffix, kPairForm);
  }
  std::string_view inside = cell.substr(1, close - 1);
  const std::string_view first = TrimmedCell(TakeUntil(inside, ';'));
  const std::string_view second = TrimmedCell(inside);
  const auto torn = [cell] {
    return MakeError(ErrorCode::kInvalidSpec,
                     "pair '{}' is not one Forward and one backward; write it as {}", cell,
                     kPairForm);
  };
  if (first.empty() || second.empty() || second.find(';') != std::string_view::npos) return torn();
  for (const std::string_view text : {first, second}) {
    ASSIGN_OR_RETURN(Action action, ReadAction(text));
    if (!IsCompute(action.kind)) return torn();
    action.pair = pair;
    row.actions.push_back(action);
  }
  return {};
}

// Without BW in the text the older dialect shows in W that follow no I.
void CsvReader::ReadAsOlderDialect() {
  notes_.older_dialect = has_older_backward_;
  if (has_older_backward_) {
    return;
  }
  bool any[kNumActionKinds] = {};
  ForEachCompute([&any](Position, const Action& a) { any[static_cast<size_t>(a.kind)] = true; });
  const auto has = [&any](ActionKind kind) { return any[static_cast<size_t>(kind)]; };
  notes_.older_dialect = has(ActionKind::kBackwardWeight) && has(ActionKind::kBackward) &&
                         !has(ActionKind::kBackwardInput);
  for (Row& row : rows_) {
    for (Action& action : row.actions) {
      if (notes_.older_dialect && action.kind == ActionKind::kBackward) {
        action.kind = ActionKind::kBackwardInput;
      }
    }
  }
}

// Fills num_stages and placement from the actions.
Status CsvReader::InferStages() {
  std::map<StageId, Position> owners;  // a stage's first action
  std::optional<Error> error;
  ForEachCompute([&](Position at, const Action& action) {
    const auto [owner, is_new] = owners.emplace(action.stage, at);
    if (owner->second.rank != at.rank && !error) {
      error = At(at, fmt::format("row {} runs stage {} too; keep each stage on one rank",
                                 owner->second.rank + 1, action.stage));
    }
  });
  if (error) {
    return std::move(*error);
  }
  if (owners.empty()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "row 1, cell 1: the schedule has no compute action; give one row a rank");
  }
  for (const auto& [stage, at] : owners) {
    if (stage.value != schedule_.num_stages) {
      return At(at, fmt::format("no row runs stage {}; number stages from 0 without gaps",
                                schedule_.num_stages));
    }
    schedule_.placement.emplace_back(at.rank);
    ++schedule_.num_stages;
  }
  return {};
}

Status CsvReader::InferMicrobatches() {
  Position last{};
  int last_microbatch = -1;
  int64_t num_compute = 0;
  schedule_.forward_only = true;
  ForEachCompute([&](Position at, const Action& action) {
    ++num_compute;
    schedule_.forward_only = schedule_.forward_only && action.kind == ActionKind::kForward;
    if (action.microbatch.value > last_microbatch) {
      last = at;
      last_microbatch = action.microbatch.value;
    }
  });
  schedule_.num_microbatches = last_microbatch + 1;
  // Every stage runs all microbatches, or half of them in two directions. Also keeps one absurd
  // number in a file from sizing tables.
  if (int64_t{schedule_.num_stages} * schedule_.num_microbatches > 2 * num_compute) {
    return At(last, fmt::format("{} stages and microbatches 0 to {} are more than {} compute "
                                "actions can serve; number microbatches from 0 without gaps",
                                schedule_.num_stages, last_microbatch, num_compute));
  }
  return {};
}

bool CsvReader::HasTwoDirections() const {
  const int half_stages = schedule_.num_stages / 2;
  const int half_microbatches = schedule_.num_microbatches / 2;
  if (schedule_.num_stages % 2 != 0 || schedule_.num_microbatches % 2 != 0) {
    return false;
  }
  bool halves_agree = true;
  std::vector<std::array<bool, 2>> runs_half(rows_.size(), {false, false});
  ForEachCompute([&](Position at, const Action& action) {
    const bool upper = action.stage.value >= half_stages;
    halves_agree = halves_agree && upper == (action.microbatch.value >= half_microbatches);
    runs_half[at.rank][upper ? 1 : 0] = true;
  });
  return halves_agree && std::ranges::all_of(runs_half, [](const std::array<bool, 2>& runs) {
           return runs[0] == runs[1];
         });
}

Status CsvReader::CheckCommunication() {
  std::vector<std::vector<Action>> lists;
  for (const Row& row : rows_) {
    lists.push_back(row.actions);
    notes_.with_communication =
        notes_.with_communication ||
        std::ranges::any_of(row.actions, [](const Action& a) { return IsCommunication(a.kind); });
  }
  if (!notes_.with_communication) {
    return {};
  }
  for (size_t rank = 0; rank < rows_.size(); ++rank) {
    if (rows_[rank].first_empty_cell != 0 && !rows_[rank].actions.empty()) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "row {}, cell {}: an empty cell, but the file has sends and receives; "
                       "bubbles stand only in files of compute actions alone",
                       rank + 1, rows_[rank].first_empty_cell);
    }
  }
  if (const auto misplaced = FindMisplacedCommunication(schedule_, lists)) {
    return At({misplaced->rank.value, misplaced->index}, misplaced->why);
  }
  return {};
}

}  // namespace

Result<Schedule> ParseCsv(std::string_view text, std::string_view name, CsvNotes* notes) {
  if (std::ssize(text) > kCsvBytesMax) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "row 1, cell 1: the file has {} bytes, more than {}; take fewer microbatches "
                     "or ranks",
                     text.size(), kCsvBytesMax);
  }
  CsvReader reader(text, name);
  RETURN_IF_ERROR(reader.Run());
  if (notes != nullptr) {
    *notes = reader.notes();
  }
  return reader.TakeSchedule();
}

}  // namespace troupe

// The cells of a CSV text as spreadsheets write it: with a byte order mark, with quotes, with
// commas, semicolons or tabs between cells, with a line that says which ("sep=;"), with lines that
// end in \n, \r\n or \r, with blank lines in front and empty rows at the end. Used by the reader of
// schedules. Pure; the text outlives it.
#pragma once

#include <optional>
#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

// `text` without spaces around it.
std::string_view TrimmedCell(std::string_view text);

class CsvCells {
 public:
  explicit CsvCells(std::string_view text);

  // The next row; nothing after the last one that has more than empty cells.
  std::optional<std::string_view> NextRow();
  // Takes a cell off the front of `row`, without spaces and quotes around it. kInvalidSpec for a
  // quote without its other half.
  Result<std::string_view> TakeCell(std::string_view& row) const;

 private:
  void SkipBlankLines();
  // Excel's first line.
  std::optional<char> TakeSeparatorLine();

  std::string_view rest_;
  char row_end_ = '\n';
  char separator_ = ',';
};

}  // namespace troupe

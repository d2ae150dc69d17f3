#include "actors/schedule/csv_cells.h"

#include <algorithm>

namespace troupe {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::string_view kEmptyCells = " \t\r,;\"";

// A comma, wherever the text has one outside of quotes; else a semicolon outside of pairs, which
// have one of their own; else a tab.
char SeparatorOf(std::string_view text) {
  bool quoted = false;
  bool in_pair = false;
  bool semicolon = false;
  bool tab = false;
  for (const char c : text) {
    if (c == '"') quoted = !quoted;
    if (c == '\n') quoted = in_pair = false;
    if (c == '(' || c == ')') in_pair = c == '(';
    if (quoted) continue;
    if (c == ',') return ',';
    semicolon = semicolon || (c == ';' && !in_pair);
    tab = tab || c == '\t';
  }
  return semicolon ? ';' : tab ? '\t' : ',';
}

}  // namespace

std::string_view TrimmedCell(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

CsvCells::CsvCells(std::string_view text) : rest_(text) {
  if (rest_.starts_with(kByteOrderMark)) rest_.remove_prefix(kByteOrderMark.size());
  if (rest_.find('\n') == std::string_view::npos) row_end_ = '\r';
  SkipBlankLines();
  if (const auto named = TakeSeparatorLine()) {
    separator_ = *named;
    SkipBlankLines();
  } else {
    separator_ = SeparatorOf(rest_);
  }
  while (!rest_.empty()) {
    const size_t end = rest_.rfind(row_end_);
    const size_t begin = end == std::string_view::npos ? 0 : end + 1;
    if (rest_.find_first_not_of(kEmptyCells, begin) != std::string_view::npos) break;
    rest_ = rest_.substr(0, begin == 0 ? 0 : end);
  }
}

void CsvCells::SkipBlankLines() {
  const size_t first = rest_.find_first_not_of(" \r\n");
  if (first == std::string_view::npos) {
    rest_ = {};
    return;
  }
  const size_t end = rest_.substr(0, first).find_last_of("\r\n");
  if (end != std::string_view::npos) rest_.remove_prefix(end + 1);
}

std::optional<char> CsvCells::TakeSeparatorLine() {
  constexpr std::string_view kKey = "sep=";
  const size_t end = std::min(rest_.find_first_of("\r\n"), rest_.size());
  std::string_view line = rest_.substr(0, end);
  if (line.starts_with('"') && line.ends_with('"') && line.size() > 1) {
    line = line.substr(1, line.size() - 2);
  }
  if (line.size() != kKey.size() + 1 || !line.starts_with(kKey)) return std::nullopt;
  const char separator = line.back();
  if (separator != ',' && separator != ';' && separator != '\t') return std::nullopt;
  rest_.remove_prefix(end);
  return separator;
}

std::optional<std::string_view> CsvCells::NextRow() {
  if (rest_.empty()) return std::nullopt;
  const size_t end = std::min(rest_.find(row_end_), rest_.size());
  const std::string_view row = rest_.substr(0, end);
  rest_.remove_prefix(std::min(end + 1, rest_.size()));
  return row;
}

Result<std::string_view> CsvCells::TakeCell(std::string_view& row) const {
  const size_t first = std::min(row.find_first_not_of(' '), row.size());
  size_t from = first;  // the separator stands behind
  const bool quoted = row.substr(first).starts_with('"');
  if (quoted) {
    from = row.find('"', first + 1);
    if (from == std::string_view::npos) {
      return MakeError(ErrorCode::kInvalidSpec, "a quote without its other half; close it");
    }
  } else if (separator_ == ';' && row.substr(first).starts_with('(')) {
    from = std::min(row.find(')', first), row.size());
  }
  const size_t end = std::min(row.find(separator_, from), row.size());
  std::string_view cell = row.substr(0, end);
  row.remove_prefix(std::min(end + 1, row.size()));
  if (!quoted) return TrimmedCell(cell);
  if (!TrimmedCell(cell.substr(from + 1)).empty()) {
    return MakeError(ErrorCode::kInvalidSpec, "text follows the cell's quote; put a comma between");
  }
  return TrimmedCell(cell.substr(first + 1, from - first - 1));
}

}  // namespace troupe

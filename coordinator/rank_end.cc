#include "coordinator/rank_end.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <string_view>

#include "runtime/base/signal_name.h"
#include "runtime/base/utf8.h"

namespace troupe {
namespace {

// "==== backtrace (tid: 7) ====", " 2  /lib/libc.so.6(+0x42520) [0x7f81]", "#3 0x7f81 in main ()".
bool IsOfBacktrace(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  const bool numbered = line.starts_with('#') && line.find(" 0x") != line.npos;
  return line.starts_with("====") || line.find("[0x") != line.npos ||
         line.find("(+0x") != line.npos || numbered;
}

bool HasLetters(std::string_view line) {
  return std::ranges::any_of(line, [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
  });
}

std::string AsUtf8(std::string_view line) {
  std::string text;
  for (size_t at = 0; at < line.size();) {
    const size_t length = Utf8CharacterBytes(line, at);
    text += length == 0 ? "?" : line.substr(at, length);
    at += std::max<size_t>(length, 1);
  }
  return text;
}

// Who sent a SIGKILL that the agent did not.
std::string KillerInWords(const proto::RankExited& exited) {
  if (!exited.has_oom_kills()) return "by somebody else, or by the kernel where memory was short";
  if (exited.oom_kills() <= 0) return "by somebody else: the kernel killed nobody for memory";
  return fmt::format(
      "by the kernel: memory was short here (its cgroup counts {} killed since this rank's start)",
      exited.oom_kills());
}

}  // namespace

std::string LastTellingLine(const proto::RankExited& exited) {
  for (int i = exited.last_lines_size() - 1; i >= 0; --i) {
    const std::string& line = exited.last_lines(i);
    if (HasLetters(line) && !IsOfBacktrace(line)) return AsUtf8(line);
  }
  return "";
}

RankEnd EndInWords(const proto::RankExited& exited) {
  if (!exited.cause().empty()) return {"was killed by its host agent", exited.cause()};
  if (exited.signal() == 0) {
    return {fmt::format("exited with {}", exited.exit_code()), LastTellingLine(exited)};
  }
  return {fmt::format("was killed by signal {} ({})", exited.signal(), SignalName(exited.signal())),
          exited.signal() == SIGKILL ? KillerInWords(exited) : LastTellingLine(exited)};
}

}  // namespace troupe

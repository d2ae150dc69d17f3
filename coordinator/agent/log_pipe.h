// LogPipe: what a rank prints, on its way out of the host agent. Read a piece a turn, and not at
// all while it is paused: then the printer waits, as at a terminal that nobody reads.
// Thread: the scheduler's.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "runtime/actor/scheduler.h"

namespace troupe {

class LogPipe {
 public:
  static constexpr size_t kTurnBytesMax = size_t{64} << 10;
  static constexpr size_t kRestBytesMax = size_t{1} << 20;
  static constexpr size_t kLastLinesMax = 32;
  static constexpr size_t kLineBytesMax = 4096;

  // Takes the descriptor over. `on_piece` gets bytes, cut anywhere.
  LogPipe(Scheduler& scheduler, int fd, std::function<void(std::string_view)> on_piece);
  ~LogPipe();
  LogPipe(const LogPipe&) = delete;
  LogPipe& operator=(const LogPipe&) = delete;

  void Pause(bool paused);
  // What still lies in the pipe of a rank that has exited, paused or not; at most kRestBytesMax,
  // for a child of it may print on.
  void ReadRest();
  // Newest last, without their ends; those longer than kLineBytesMax are cut.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  int ReadPiece();
  void NoteLines(std::string_view piece);

  Scheduler& scheduler_;
  const int fd_;
  // The scheduler's poller watches this in the pipe's place: what is not in it wakes nobody.
  const int watch_fd_;
  const std::function<void(std::string_view)> on_piece_;
  PollerId poller_{};
  bool paused_ = false;
  bool ended_ = false;  // nobody can print any more
  std::string unfinished_line_{};
  std::deque<std::string> last_lines_{};
};

}  // namespace troupe

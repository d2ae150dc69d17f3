// RankProcess: one rank's process as its host agent holds it. In the daemon it is a child
// (child_rank.h); the simulator has its own.
// Thread: the agent's scheduler's.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "coordinator/agent/child_process.h"
#include "runtime/base/result.h"

namespace troupe {

class RankProcess {
 public:
  // What it says, prints and becomes. None of these may destroy it.
  struct Handlers {
    // A whole message; after an error nothing more is heard of it.
    std::function<Status(std::string_view frame)> on_frame{};
    // Its end follows, or it was no message (kCorrupt): either way it has no voice any more.
    std::function<void(const Error&)> on_closed{};
    std::function<void(std::string_view piece)> on_print{};  // bytes, cut anywhere
    std::function<void(ExitReport)> on_exit{};               // once
  };

  RankProcess() = default;
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  virtual ~RankProcess() = default;  // kills one that still runs

  virtual void Send(std::string_view frame) = 0;
  virtual void Signal(int signal) = 0;
  virtual bool closed() const = 0;     // it has no voice any more
  virtual bool IsStopped() const = 0;  // by a signal
  // While it is paused, what it prints is not read: it waits, as at a terminal that nobody reads.
  virtual void PausePrints(bool paused) = 0;
  // After its exit: hands over what it had still said and printed. Nothing comes any more.
  virtual void HearLastWords() = 0;
  // That it printed, after HearLastWords.
  virtual const std::deque<std::string>& last_lines() const = 0;
};

// Starts one. `name` is for errors: "rank 1 of job 3".
using StartRankProcess = std::function<Result<std::unique_ptr<RankProcess>>(
    const std::string& name, RankProcess::Handlers handlers)>;

}  // namespace troupe

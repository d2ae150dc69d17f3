// ChildRank: a rank as a child of its host agent, with a control socket (FrameLink) and a pipe for
// what it prints.
// Thread: the scheduler's.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/agent/child_process.h"
#include "coordinator/agent/log_pipe.h"
#include "coordinator/agent/rank_process.h"
#include "runtime/actor/frame_link.h"

namespace troupe {

class ChildRank : public RankProcess {
 public:
  // `arguments` stand before those of the control socket.
  static Result<std::unique_ptr<RankProcess>> Start(Scheduler& scheduler,
                                                    const std::string& program,
                                                    std::vector<std::string> arguments,
                                                    const std::string& name, Handlers handlers);

  void Send(std::string_view frame) override { link_->Send(frame); }
  void Signal(int signal) override { process_->Signal(signal); }
  bool closed() const override { return link_->closed(); }
  bool IsStopped() const override { return troupe::IsStopped(process_->pid()); }
  void PausePrints(bool paused) override;
  // A child of its own may hold both, and speak on: it is not heard.
  void HearLastWords() override;
  const std::deque<std::string>& last_lines() const override { return last_lines_; }

 private:
  ChildRank() = default;

  std::unique_ptr<ChildProcess> process_{};
  std::unique_ptr<FrameLink> link_{};
  std::unique_ptr<LogPipe> log_{};  // null after the last words
  std::deque<std::string> last_lines_{};
};

// Of `program`, which is troupe-rank. The scheduler outlives the ranks.
StartRankProcess ChildRanks(Scheduler& scheduler, std::string program);

}  // namespace troupe

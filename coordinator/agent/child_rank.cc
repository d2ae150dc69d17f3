#include "coordinator/agent/child_rank.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace troupe {

Result<std::unique_ptr<RankProcess>> ChildRank::Start(Scheduler& scheduler,
                                                      const std::string& program,
                                                      std::vector<std::string> arguments,
                                                      const std::string& name, Handlers handlers) {
  arguments.insert(arguments.end(), {"--control-fd", "3"});
  int control[2];
  int log[2];
  const auto no_descriptors = [&name](int number) {
    return MakeError(ErrorCode::kResourceExhausted, "{} gets no descriptors: {}", name,
                     std::strerror(number));
  };
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0) {
    return no_descriptors(errno);
  }
  if (::pipe2(log, O_CLOEXEC) != 0) {
    const int number = errno;
    ::close(control[0]);
    ::close(control[1]);
    return no_descriptors(number);
  }
  auto process = ChildProcess::Start(scheduler,
                                     {.path = program,
                                      .arguments = std::move(arguments),
                                      .control_fd = control[1],
                                      .stdout_fd = log[1],
                                      .stderr_fd = log[1],
                                      .minds_parent_only = true},
                                     std::move(handlers.on_exit));
  ::close(control[1]);
  ::close(log[1]);
  if (!process.ok()) {
    ::close(control[0]);
    ::close(log[0]);
    return std::move(process).error();
  }
  auto rank = std::unique_ptr<ChildRank>(new ChildRank());
  rank->process_ = *std::move(process);
  rank->log_ = std::make_unique<LogPipe>(scheduler, log[0], std::move(handlers.on_print));
  rank->link_ =
      std::make_unique<FrameLink>(scheduler, control[0],
                                  FrameLink::Handlers{.on_frame = std::move(handlers.on_frame),
                                                      .on_closed = std::move(handlers.on_closed)});
  return std::unique_ptr<RankProcess>(std::move(rank));
}

void ChildRank::PausePrints(bool paused) {
  if (log_) log_->Pause(paused);
}

void ChildRank::HearLastWords() {
  if (!link_->closed()) link_->Progress();
  link_->Close();
  if (!log_) return;
  log_->ReadRest();
  last_lines_ = log_->last_lines();
  log_.reset();
}

StartRankProcess ChildRanks(Scheduler& scheduler, std::string program) {
  return [&scheduler, program = std::move(program)](const std::string& name,
                                                    RankProcess::Handlers handlers) {
    return ChildRank::Start(scheduler, program, {}, name, std::move(handlers));
  };
}

}  // namespace troupe

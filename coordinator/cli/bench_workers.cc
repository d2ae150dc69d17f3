#include "coordinator/cli/bench_workers.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "coordinator/agent/child_rank.h"
#include "coordinator/rank_end.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kCauseMs = 2000;  // from a worker that lost a peer to the news of that peer's end

}  // namespace

Result<std::unique_ptr<BenchWorkers>> BenchWorkers::Start(Scheduler& scheduler,
                                                          const std::string& program,
                                                          int num_workers, Handlers handlers) {
  auto workers = std::unique_ptr<BenchWorkers>(new BenchWorkers(scheduler, std::move(handlers)));
  workers->answers_.resize(static_cast<size_t>(num_workers));
  workers->gave_up_.resize(static_cast<size_t>(num_workers));
  for (int rank = 0; rank < num_workers; ++rank) {
    RETURN_IF_ERROR(workers->StartOne(program, rank));
  }
  return workers;
}

BenchWorkers::~BenchWorkers() { scheduler_.Cancel(cause_unknown_); }

Status BenchWorkers::StartOne(const std::string& program, int rank) {
  const auto at = static_cast<size_t>(rank);
  RankProcess::Handlers handlers;
  handlers.on_frame = [this, at](std::string_view frame) { return Take(at, frame); };
  handlers.on_closed = [](const Error&) {};  // its end follows
  handlers.on_print = [](std::string_view piece) { Talk("{}", piece); };
  handlers.on_exit = [this, at](ExitReport report) { Exited(at, report); };
  ASSIGN_OR_RETURN(
      auto process,
      ChildRank::Start(scheduler_, program, {"--collectives-bench", std::to_string(rank)},
                       fmt::format("worker {}", rank), std::move(handlers)));
  processes_.push_back(std::move(process));
  return {};
}

void BenchWorkers::Ask(const proto::ToBenchWorker& question) {
  num_answers_ = 0;
  const std::string frame = question.SerializeAsString();
  for (const auto& process : processes_) process->Send(frame);
}

Status BenchWorkers::Take(size_t rank, std::string_view frame) {
  proto::FromBenchWorker& answer = answers_[rank];
  if (!answer.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
    Fail(MakeError(ErrorCode::kCorrupt, "worker {} says {} bytes that do not parse", rank,
                   frame.size()));
    return {};
  }
  if (!answer.has_failure()) {
    if (++num_answers_ == std::ssize(processes_) && !failed_) handlers_.on_answers(answers_);
    return {};
  }
  gave_up_[rank] = true;
  const Error error{static_cast<ErrorCode>(answer.failure().code()), answer.failure().message()};
  if (error.code != ErrorCode::kPeerDown) {
    Fail(error);
  } else if (std::ranges::count(gave_up_, true) == 1) {
    cause_unknown_ = scheduler_.After(kCauseMs, [this, error] { Fail(error); });  // W2
  }
  return {};
}

void BenchWorkers::Exited(size_t rank, ExitReport report) {
  processes_[rank]->HearLastWords();
  if (gave_up_[rank]) return;
  proto::RankExited exited;
  exited.set_exit_code(report.exit_code);
  exited.set_signal(report.signal);
  for (const std::string& line : processes_[rank]->last_lines()) exited.add_last_lines(line);
  const RankEnd end = EndInWords(exited);
  Fail(MakeError(ErrorCode::kPeerDown, "worker {} {}{}{}", rank, end.how,
                 end.why.empty() ? "" : ": ", end.why));
}

void BenchWorkers::Fail(const Error& error) {
  if (!std::exchange(failed_, true)) handlers_.on_failed(error);
}

}  // namespace troupe

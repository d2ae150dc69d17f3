#include "coordinator/cli/bench_command.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "actors/plan/measured_group.h"
#include "coordinator/cli/answer.h"
#include "coordinator/cli/bench_workers.h"
#include "coordinator/cli/daemons.h"
#include "coordinator/cli/stop_signals.h"
#include "runtime/base/file_system.h"
#include "runtime/base/host_memory.h"
#include "runtime/base/signal_name.h"

namespace troupe {
namespace {

class CollectivesBench {
 public:
  CollectivesBench(const CollectivesRequest& request, std::vector<CollectiveRow> rows, bool text)
      : request_(request), rows_(std::move(rows)), text_(text) {
    for (CollectiveRow& row : rows_) {
      if (row.out_of_place) asks_.push_back({&row, &*row.out_of_place, false});
      if (row.in_place) asks_.push_back({&row, &*row.in_place, true});
    }
  }

  int Run() {
    StopSignals signals(/*pauses=*/false);
    const PollerId poller = scheduler_.AddPoller(
        [&] {
          const int signal = signals.Take();
          if (signal == 0) return 0;
          End(MakeError(ErrorCode::kCancelled, "stopped by {}", SignalName(signal)));
          return 1;
        },
        signals.fd(), [] { return true; });
    auto workers = BenchWorkers::Start(scheduler_, RankProgram(), request_.workers,
                                       {.on_answers = [this](const auto& all) { Heard(all); },
                                        .on_failed = [this](const Error& error) { End(error); }});
    if (workers.ok()) {
      workers_ = std::move(*workers);
      scheduler_.Run();
      workers_.reset();
    }
    scheduler_.RemovePoller(poller);
    if (!workers.ok()) return Fail(workers.error());
    if (error_) return Fail(*error_);
    const int printed = text_ ? PrintAnswer(CollectivesFooter(request_, rows_))
                              : PrintAnswer(CollectivesJson(request_, rows_));
    if (NumWrong(rows_) == 0) return printed;
    return Fail(
        MakeError(ErrorCode::kFailed, "{} elements of results were wrong", NumWrong(rows_)));
  }

 private:
  struct Ask {
    const CollectiveRow* row;
    CollectiveTimes* times;
    bool in_place;
  };

  void Heard(const std::vector<proto::FromBenchWorker>& answers) {
    if (answers[0].has_address()) {
      proto::ToBenchWorker question;
      for (const auto& answer : answers) question.mutable_join()->add_addresses(answer.address());
      question.mutable_join()->set_bind(request_.bind == "cpu");
      question.mutable_join()->set_ring(request_.reduction == "ring");
      return workers_->Ask(question);
    }
    if (answers[0].has_measured()) {
      if (!Measured(answers)) return scheduler_.Stop();
    } else if (text_ && PrintAnswer(CollectivesHeader(request_)) != 0) {
      return scheduler_.Stop();
    }
    AskNext();
  }

  // False where nobody takes what is printed.
  bool Measured(const std::vector<proto::FromBenchWorker>& answers) {
    const Ask& ask = asks_[num_measured_++];
    for (const auto& answer : answers) {
      ask.times->time_us += answer.measured().mean_us() / request_.workers;
      ask.times->num_wrong += answer.measured().num_wrong();
    }
    const bool row_ends = num_measured_ == asks_.size() || asks_[num_measured_].row != ask.row;
    return !text_ || !row_ends || PrintAnswer(CollectivesLine(request_, *ask.row)) == 0;
  }

  void AskNext() {
    if (num_measured_ == asks_.size()) return scheduler_.Stop();
    const Ask& ask = asks_[num_measured_];
    proto::ToBenchWorker question;
    auto& measure = *question.mutable_measure();
    measure.set_operation(request_.operation);
    measure.set_dtype(request_.dtype);
    measure.set_count(ask.row->count);
    measure.set_in_place(ask.in_place);
    measure.set_private_buffers(request_.buffers == "private");
    measure.set_warmup(request_.warmup);
    measure.set_iterations(request_.iterations);
    workers_->Ask(question);
  }

  void End(Error error) {
    if (!error_) error_ = std::move(error);
    scheduler_.Stop();
  }

  const CollectivesRequest& request_;
  std::vector<CollectiveRow> rows_;
  const bool text_;
  std::vector<Ask> asks_{};
  size_t num_measured_ = 0;
  Scheduler scheduler_{{.trace_handlers = false}};
  std::unique_ptr<BenchWorkers> workers_{};
  std::optional<Error> error_{};
};

}  // namespace

void AddCollectivesFlags(CLI::App* verb, CollectivesRequest& request) {
  constexpr int kMost = 1'000'000;
  const auto number = [&](const char* flag, int& target, const char* text, int least, int most) {
    verb->add_option(flag, target, text)->check(CLI::Range(least, most))->capture_default_str();
  };
  const auto bytes = [&](const char* flag, uint64_t& target, const char* text) {
    verb->add_option(flag, target, text)
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
        ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 40))
        ->capture_default_str();
  };
  const auto word = [&](const char* flag, std::string& target, const char* text,
                        const std::vector<std::string>& words) {
    verb->add_option(flag, target, text)->check(CLI::IsMember(words))->capture_default_str();
  };
  number("--workers", request.workers, "processes, each a member of one group", 2,
         kMeasuredMembersMax);
  word("--operation", request.operation, "what they do", CollectiveOperations());
  word("--dtype", request.dtype, "of the elements", CollectiveDTypes());
  bytes("--min-bytes", request.min_bytes, "the first size, as 4096 or 4K");
  bytes("--max-bytes", request.max_bytes, "the last size, as 64M");
  number("--factor", request.factor, "from one size to the next", 2, kMost);
  number("--warmup", request.warmup, "operations before those that are timed", 0, kMost);
  number("--iterations", request.iterations, "operations that are timed", 1, kMost);
  word("--reduction", request.reduction,
       "ordered: sums in the workers' order; ring: all-reduce and reduce-scatter from one to the "
       "next, as NCCL's ring",
       {"ordered", "ring"});
  word("--bind", request.bind, "cpu: each worker to one, in turn; none: where the kernel likes",
       {"cpu", "none"});
  word("--buffers", request.buffers,
       "shared: workers read each other's in place; private: by messages, as between hosts",
       {"shared", "private"});
}

int BenchCollectives(const CollectivesRequest& request, OutputFormat output) {
  auto rows = RowsOf(request);
  if (!rows.ok()) return Fail(rows.error());
  if (const auto memory = ReadHostMemory(SystemFiles())) {
    const Status room = CheckRoom(request, memory->available_bytes);
    if (!room.ok()) return Fail(room.error());
  }
  SilenceTransportOfRanks();
  return CollectivesBench(request, *std::move(rows), output == OutputFormat::kText).Run();
}

}  // namespace troupe

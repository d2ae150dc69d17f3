// BenchWorkers: the workers of `troupe bench collectives`, processes of this host
// (actors/collectives_bench_rank.h) that are all asked the same and all answer. They end with it.
// Thread: the scheduler's, which must be the thread that calls Start.
//   W1. on_answers comes once for what they say at their start, and once for each Ask.
//   W2. on_failed comes at most once, with what was first: of workers that lost a peer, the end of
//       that peer. Nothing comes after it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/agent/rank_process.h"
#include "proto/collectives_bench.pb.h"
#include "runtime/actor/scheduler.h"

namespace troupe {

class BenchWorkers {
 public:
  struct Handlers {
    std::function<void(const std::vector<proto::FromBenchWorker>&)> on_answers{};  // by rank
    std::function<void(const Error&)> on_failed{};  // neither may destroy the workers
  };
  // `program`: troupe-rank. The scheduler outlives them.
  static Result<std::unique_ptr<BenchWorkers>> Start(Scheduler& scheduler,
                                                     const std::string& program, int num_workers,
                                                     Handlers handlers);
  ~BenchWorkers();  // kills them
  BenchWorkers(const BenchWorkers&) = delete;
  BenchWorkers& operator=(const BenchWorkers&) = delete;

  // When all have answered what was asked before.
  void Ask(const proto::ToBenchWorker& question);

 private:
  BenchWorkers(Scheduler& scheduler, Handlers handlers)
      : scheduler_(scheduler), handlers_(std::move(handlers)) {}
  Status StartOne(const std::string& program, int rank);
  Status Take(size_t rank, std::string_view frame);
  void Exited(size_t rank, ExitReport report);
  void Fail(const Error& error);

  Scheduler& scheduler_;
  const Handlers handlers_;
  std::vector<std::unique_ptr<RankProcess>> processes_{};  // by rank
  std::vector<proto::FromBenchWorker> answers_{};          // by rank
  int num_answers_ = 0;
  std::vector<bool> gave_up_{};  // by rank: it said why
  bool failed_ = false;
  TimerId cause_unknown_{};
};

}  // namespace troupe

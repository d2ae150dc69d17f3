// What asynchronous checkpoints cost: the same run with one every 20 steps and with none, in turn.
// Whole periods are measured, from one commit to the commit 20 steps on, so whatever a checkpoint
// delays is in it, wherever it does.
#include <algorithm>
#include <string>

#include "tests/benchmark/bench.h"
#include "tests/benchmark/measured_job.h"

namespace troupe {
namespace {

constexpr int kEvery = 20;
constexpr int kPeriods = 1;

// The mean over the periods behind the first.
double StepMs(const MeasuredSteps& steps) {
  const double from = steps.end_ms[kEvery - 1];
  const double to = steps.end_ms[kEvery * (1 + kPeriods) - 1];
  return (to - from) / (kEvery * kPeriods);
}

void CompareOverhead(bench::Bench& bench, const std::string& name, const std::string& sets) {
  // Of 12.6 million parameters, which are 151 MB with their moments.
  TrainingCase small = SmallCase();
  small.model.batch.global_batch_size = 2;
  small.model.batch.micro_batch_size = 1;
  small.model.batch.seq_len = 128;
  MeasuredJob job(small.model);
  bench::Row row{.what = {.name = "checkpoints/" + name,
                          .unit = "ms/step, one every 20 steps",
                          .peer_name = "the same without",
                          .goal = 0.97,
                          .num_rounds = 5}};
  const auto sample = [&](int every) {
    const auto steps =
        job.Run(kEvery * (1 + kPeriods), fmt::format("{} checkpoint.every={}", sets, every));
    if (!steps.failure.empty()) row.skipped = steps.failure;
    return steps.failure.empty() ? StepMs(steps) : 0;
  };
  for (int round = 0; round < row.what.num_rounds && row.skipped.empty(); ++round) {
    row.ours.push_back(sample(kEvery));
    row.peer.push_back(sample(0));
  }
  if (!row.skipped.empty()) return bench.Skip(row.what, row.skipped);
  bench.Report(row);
}

TROUPE_BENCHMARK(CheckpointsOfOneWorker) { CompareOverhead(bench, "one_worker", ""); }
TROUPE_BENCHMARK(CheckpointsOfShards) {
  CompareOverhead(bench, "zero1_2", "parallelism.dp=2 parallelism.zero_stage=1");
}

}  // namespace
}  // namespace troupe

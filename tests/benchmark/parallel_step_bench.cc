// The time of one training step of two workers with one math thread each, by real runs of the
// program: plain data parallel against PyTorch's DistributedDataParallel, ZeRO-3 against its
// fully_shard, both over Gloo, the same Llama, weights, data, optimizer and dtype; and both against
// one worker of ours with half the batch. Wall time: half of it is how well the two wait for each
// other. The loss after a sample of steps must be the peer's, or nothing is compared.
// TROUPE_BENCH_PYTHON names a python3 that has torch; `./run bench` makes one.
#include <string>

#include "tests/benchmark/bench.h"
#include "tests/benchmark/measured_job.h"
#include "tests/benchmark/torch_peer.h"

namespace troupe {
namespace {

constexpr double kMostMs = 15e3;  // of a comparison; the round under way ends

struct Layout {
  std::string name{};
  std::string sets{};      // of ours
  std::string sharding{};  // of torch_parallel_step.py
  std::string peer_name{};
  double least_speedup = 0;  // over one worker with half the batch
};
const Layout kDataParallel{.name = "dp2",
                           .sets = "parallelism.dp=2",
                           .sharding = "ddp",
                           .peer_name = "DDP",
                           .least_speedup = 1.85};
// Reduced once a step, as the peer does.
const Layout kZero3{
    .name = "zero3",
    .sets = "parallelism.dp=2 parallelism.zero_stage=3 parallelism.grad_reduce=step",
    .sharding = "fsdp",
    .peer_name = "FSDP",
    .least_speedup = 1.7};

std::string DTypeWord(DType dtype) { return dtype == DType::kFloat32 ? "f32" : "bf16"; }

// So many steps of each sample.
int StepsOf(const TrainingCase& which) { return which.name == "tiny" ? 15 : 5; }

void CompareWithPeer(bench::Bench& bench, const TrainingCase& which, const Layout& layout) {
  const testing::SmallModel& model = which.model;
  MeasuredJob job(model);
  TorchPeer peer(job, model, "torch_parallel_step.py", layout.sharding);
  bench::Row row{.what = {.name = fmt::format("{}_step_time/{}/{}", layout.name, which.name,
                                              DTypeWord(model.dtype)),
                          .unit = "ms/step",
                          .peer_name = "PyTorch " + peer.version() + " " + layout.peer_name,
                          .goal = model.dtype == DType::kFloat32 ? 1.75 : 1.5,
                          .num_rounds = 5}};
  const double start_ns = bench::WallNs();
  for (int round = 0; round < row.what.num_rounds; ++round) {
    if (round > 0 && bench::WallNs() - start_ns > kMostMs * 1e6) break;
    const MeasuredSteps ours = job.Run(MeasuredJob::kFirstSteps + StepsOf(which), layout.sets);
    if (!ours.failure.empty()) return bench.Skip(row.what, ours.failure);
    row.ours.push_back(MeasuredJob::StepMs(ours));
    const double theirs = peer.Sample(StepsOf(which));
    peer.CompareLoss(ours.losses);
    if (theirs > 0) row.peer.push_back(theirs);
  }
  row.skipped = peer.failure();
  if (!row.skipped.empty()) row.peer.clear();
  bench.Report(row);
}

// Tokens a second of two workers, and of one with half of their step.
void CompareWithOneWorker(bench::Bench& bench, const TrainingCase& which, const Layout& layout) {
  testing::SmallModel half = which.model;
  half.batch.global_batch_size /= 2;
  MeasuredJob two(which.model);
  MeasuredJob one(half);
  bench::Row row{.what = {.name = fmt::format("{}_rate/{}/{}", layout.name, which.name,
                                              DTypeWord(which.model.dtype)),
                          .unit = "tokens/s",
                          .peer_name = "one worker, half the batch",
                          .goal = layout.least_speedup,
                          .higher_is_better = true,
                          .num_rounds = 5}};
  const auto rate = [&](MeasuredJob& job, const std::string& sets) {
    const MeasuredSteps steps = job.Run(MeasuredJob::kFirstSteps + StepsOf(which), sets);
    if (!steps.failure.empty()) row.skipped = steps.failure;
    return 1000 * static_cast<double>(job.tokens_per_step()) / MeasuredJob::StepMs(steps);
  };
  const double start_ns = bench::WallNs();
  for (int round = 0; round < row.what.num_rounds && row.skipped.empty(); ++round) {
    if (round > 0 && bench::WallNs() - start_ns > kMostMs * 1e6) break;
    row.ours.push_back(rate(two, layout.sets));
    row.peer.push_back(rate(one, ""));
  }
  if (!row.skipped.empty()) return bench.Skip(row.what, row.skipped);
  bench.Report(row);
}

using Compare = void (*)(bench::Bench&, const TrainingCase&, const Layout&);
void CompareModels(bench::Bench& bench, Compare compare, DType dtype, const Layout& layout) {
  for (TrainingCase which : {TinyCase(), SmallCase()}) {
    which.model.dtype = dtype;
    compare(bench, which, layout);
  }
}

TROUPE_BENCHMARK(DataParallelFloat32) {
  CompareModels(bench, CompareWithPeer, DType::kFloat32, kDataParallel);
}
TROUPE_BENCHMARK(Zero3Float32) { CompareModels(bench, CompareWithPeer, DType::kFloat32, kZero3); }
TROUPE_BENCHMARK(DataParallelBFloat16) {
  CompareModels(bench, CompareWithPeer, DType::kBFloat16, kDataParallel);
}
TROUPE_BENCHMARK(Zero3BFloat16) { CompareModels(bench, CompareWithPeer, DType::kBFloat16, kZero3); }
TROUPE_BENCHMARK(DataParallelRate) {
  CompareModels(bench, CompareWithOneWorker, DType::kFloat32, kDataParallel);
}
TROUPE_BENCHMARK(Zero3Rate) { CompareModels(bench, CompareWithOneWorker, DType::kFloat32, kZero3); }

}  // namespace
}  // namespace troupe

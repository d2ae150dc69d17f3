// The time of one training step of a sequence of 8,192 tokens that two workers share by ring
// attention, one math thread each, by real runs of the program: against one worker with the same
// sequence; against PyTorch's ring attention over Gloo, the same Llama, weights, data, optimizer
// and dtype; and against the same two ranks with every hop in place as soon as it is asked for.
// Beside them, how much of the hops was hidden behind blocks. The loss must be the peer's, or
// nothing is compared. TROUPE_BENCH_PYTHON names a python3 that has torch; `./run bench` makes one.
#include <omp.h>

#include <algorithm>
#include <barrier>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "actors/model/lone_stream.h"
#include "actors/model/still_peers.h"
#include "runtime/base/file_system.h"
#include "tests/benchmark/bench.h"
#include "tests/benchmark/measured_job.h"
#include "tests/benchmark/torch_peer.h"

namespace troupe {
namespace {

constexpr int kRanks = 2;
constexpr int kSteps = 2;         // of a run: the first touches memory and is traced
constexpr int kRounds = 5;        // at most,
constexpr double kMostMs = 60e3;  // while these have not passed

// As many heads of keys as of queries: the peer's ring takes no others.
testing::SmallModel LongModel(DType dtype) {
  testing::SmallModel model;
  model.config = {.hidden_size = 512,
                  .intermediate_size = 1408,
                  .num_hidden_layers = 4,
                  .num_attention_heads = 8,
                  .num_key_value_heads = 8,
                  .head_dim = 64,
                  .vocab_size = 512};
  model.batch = {.micro_batch_size = 1,
                 .global_batch_size = 1,
                 .seq_len = 8192,
                 .num_microbatches = 1,
                 .gradient_groups = 1};
  model.dtype = dtype;
  return model;
}

testing::SmallModel SharedModel(DType dtype) {
  testing::SmallModel model = LongModel(dtype);
  model.batch.context = {.num_ranks = kRanks};
  return model;
}

// One rank of a step, alone.
class StillRank {
 public:
  StillRank(const testing::SmallModel& model, int index)
      : chain_(model),
        ring_(kRanks, index, SystemClock()),
        data_(testing::RandomMicrobatch(model, 0, index)) {
    stage().Join({.ring = &ring_});
  }

  void Step() {
    omp_set_num_threads(1);  // of this thread
    stream_.Run(stage().Forward(0, {}, data_));
    stream_.Run(stage().Backward(0, {}));
    stage().NormNodes();
    AdamWOptions adamw = kTraineeAdamW;
    adamw.step = ++step_;
    adamw.grad_factor = 1e-6;  // the numbers are not those of a model
    stage().ApplyUpdate(adamw, true);
  }

 private:
  StageModel& stage() { return chain_.stage(0); }

  testing::StageChain chain_;
  StillRing ring_;
  const Microbatch data_;
  int64_t step_ = 0;
  LoneStream stream_{};
};

// All ranks at once, each on a thread of its own.
class StillRanks {
 public:
  explicit StillRanks(const testing::SmallModel& model) {
    for (int index = 0; index < kRanks; ++index) {
      threads_.emplace_back([this, &model, index] { Loop(model, index); });
    }
    StepMs();  // touches memory
  }
  ~StillRanks() {
    ends_ = true;
    meets_.arrive_and_wait();
  }

  double StepMs() {
    const double start_ns = bench::WallNs();
    meets_.arrive_and_wait();
    meets_.arrive_and_wait();
    return (bench::WallNs() - start_ns) / 1e6;
  }

 private:
  // From one meeting to the next there is a step, then none.
  void Loop(const testing::SmallModel& model, int index) {
    StillRank rank(model, index);
    while (true) {
      meets_.arrive_and_wait();
      if (ends_) return;
      rank.Step();
      meets_.arrive_and_wait();
    }
  }

  std::barrier<> meets_{kRanks + 1};
  bool ends_ = false;
  std::vector<std::jthread> threads_{};
};

// Of the steps behind the first.
double StepMs(const MeasuredSteps& steps) {
  return bench::Median({steps.step_ms.begin() + 1, steps.step_ms.end()});
}

// In the last run, of the rank that hid least: in percent.
double HiddenPercent(const MeasuredJob& job) {
  const auto text = SystemFiles().ReadFile(job.folder() / "run/result.json", 1 << 22);
  const auto result = nlohmann::json::parse(text.ok() ? *text : "", nullptr, false);
  if (!result.is_object() || !result.contains("attention")) return 0;
  double least = 100;
  for (const auto& rank : result["attention"]["hops"]) {
    least = std::min(least, 100 * (rank["hidden"].is_number() ? rank["hidden"].get<double>() : 0));
  }
  return least;
}

void Compare(bench::Bench& bench, DType dtype) {
  const testing::SmallModel model = LongModel(dtype);
  const std::string word = dtype == DType::kFloat32 ? "f32" : "bf16";
  MeasuredJob job(model);
  TorchPeer torch(job, model, "torch_context_parallel.py");
  StillRanks still(SharedModel(dtype));
  const auto row = [&](const std::string& name, const std::string& peer, double goal) {
    return bench::Row{.what = {.name = fmt::format("context_{}/8192/{}", name, word),
                               .unit = "ms/step",
                               .peer_name = peer,
                               .goal = goal,
                               .num_rounds = kRounds}};
  };
  bench::Row one = row("step", "one worker", 1.8);
  bench::Row theirs =
      row("step_torch", "PyTorch " + torch.version() + " ring attention, Gloo", 1.5);
  bench::Row in_place = row("step_in_place", "all hops in place", 1 / 1.05);
  bench::Row hidden = row("hops_hidden", "all of each hop", 0.9);
  hidden.what.unit = "%";
  hidden.what.higher_is_better = true;
  const double start_ns = bench::WallNs();
  for (int round = 0; round < kRounds; ++round) {
    if (round > 0 && bench::WallNs() - start_ns > kMostMs * 1e6) break;
    const MeasuredSteps alone = job.Run(kSteps, "");
    const MeasuredSteps shared = job.Run(kSteps, "parallelism.cp=2");
    for (const MeasuredSteps* steps : {&alone, &shared}) {
      if (!steps->failure.empty()) return bench.Skip(one.what, steps->failure);
    }
    for (bench::Row* each : {&one, &theirs, &in_place}) each->ours.push_back(StepMs(shared));
    one.peer.push_back(StepMs(alone));
    const double torch_ms = torch.Sample(kSteps - 1);
    torch.CompareLoss(shared.losses);
    if (torch_ms > 0) theirs.peer.push_back(torch_ms);
    in_place.peer.push_back(still.StepMs());
    hidden.ours.push_back(HiddenPercent(job));
    hidden.peer.push_back(100);
  }
  theirs.skipped = torch.failure();
  if (!theirs.skipped.empty()) theirs.peer.clear();
  for (const bench::Row* each : {&one, &theirs, &in_place, &hidden}) bench.Report(*each);
}

TROUPE_BENCHMARK(ContextParallelFloat32) { Compare(bench, DType::kFloat32); }
TROUPE_BENCHMARK(ContextParallelBFloat16) { Compare(bench, DType::kBFloat16); }

}  // namespace
}  // namespace troupe

// The time of one training step on one worker with one math thread, against PyTorch: the same
// Llama, weights, data, optimizer and dtype, on the same core. The peer (torch_step.py) is the
// better of eager and torch.compile; its losses must be ours, or nothing is compared.
// TROUPE_BENCH_PYTHON names a python3 that has torch; `./run bench` makes one.
#include <sched.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/benchmark/bench.h"
#include "tests/benchmark/torch_process.h"
#include "tests/benchmark/trainee.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using nlohmann::json;

// Eager or compiled PyTorch and its samples.
struct Peer {
  std::string mode{};
  std::unique_ptr<TorchProcess> process{};
  std::string failure{};  // why it takes no part
  std::string version{};
  std::vector<double> samples{};

  void Start(const std::string& python, json request, double loss, double tolerance) {
    const std::string cache = std::filesystem::path(python).parent_path() / "../inductor";
    process = std::make_unique<TorchProcess>(python, "torch_step.py", cache);
    request["compile"] = mode == "compile";
    const json ready = process->Ask(request.dump());
    if (!Fails(ready, loss, tolerance)) version = ready["torch"];
  }
  void Sample(int num_steps, double loss, double tolerance) {
    if (!failure.empty()) return;
    double seconds = 0;
    json answer;
    for (int i = 0; i < num_steps; ++i) {
      answer = process->Ask("step");
      seconds += answer.value("seconds", 0.0);
    }
    if (!Fails(answer, loss, tolerance)) samples.push_back(1e3 * seconds / num_steps);
  }
  // "compile 143", "no compile: why"
  std::string Summary() const {
    if (!failure.empty()) return fmt::format("no {}: {}", mode, failure);
    return fmt::format("{} {:.0f}", mode, bench::Median(samples));
  }

 private:
  bool Fails(const json& answer, double loss, double tolerance) {
    if (answer.contains("failed")) {
      failure = answer["failed"];
    } else if (const double its = answer.value("loss", NAN);
               !(std::abs(its - loss) <= tolerance * loss)) {
      failure = fmt::format("its loss is {}, ours {}", its, loss);
    }
    if (!failure.empty()) process.reset();
    return !failure.empty();
  }
};

void PinTo(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(static_cast<size_t>(core), &cores);
  sched_setaffinity(0, sizeof(cores), &cores);
}

void CompareSteps(bench::Bench& bench, const TrainingCase& which, const std::string& python,
                  const std::string& why_no_python) {
  const testing::SmallModel& model = which.model;
  const bool is_float32 = model.dtype == DType::kFloat32;
  // The same data every step, so that losses fall fast and any difference in a step shows.
  const double tolerance = is_float32 ? 1e-3 : 2e-2;
  bench::Row row{
      .what = {.name = fmt::format("step_time/{}/{}", which.name, is_float32 ? "f32" : "bf16"),
               .unit = "CPU ms/step",
               .peer_name = "PyTorch",
               .goal = is_float32 ? 1.25 : 1.5}};
  row.skipped = why_no_python;
  Trainee trainee(model);
  const testing::TemporaryFolder folder;
  cpu_set_t before;
  sched_getaffinity(0, sizeof(before), &before);
  const int core = sched_getcpu();
  json request = TorchRequest(model, folder.Write("weights", trainee.WeightBytes()),
                              folder.Write("tokens", trainee.TokenBytes()));
  request["core"] = core;
  std::vector<Peer> peers(2);
  peers[0].mode = "eager";
  peers[1].mode = "compile";
  double loss = trainee.Step();
  for (Peer& peer : peers) {
    peer.failure = why_no_python;
    if (peer.failure.empty()) peer.Start(python, request, loss, tolerance);
  }
  PinTo(core);
  // The first step of each warmed up. Without bfloat16 products PyTorch takes most of a minute a
  // step: a round or two of that are enough.
  double spent_ms = 0;
  for (int round = 0; round < row.what.num_rounds && spent_ms < 80e3; ++round) {
    const double start_ns = bench::ProcessCpuNs();
    for (int i = 0; i < which.steps_per_sample; ++i) loss = trainee.Step();
    row.ours.push_back((bench::ProcessCpuNs() - start_ns) / 1e6 / which.steps_per_sample);
    spent_ms += row.ours.back() * which.steps_per_sample;
    for (Peer& peer : peers) {
      peer.Sample(which.steps_per_sample, loss, tolerance);
      if (!peer.samples.empty()) spent_ms += peer.samples.back() * which.steps_per_sample;
    }
  }
  sched_setaffinity(0, sizeof(before), &before);
  for (const Peer& peer : peers) {
    if (peer.samples.empty()) continue;
    if (row.peer.empty() || bench::Median(peer.samples) < bench::Median(row.peer)) {
      row.peer = peer.samples;
    }
    row.what.peer_name =
        fmt::format("PyTorch {}: {}, {}", peer.version, peers[0].Summary(), peers[1].Summary());
  }
  if (row.peer.empty() && row.skipped.empty()) row.skipped = peers[0].failure;
  bench.Report(row);
}

TROUPE_BENCHMARK(StepTime) {
  const TorchPython python = FindTorch();
  for (TrainingCase which : {TinyCase(), SmallCase()}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      which.model.dtype = dtype;
      CompareSteps(bench, which, python.path, python.why_none);
    }
  }
}

}  // namespace
}  // namespace troupe

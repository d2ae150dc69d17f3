// Causal attention on one math thread, forward and backward, against PyTorch's
// scaled_dot_product_attention of the same tensors on the same core. The peer's results must have
// our norms, or nothing is compared. TROUPE_BENCH_PYTHON names a python3 that has torch; `./run
// bench` makes one.
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "tests/benchmark/bench.h"
#include "tests/benchmark/tensor.h"
#include "tests/benchmark/torch_python.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr int64_t kHeads = 8, kHeadDim = 64;
constexpr double kSampleSeconds = 0.05;

using bench::Tensor;

// Elements (tokens, heads, head_dim).
Tensor HeadsOf(DType dtype, int64_t tokens) { return Tensor(dtype, {tokens, kHeads, kHeadDim}); }

double NormOf(const Tensor& x) {
  Tensor wide = HeadsOf(DType::kFloat32, x.view.rows());
  Cast(Exec(), wide.view, x.view);
  double squares = 0;
  const float* values = wide.view.as<float>();
  for (int64_t i = 0; i < wide.view.num_elements(); ++i) {
    squares += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  return std::sqrt(squares);
}

// Ours: one sequence, every head with keys of its own.
struct Attention {
  Attention(DType type, int64_t length)
      : shape{.query_len = length,
              .key_len = length,
              .num_heads = kHeads,
              .num_kv_heads = kHeads,
              .head_dim = kHeadDim},
        dtype(type),
        lse(static_cast<size_t>(length * kHeads)),
        workspace(AttentionWorkspaceBytes(shape)) {
    exec.workspace = workspace.bytes();
    std::mt19937 engine(1);
    std::normal_distribution<float> normal;
    for (const Tensor* x : {&q, &k, &v, &dout}) {
      Tensor wide = HeadsOf(DType::kFloat32, length);
      for (int64_t i = 0; i < wide.view.num_elements(); ++i) {
        wide.view.as<float>()[i] = normal(engine);
      }
      Cast(Exec(), x->view, wide.view);
    }
  }
  // q, k, v and dout in float32.
  std::string InputBytes() const {
    std::string bytes;
    for (const Tensor* x : {&q, &k, &v, &dout}) {
      Tensor wide = HeadsOf(DType::kFloat32, shape.query_len);
      Cast(Exec(), wide.view, x->view);
      bytes.append(reinterpret_cast<const char*>(wide.view.data()),
                   static_cast<size_t>(wide.view.num_bytes()));
    }
    return bytes;
  }
  void Forward() {
    AttentionForward(exec, shape,
                     {.out = out.view, .lse = Lse(), .q = q.view, .k = k.view, .v = v.view});
  }
  void Backward() {
    AttentionBackward(exec, shape,
                      {.dq = dq.view,
                       .dk = dk.view,
                       .dv = dv.view,
                       .dout = dout.view,
                       .q = q.view,
                       .k = k.view,
                       .v = v.view,
                       .out = out.view,
                       .lse = Lse()});
  }
  std::vector<double> Norms() const { return {NormOf(out), NormOf(dq), NormOf(dk), NormOf(dv)}; }
  TensorView Lse() { return TensorView::Of(lse.data(), {1, kHeads, shape.query_len}); }

  AttentionShape shape;
  DType dtype;
  Tensor q = Like(), k = Like(), v = Like(), dout = Like();
  Tensor out = Like(), dq = Like(), dk = Like(), dv = Like();
  std::vector<float> lse;
  bench::Memory workspace;
  Exec exec;

 private:
  Tensor Like() const { return HeadsOf(dtype, shape.query_len); }
};

// CPU seconds of one call.
template <typename Call>
double SecondsOf(int repeats, Call&& call) {
  const double start_ns = bench::ProcessCpuNs();
  for (int i = 0; i < repeats; ++i) call();
  return (bench::ProcessCpuNs() - start_ns) / 1e9 / repeats;
}

void PinTo(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(static_cast<size_t>(core), &cores);
  sched_setaffinity(0, sizeof(cores), &cores);
}

// Why the peer's first answer is no basis for a comparison; empty if it is one.
std::string WhyUnlike(const json& ready, const std::vector<double>& norms, double tolerance) {
  if (ready.contains("failed")) return ready["failed"];
  const std::vector<double> its = ready["norms"];
  for (size_t i = 0; i < norms.size(); ++i) {
    if (!(std::abs(its[i] - norms[i]) <= tolerance * norms[i])) {
      return fmt::format("its norm of {} is {}, ours {}",
                         std::vector<std::string>{"out", "dq", "dk", "dv"}[i], its[i], norms[i]);
    }
  }
  return {};
}

// Samples of one pass of both, alternating. `first`: CPU seconds of the peer's first call.
void Alternate(bench::Row& row, const std::string& pass, double first, TorchProcess& peer,
               const std::function<void()>& ours) {
  const auto repeats = [](double seconds) {
    return std::max(1, static_cast<int>(kSampleSeconds / std::max(seconds, 1e-5)));
  };
  const int our_repeats = repeats(SecondsOf(1, ours)), its_repeats = repeats(first);
  // Where PyTorch takes a minute a call, the one that it has made is enough.
  if (first > 20) row.peer.push_back(1e3 * first);
  double spent = first;
  for (int round = 0; round < row.what.num_rounds && (round == 0 || spent < 15); ++round) {
    row.ours.push_back(1e3 * SecondsOf(our_repeats, ours));
    if (first > 20) continue;
    const json answer = peer.Ask(fmt::format("{} {}", pass, its_repeats));
    row.peer.push_back(1e3 * answer.value("seconds", NAN));
    spent += (row.ours.back() * our_repeats + row.peer.back() * its_repeats) / 1e3;
  }
}

void CompareAttention(bench::Bench& bench, DType dtype, int64_t length) {
  const TorchPython python = FindTorch();
  const bool is_float32 = dtype == DType::kFloat32;
  const auto row_of = [&](const char* pass) {
    return bench::Row{
        .what = {.name = fmt::format("{}/{}/{}", pass, is_float32 ? "f32" : "bf16", length),
                 .unit = "CPU ms",
                 .peer_name = "PyTorch",
                 .goal = 1.25}};
  };
  bench::Row forward = row_of("attention"), backward = row_of("attention_backward");
  forward.skipped = backward.skipped = python.why_none;
  Attention ours(dtype, length);
  const std::function<void()> run_forward = [&] { ours.Forward(); };
  const std::function<void()> run_backward = [&] { ours.Backward(); };
  run_forward();
  run_backward();
  if (!python.why_none.empty()) {
    forward.ours = {1e3 * SecondsOf(1, run_forward)};
    backward.ours = {1e3 * SecondsOf(1, run_backward)};
    bench.Report(forward);
    bench.Report(backward);
    return;
  }
  cpu_set_t before;
  sched_getaffinity(0, sizeof(before), &before);
  const int core = sched_getcpu();
  PinTo(core);
  const testing::TemporaryFolder folder;
  TorchProcess peer(python.path, "torch_attention.py", folder / "inductor");
  const json ready = peer.Ask(json{{"length", length},
                                   {"heads", kHeads},
                                   {"head_dim", kHeadDim},
                                   {"dtype", is_float32 ? "float32" : "bfloat16"},
                                   {"core", core},
                                   {"tensors", folder.Write("tensors", ours.InputBytes())}}
                                  .dump());
  const std::string unlike = WhyUnlike(ready, ours.Norms(), is_float32 ? 1e-4 : 2e-2);
  for (bench::Row* row : {&forward, &backward}) {
    row->skipped = unlike;
    if (unlike.empty())
      row->what.peer_name = fmt::format("PyTorch {}", ready["torch"].get<std::string>());
  }
  if (unlike.empty()) {
    Alternate(forward, "forward", ready["forward"], peer, run_forward);
    Alternate(backward, "backward", ready["backward"], peer, run_backward);
  }
  sched_setaffinity(0, sizeof(before), &before);
  bench.Report(forward);
  bench.Report(backward);
}

TROUPE_BENCHMARK(Float32Of512) { CompareAttention(bench, DType::kFloat32, 512); }
TROUPE_BENCHMARK(Float32Of2048) { CompareAttention(bench, DType::kFloat32, 2048); }
TROUPE_BENCHMARK(Float32Of8192) { CompareAttention(bench, DType::kFloat32, 8192); }
TROUPE_BENCHMARK(BFloat16Of512) { CompareAttention(bench, DType::kBFloat16, 512); }
TROUPE_BENCHMARK(BFloat16Of2048) { CompareAttention(bench, DType::kBFloat16, 2048); }
TROUPE_BENCHMARK(BFloat16Of8192) { CompareAttention(bench, DType::kBFloat16, 8192); }

}  // namespace
}  // namespace troupe

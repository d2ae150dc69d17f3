// The time of one training step on one worker with one math thread, against PyTorch: the same
// Llama, weights, data, optimizer and dtype, on the same core. The peer (torch_step.py) is the
// better of eager and torch.compile; its losses must be ours, or nothing is compared.
// TROUPE_BENCH_PYTHON names a python3 that has torch; `./run bench` makes one.
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/benchmark/bench.h"
#include "tests/benchmark/trainee.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using nlohmann::json;

// A python that answers one line with one line, all JSON. Ends with the object.
class TorchProcess {
 public:
  TorchProcess(const std::string& python, const std::string& cache_folder) {
    int to_child[2];
    int from_child[2];
    CHECK(pipe2(to_child, O_CLOEXEC) == 0 && pipe2(from_child, O_CLOEXEC) == 0);
    pid_ = fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      dup2(to_child[0], 0);
      dup2(from_child[1], 1);
      dup2(open("/dev/null", O_WRONLY), 2);
      setenv("OMP_NUM_THREADS", "1", 1);
      setenv("TORCHINDUCTOR_CACHE_DIR", cache_folder.c_str(), 1);
      setenv("TORCHINDUCTOR_COMPILE_THREADS", "1", 1);
      execl(python.c_str(), python.c_str(), TROUPE_SOURCE_DIR "/tests/benchmark/torch_step.py",
            static_cast<char*>(nullptr));
      _exit(127);
    }
    close(to_child[0]);
    close(from_child[1]);
    to_ = fdopen(to_child[1], "w");
    from_ = fdopen(from_child[0], "r");
  }
  TorchProcess(const TorchProcess&) = delete;
  TorchProcess& operator=(const TorchProcess&) = delete;
  ~TorchProcess() {
    fclose(to_);
    fclose(from_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  json Ask(const std::string& line) {
    std::fprintf(to_, "%s\n", line.c_str());
    std::fflush(to_);
    char* answer = nullptr;
    size_t capacity = 0;
    const ssize_t size = getline(&answer, &capacity, from_);
    json parsed = json::parse(std::string(answer, size > 0 ? static_cast<size_t>(size) : 0),
                              nullptr, /*allow_exceptions=*/false);
    std::free(answer);
    if (!parsed.is_object()) return {{"failed", "python3 ended"}};
    return parsed;
  }

 private:
  pid_t pid_ = -1;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

json RequestOf(const testing::SmallModel& model, const std::string& weights,
               const std::string& tokens, int core) {
  const ModelConfig& c = model.config;
  json config{{"hidden_size", c.hidden_size},
              {"intermediate_size", c.intermediate_size},
              {"num_hidden_layers", c.num_hidden_layers},
              {"num_attention_heads", c.num_attention_heads},
              {"num_key_value_heads", c.num_key_value_heads},
              {"head_dim", c.head_dim},
              {"vocab_size", c.vocab_size},
              {"rms_norm_eps", c.rms_norm_eps},
              {"rope_theta", c.rope_theta},
              {"rope_scaling", nullptr},
              {"tie_word_embeddings", c.tie_word_embeddings}};
  json training{{"micro_batch_size", model.batch.micro_batch_size},
                {"seq_len", model.batch.seq_len},
                {"lr", kTraineeAdamW.lr},
                {"betas", {kTraineeAdamW.beta1, kTraineeAdamW.beta2}},
                {"eps", kTraineeAdamW.eps},
                {"weight_decay", kTraineeAdamW.weight_decay},
                {"grad_clip", kTraineeClip}};
  return {{"config", config},
          {"training", training},
          {"dtype", model.dtype == DType::kFloat32 ? "float32" : "bfloat16"},
          {"weights", weights},
          {"tokens", tokens},
          {"core", core}};
}

// Eager or compiled PyTorch and its samples.
struct Peer {
  std::string mode{};
  std::unique_ptr<TorchProcess> process{};
  std::string failure{};  // why it takes no part
  std::string version{};
  std::vector<double> samples{};

  void Start(const std::string& python, json request, double loss, double tolerance) {
    const std::string cache = std::filesystem::path(python).parent_path() / "../inductor";
    process = std::make_unique<TorchProcess>(python, cache);
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
  const json request = RequestOf(model, folder.Write("weights", trainee.WeightBytes()),
                                 folder.Write("tokens", trainee.TokenBytes()), core);
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
  const char* python = std::getenv("TROUPE_BENCH_PYTHON");
  const char* why = std::getenv("TROUPE_BENCH_NO_PYTHON");
  const std::string why_no_python = python != nullptr ? ""
                                    : why != nullptr  ? why
                                                      : "TROUPE_BENCH_PYTHON names no python3";
  for (TrainingCase which : {TinyCase(), SmallCase()}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      which.model.dtype = dtype;
      CompareSteps(bench, which, python == nullptr ? "" : python, why_no_python);
    }
  }
}

}  // namespace
}  // namespace troupe

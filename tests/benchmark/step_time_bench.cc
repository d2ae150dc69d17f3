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

#include "actors/model/stage_model.h"
#include "actors/plan/stage_partition.h"
#include "actors/step_decision.h"
#include "tests/benchmark/bench.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using nlohmann::json;

struct Case {
  std::string name{};
  testing::SmallModel model{};
  int steps_per_sample = 1;
};

// The dimensions of examples/pretrain-tiny.yaml, and a model whose products are worth a worker.
std::vector<Case> Cases() {
  Case tiny{.name = "tiny", .steps_per_sample = 3};
  tiny.model.config = {.hidden_size = 96,
                       .intermediate_size = 256,
                       .num_hidden_layers = 8,
                       .num_attention_heads = 6,
                       .num_key_value_heads = 2,
                       .head_dim = 16,
                       .vocab_size = 256,
                       .tie_word_embeddings = true};
  tiny.model.batch = {.micro_batch_size = 2,
                      .global_batch_size = 16,
                      .seq_len = 128,
                      .num_microbatches = 8,
                      .gradient_groups = 1};
  Case small{.name = "small"};
  small.model.config = {.hidden_size = 384,
                        .intermediate_size = 1024,
                        .num_hidden_layers = 6,
                        .num_attention_heads = 6,
                        .num_key_value_heads = 2,
                        .head_dim = 64,
                        .vocab_size = 4096};
  small.model.batch = {.micro_batch_size = 2,
                       .global_batch_size = 8,
                       .seq_len = 256,
                       .num_microbatches = 4,
                       .gradient_groups = 1};
  return {tiny, small};
}

constexpr AdamWOptions kAdamW{
    .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
constexpr double kGradientClip = 1.0;

// One stage with every layer, as a worker's stream runs it.
class Trainee {
 public:
  explicit Trainee(const testing::SmallModel& model) : model_(model), chain_(model) {
    for (int32_t m = 0; m < model.batch.num_microbatches; ++m) {
      tokens_.push_back(testing::RandomTokens(model, m));
    }
  }

  // Returns the mean loss.
  double Step() {
    StageModel& stage = chain_.stage(0);
    double loss_sum = 0;
    int64_t num_labels = 0;
    for (int32_t m = 0; m < model_.batch.num_microbatches; ++m) {
      const auto result = stage.Forward(m, {}, tokens_[static_cast<size_t>(m)]);
      stage.Backward(m, {});
      loss_sum += result.loss_sum;
      num_labels += result.num_tokens;
    }
    proto::Vote vote;
    for (const proto::NormNode& node : stage.NormNodes()) *vote.add_norm_nodes() = node;
    const auto norm = GradientNorm({&vote, 1}, chain_.table().size());
    CHECK(norm.ok(), "{}", norm.error().message);
    AdamWOptions adamw = kAdamW;
    adamw.step = ++step_;
    adamw.grad_factor =
        GradientFactor(*norm / static_cast<double>(num_labels), kGradientClip, num_labels);
    stage.ApplyUpdate(adamw, true);
    return loss_sum / static_cast<double>(num_labels);
  }

  // What the peer starts from and learns.
  std::string WeightBytes() { return chain_.WeightBytes(); }
  std::string TokenBytes() const {
    std::string bytes;
    for (const std::vector<int32_t>& rows : tokens_) {
      bytes.append(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(int32_t));
    }
    return bytes;
  }

 private:
  const testing::SmallModel model_;
  testing::StageChain chain_;
  std::vector<std::vector<int32_t>> tokens_;
  int64_t step_ = 0;
};

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
                {"lr", kAdamW.lr},
                {"betas", {kAdamW.beta1, kAdamW.beta2}},
                {"eps", kAdamW.eps},
                {"weight_decay", kAdamW.weight_decay},
                {"grad_clip", kGradientClip}};
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

void CompareSteps(bench::Bench& bench, const Case& which, const std::string& python,
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
  for (Case which : Cases()) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      which.model.dtype = dtype;
      CompareSteps(bench, which, python == nullptr ? "" : python, why_no_python);
    }
  }
}

}  // namespace
}  // namespace troupe

#include "tests/simulation/scenario.h"

#include <algorithm>
#include <array>
#include <utility>

#include "runtime/format/checkpoint_manifest.h"
#include "tests/simulation/sim_client.h"

namespace troupe::testing {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kCalmNs = 5 * kSecondNs;  // until everybody knows that all is well
constexpr int64_t kSweepLimitNs = 120 * kSecondNs;
constexpr const char* kData = "/data/text.txt";
constexpr const char* kRunDirectory = "/runs/small";

class Scenario {
 public:
  explicit Scenario(uint64_t seed)
      : num_ranks_(2 + static_cast<int>(Draw(seed, "test.ranks") * 3)),
        cluster_({.seed = seed, .slots = (num_ranks_ + 1) / 2}),
        faults_(cluster_, seed) {}

  SimOutcome Run() {
    WriteData();
    SimClient first(cluster_, loss());
    proto::SubmitRequest request = Request({});
    faults_.Arrange(first, *spec_);
    Attempt(first, std::move(request));
    faults_.End();
    const SeenEnd end = first.end(0, spec_->train().steps());
    if (Holds()) world().invariants.JobEnded(end, faults_.ends());
    ++(end.succeeded ? outcome_.jobs_succeeded : outcome_.jobs_failed);
    outcome_.first_reason = end.reason;
    Repair();
    if (!end.succeeded && Holds()) GoOn();
    // Nothing is left of them.
    if (Holds() &&
        !cluster_.RunUntil([this] { return cluster_.LiveProcesses().empty(); }, kSweepLimitNs)) {
      Violate("ranks of ended jobs live on");
    }
    outcome_.violation = world().invariants.violation();
    outcome_.log = world().log;
    outcome_.faults = faults_.all();
    outcome_.end_ns = world().now_ns();
    return outcome_;
  }

 private:
  static double Draw(uint64_t seed, std::string_view name) {
    return UniformAt(RandomKey(seed, name), 0);
  }
  double Draw(std::string_view name) { return world().Draw(name); }
  int DrawInt(std::string_view name, int least, int most) {
    return least + static_cast<int>(Draw(name) * (most - least + 1));
  }
  SimWorld& world() { return cluster_.world(); }
  int num_microbatches() const { return 2 * num_ranks_; }
  double loss() const { return (num_microbatches() - 1) / 2.0; }  // cost_stage.h
  bool Holds() { return world().invariants.violation().empty(); }
  template <typename... Args>
  void Violate(fmt::format_string<Args...> format, Args&&... args) {
    world().invariants.Violate(format, std::forward<Args>(args)...);
  }

  // ---- the job ---------------------------------------------------------------------------------

  void WriteData() {
    CHECK(world().shared.CreateDirectories("/data").ok());
    CHECK(WriteFileAtomically(world().shared, kData, std::string(400, 'x')).ok());
  }

  proto::JobSpec Spec() {
    proto::JobSpec spec;
    spec.set_spec_version(1);
    spec.set_kind("pretrain");
    spec.set_name("small");
    auto& model = *spec.mutable_model();
    model.set_hidden_size(4);
    model.set_intermediate_size(4);
    model.set_num_hidden_layers(8);
    model.set_num_attention_heads(1);
    model.set_num_key_value_heads(1);
    model.set_vocab_size(256);
    model.set_max_position_embeddings(8);
    auto& data = *spec.mutable_data();
    data.set_train(kData);
    data.set_val_fraction(0.2);
    constexpr std::array kSchedules = {"1f1b", "gpipe", "zb-h1", "interleaved-1f1b"};
    spec.mutable_parallelism()->set_pp(num_ranks_);
    spec.mutable_parallelism()->set_schedule(
        kSchedules[static_cast<size_t>(DrawInt("test.schedule", 0, 3))]);
    auto& batch = *spec.mutable_batch();
    batch.set_micro_batch_size(1);
    batch.set_global_batch_size(num_microbatches());
    batch.set_seq_len(4);
    spec.mutable_optimizer()->set_lr(1e-3);
    spec.mutable_train()->set_steps(DrawInt("test.steps", 2, 5));
    spec.mutable_train()->set_seed(1);
    spec.mutable_checkpoint()->set_every(DrawInt("test.checkpoint", 0, 2));
    spec.mutable_checkpoint()->set_keep(2);
    if (DrawInt("test.eval", 0, 3) == 0) {
      spec.mutable_eval()->set_every(2);
      spec.mutable_eval()->set_batches(1);
    }
    if (DrawInt("test.parity", 0, 4) == 0) spec.mutable_eval()->set_check_against("single_worker");
    spec.mutable_log()->mutable_trace()->set_steps(0);
    faults_.Shape(spec);
    return spec;
  }
  proto::SubmitRequest Request(const std::string& resume_from) {
    if (!spec_) spec_ = Spec();
    proto::SubmitRequest request;
    request.set_submission_id(fmt::format("submission-{}", ++num_submissions_));
    *request.mutable_spec() = *spec_;
    request.set_run_directory(kRunDirectory);
    request.set_resume_from(resume_from);
    // Where the first one did not get to a checkpoint its folder stays as it is.
    if (num_submissions_ > 1 && resume_from.empty()) request.set_run_directory("/runs/small-2");
    return request;
  }

  void Attempt(SimClient& client, proto::SubmitRequest request) {
    constexpr int64_t kLimitNs = Invariants::kJobLimitNs;
    const auto ready = [this] { return cluster_.coordinator() != nullptr; };
    if (!cluster_.RunUntil(ready, kLimitNs)) return Violate("there is no coordinator");
    client.Submit(std::move(request));
    const int64_t since_ns = world().now_ns();
    if (!cluster_.RunUntil([&client] { return client.over(); }, kLimitNs)) {
      world().invariants.JobIsOpen(client.job(), since_ns, world().now_ns());
    }
  }

  // Until all is well again.
  void Repair() {
    const int64_t until_ns = std::max(faults_.calm_ns() + kCalmNs, world().now_ns());
    const auto calm = [this, until_ns] {
      return world().now_ns() >= until_ns && cluster_.num_joined() == 2;
    };
    if (Holds() && !cluster_.RunUntil(calm, Invariants::kJobLimitNs)) {
      Violate("the agents do not come back");
    }
  }

  // The same job, from its newest checkpoint, without a fault.
  void GoOn() {
    const auto newest =
        FindNewestCheckpoint(world().shared, JoinPath(kRunDirectory, "checkpoints"));
    if (!newest.ok()) return Violate("{}", newest.error().message);
    const int64_t step = *newest ? (*newest)->manifest.step : 0;
    world().Log("once more, from step {}", step);
    SimClient second(cluster_, loss());
    Attempt(second, Request(*newest ? (*newest)->folder : ""));
    if (!Holds()) return;
    world().invariants.JobEnded(second.end(step, spec_->train().steps()), {});
    ++outcome_.jobs_succeeded;
  }

  const int num_ranks_;
  SimCluster cluster_;
  Faults faults_;
  SimOutcome outcome_{};
  std::optional<proto::JobSpec> spec_{};
  int num_submissions_ = 0;
};

}  // namespace

SimOutcome RunSeed(uint64_t seed) { return Scenario(seed).Run(); }

}  // namespace troupe::testing

#include "actors/model/measured_costs.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "actors/model/lone_stream.h"
#include "actors/model/stage_model.h"
#include "actors/model/still_peers.h"

namespace troupe {
namespace {

constexpr int kRuns = 3;
constexpr int kStages = 3;  // first, middle and last: one layer each
constexpr uint64_t kSeed = 1;

class Stopwatch {
 public:
  explicit Stopwatch(const Clock& clock) : clock_(clock), start_ns_(clock.NowNs()) {}
  const Clock& clock() const { return clock_; }
  bool Expired() const { return clock_.NowNs() - start_ns_ > kMeasureMs * 1'000'000; }
  template <typename Work>
  int64_t Ns(const Work& work) const {
    const int64_t start_ns = clock_.NowNs();
    work();
    return clock_.NowNs() - start_ns;
  }

 private:
  const Clock& clock_;
  const int64_t start_ns_;
};

// Along cp: none has more to compute.
int LastRank(const BatchArithmetic& batch) { return batch.context.num_ranks - 1; }

// A stage alone on a stream: the ranks that would share its sequences are stand-ins.
class LoneStage {
 public:
  LoneStage(const StageModelOptions& options, const ParameterTable& table, const Clock& clock)
      : model_(options, table, ledger_),
        ring_(options.shape.batch.context.num_ranks, LastRank(options.shape.batch), clock),
        group_(options.shape.batch.context.num_ranks, LastRank(options.shape.batch)) {
    model_.Join({.ring = &ring_, .groups = {&group_, &group_}});
    model_.parameters().Initialize(kSeed);
    model_.WeightsChanged();
  }
  StageModel& model() { return model_; }

  template <typename T>
  void Run(Task<T> task) {
    stream_.Run(std::move(task));
  }

 private:
  MemoryLedger ledger_{};
  StageModel model_;
  StillRing ring_;
  StillGroup group_;
  LoneStream stream_{};
};

// One stage of one layer, at its least.
StageCost StageTimes(const StageModelOptions& options, const ParameterTable& table,
                     const Stopwatch& stopwatch) {
  LoneStage stage(options, table, stopwatch.clock());
  StageModel& model = stage.model();
  const auto num_bytes = static_cast<size_t>(model.boundary_bytes());
  const std::vector<std::byte> boundary(num_bytes);
  const BatchArithmetic& batch = options.shape.batch;
  const StageLayout& layout = options.shape.layout;
  const std::vector<int32_t> rows(
      static_cast<size_t>(batch.micro_batch_size * (batch.seq_len + 1)));
  const Microbatch data = MicrobatchOf(rows, batch, FieldsOf(options.shape.model, layout, batch),
                                       PositionsOfSequences(batch, LastRank(batch)));
  const std::span<const std::byte> input =
      layout.has_embedding() ? std::span<const std::byte>() : std::span(boundary);
  const std::span<const std::byte> gradient =
      layout.has_head() ? std::span<const std::byte>() : std::span(boundary);
  const auto times = [&] {
    StageCost run;
    const auto ns = [&](auto new_task) { return stopwatch.Ns([&] { stage.Run(new_task()); }); };
    const auto forward = [&] { return model.Forward(0, input, data); };
    run.forward_ns = ns(forward);
    run.backward_input_ns = ns([&] { return model.BackwardInput(0, gradient); });
    run.backward_weight_ns = ns([&] { return model.BackwardWeight(0); });
    ns(forward);
    run.backward_ns = ns([&] { return model.Backward(0, gradient); });
    return run;
  };
  StageCost least = times();
  for (int run = 0; run < kRuns && !stopwatch.Expired(); ++run) {
    least = run == 0 ? times() : Least(least, times());
  }
  return least;
}

StageCost Beside(const StageCost& stage, const StageCost& layer) {
  const auto more = [](int64_t a, int64_t b) { return std::max<int64_t>(0, a - b); };
  return {.forward_ns = more(stage.forward_ns, layer.forward_ns),
          .backward_input_ns = more(stage.backward_input_ns, layer.backward_input_ns),
          .backward_weight_ns = more(stage.backward_weight_ns, layer.backward_weight_ns),
          .backward_ns = more(stage.backward_ns, layer.backward_ns)};
}

// Shared memory takes a copy in and a copy out; what a network takes beyond that is not measured.
int64_t HopNs(int64_t num_bytes, const Stopwatch& stopwatch) {
  const std::vector<std::byte> from(static_cast<size_t>(num_bytes));
  std::vector<std::byte> to(from.size());
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int run = 0; run <= kRuns; ++run) {
    const int64_t ns = stopwatch.Ns([&] {
      std::memcpy(to.data(), from.data(), from.size());
      // The copy must not be optimised away.
      asm volatile("" : : "r"(to.data()) : "memory");
    });
    if (run > 0) least = std::min(least, ns);
  }
  return 2 * least;
}

}  // namespace

ModelCosts MeasureModelCosts(const ModelSpec& model, const BatchArithmetic& batch,
                             const NumberWidths& widths, Recompute recompute, DType dtype,
                             int num_threads, const Clock& clock) {
  const Stopwatch stopwatch(clock);
  StageModelOptions options{.dtype = dtype};
  options.shape = {.model = model,
                   .batch = batch,
                   .widths = widths,
                   .halves = true,
                   .recompute = recompute,
                   .num_threads = num_threads};
  options.shape.batch.num_microbatches = 1;
  options.shape.batch.gradient_groups = 1;
  const auto times = [&](int stage, int kind) {
    options.shape.model.layers.assign(kStages, kind);
    const ParameterTable table(options.shape.model);
    options.shape.layout = {
        .stage = stage, .num_stages = kStages, .first_layer = stage, .num_layers = 1};
    return StageTimes(options, table, stopwatch);
  };
  ModelCosts costs;
  for (size_t kind = 0; kind < model.layer_kinds.size(); ++kind) {
    costs.layers.push_back(times(1, static_cast<int>(kind)));
  }
  costs.embedding = Beside(times(0, 0), costs.layers.front());
  costs.head = Beside(times(kStages - 1, 0), costs.layers.front());
  costs.hop_ns = HopNs(
      batch.tokens_per_microbatch() * model.config.hidden_size * widths.compute_bytes, stopwatch);
  return costs;
}

}  // namespace troupe

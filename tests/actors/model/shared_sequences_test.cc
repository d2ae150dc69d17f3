// A whole model whose ranks share sequences, against one worker that has them whole.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <map>

#include "tests/actors/model/context_world.h"
#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::ContextWorld;
using testing::SmallModel;
using testing::StageChain;

struct Sharing {
  ContextParallel context{};
  bool documents = false;
};

constexpr int32_t kSeparator = 3;

// Ranks of one stage, with equal weights.
class SharedModel {
 public:
  SharedModel(SmallModel model, const Sharing& sharing)
      : model_(With(std::move(model), sharing)),
        table_(model_.Spec()),
        world_(sharing.context.num_ranks) {
    const auto layout = PartitionStages(table_.model(), 1, model_.batch.seq_len);
    for (int rank = 0; rank < world_.size(); ++rank) {
      StageModelOptions options{.dtype = model_.dtype};
      options.shape = {.model = table_.model(),
                       .layout = layout->front(),
                       .batch = model_.batch,
                       .widths = testing::WidthsOf(model_.dtype),
                       .halves = model_.halves,
                       .recompute = model_.recompute,
                       .open_actions = model_.open_actions};
      StageModel& stage = stages_.emplace_back(options, table_, ledgers_.emplace_back());
      stage.Join(world_.PeersOf(rank));
      stage.parameters().Initialize(model_.seed);
      stage.WeightsChanged();
    }
  }

  void Forward(int32_t microbatch) { world_.Run(ForwardTask(microbatch)); }
  void Backward(int32_t microbatch) {
    world_.Run(BackwardTask(microbatch));
    if (!model_.halves) return;
    world_.Run([this, microbatch](int rank) { return stage(rank).BackwardWeight(microbatch); });
  }
  // A Forward of one microbatch beside the backward of another.
  void Together(int32_t forward, int32_t backward) {
    const std::vector<ContextWorld::NewTask> both = {ForwardTask(forward), BackwardTask(backward)};
    world_.RunTogether(both);
  }
  double Evaluate(int32_t microbatch) {
    const std::map<int, double> before = losses_;
    losses_.clear();
    world_.Run([this, microbatch](int rank) {
      return AddLoss(rank, stage(rank).Evaluate({}, data_.emplace_back(DataOf(rank, microbatch))));
    });
    const double evaluated = loss();
    losses_ = before;
    return evaluated;
  }
  void RunStep() {
    for (int32_t m = 0; m < model_.batch.num_microbatches; ++m) {
      Forward(m);
      Backward(m);
    }
  }
  // In the order of ranks.
  double loss() const {
    double sum = 0;
    for (const auto& [rank, loss] : losses_) sum += loss;
    return sum;
  }

  // In table order, added up over the ranks.
  std::vector<std::vector<double>> Gradients() {
    std::vector<std::vector<double>> sums;
    for (int rank = 0; rank < world_.size(); ++rank) {
      stage(rank).FinishGradients();
      for (const StageParameter& p : stage(rank).parameters().all()) {
        const ConstTensorView gradient = stage(rank).Gradient(p).Flat();
        const auto index = static_cast<size_t>(p.index);
        if (sums.size() <= index) sums.resize(index + 1);
        sums[index].resize(static_cast<size_t>(gradient.num_elements()));
        for (size_t i = 0; i < sums[index].size(); ++i) sums[index][i] += gradient.as<float>()[i];
      }
    }
    return sums;
  }
  StageModel& stage(int rank) { return stages_[static_cast<size_t>(rank)]; }
  MemoryLedger& ledger(int rank) { return ledgers_[static_cast<size_t>(rank)]; }
  ContextWorld& world() { return world_; }
  const ParameterTable& table() const { return table_; }

 private:
  static SmallModel With(SmallModel model, const Sharing& sharing) {
    model.batch.context = sharing.context;
    model.batch.packs_documents = sharing.documents;
    return model;
  }
  Microbatch DataOf(int rank, int32_t microbatch) const {
    SpecialTokens special;
    if (model_.batch.packs_documents) special.document_separator = kSeparator;
    MicrobatchFields fields = testing::kAllFields;
    fields.document_starts = model_.batch.packs_documents;
    return MicrobatchOf(testing::RandomTokens(model_, microbatch), model_.batch, fields,
                        PositionsOfSequences(model_.batch, rank), special);
  }
  ContextWorld::NewTask ForwardTask(int32_t microbatch) {
    return [this, microbatch](int rank) {
      return AddLoss(
          rank, stage(rank).Forward(microbatch, {}, data_.emplace_back(DataOf(rank, microbatch))));
    };
  }
  ContextWorld::NewTask BackwardTask(int32_t microbatch) {
    return [this, microbatch](int rank) {
      return Ignoring(model_.halves ? stage(rank).BackwardInput(microbatch, {})
                                    : stage(rank).Backward(microbatch, {}));
    };
  }
  Task<Status> AddLoss(int rank, Task<Result<StageModel::ForwardResult>> task) {
    CO_ASSIGN_OR_RETURN(const auto result, co_await std::move(task));
    losses_[rank] += result.loss->nll;
    co_return Status{};
  }
  static Task<Status> Ignoring(Task<Result<Buffer>> task) {
    CO_ASSIGN_OR_RETURN(const Buffer buffer, co_await std::move(task));
    co_return Status{};
  }

  const SmallModel model_;
  const ParameterTable table_;
  std::deque<MemoryLedger> ledgers_{};
  std::deque<Microbatch> data_{};
  ContextWorld world_;
  std::deque<StageModel> stages_{};
  std::map<int, double> losses_{};
};

SmallModel OfLength(int64_t seq_len) {
  SmallModel model;
  model.config.num_hidden_layers = 3;
  model.config.vocab_size = 17;
  model.batch.seq_len = seq_len;
  return model;
}

std::vector<Sharing> Sharings(int ranks) {
  std::vector<Sharing> sharings;
  for (const auto method : {ContextMethod::kRing, ContextMethod::kAllGather}) {
    for (const auto layout :
         {SequenceLayout::kContiguous, SequenceLayout::kStriped, SequenceLayout::kZigzag}) {
      sharings.push_back({.context = {ranks, method, layout}});
    }
  }
  sharings.push_back({.context = {ranks, ContextMethod::kUlysses, SequenceLayout::kContiguous}});
  return sharings;
}

std::string Describe(const Sharing& sharing) {
  return fmt::format("{} {} x {}{}", ContextMethodName(sharing.context.method),
                     SequenceLayoutName(sharing.context.layout), sharing.context.num_ranks,
                     sharing.documents ? ", documents" : "");
}

void ExpectNear(const std::vector<std::vector<double>>& got,
                const std::vector<std::vector<double>>& expected, double share,
                const std::string& what) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t p = 0; p < got.size(); ++p) {
    double largest = 0, difference = 0;
    for (size_t i = 0; i < got[p].size(); ++i) {
      largest = std::max(largest, std::abs(expected[p][i]));
      difference = std::max(difference, std::abs(got[p][i] - expected[p][i]));
    }
    EXPECT_LE(difference, share * largest) << what << ", parameter " << p;
  }
}

TEST(SharedSequences, TrainTheModelOfOneWorker) {
  for (const bool documents : {false, true}) {
    for (const int ranks : {2, 4, 6, 8}) {
      SmallModel model = OfLength(48);
      // As many heads as Ulysses needs.
      model.config.num_attention_heads = std::max(4, ranks);
      SharedModel whole(model, {.documents = documents});
      const double evaluated = whole.Evaluate(1);
      whole.RunStep();
      const auto expected = whole.Gradients();
      for (Sharing sharing : Sharings(ranks)) {
        sharing.documents = documents;
        SharedModel shared(model, sharing);
        EXPECT_NEAR(shared.Evaluate(1), evaluated, 1e-5 * evaluated) << Describe(sharing);
        shared.RunStep();
        EXPECT_NEAR(shared.loss(), whole.loss(), 1e-5 * whole.loss()) << Describe(sharing);
        ExpectNear(shared.Gradients(), expected, 1e-4, Describe(sharing));
      }
    }
  }
}

// One rank that knows of no context has what a chain of stages has.
TEST(SharedSequences, OfOneRankAreThoseOfAStage) {
  const SmallModel model = OfLength(12);
  StageChain chain(model);
  SharedModel alone(model, {});
  EXPECT_EQ(chain.RunStep(), (alone.RunStep(), alone.loss()));
}

TEST(SharedSequences, RecomputationHasTheSameBits) {
  for (const bool halves : {false, true}) {
    for (const Sharing& sharing : Sharings(4)) {
      SmallModel model = OfLength(16);
      model.halves = halves;
      SharedModel kept(model, sharing);
      kept.RunStep();
      const auto expected = kept.Gradients();
      for (const Recompute recompute : {Recompute::kAttention, Recompute::kFull}) {
        model.recompute = recompute;
        SharedModel again(model, sharing);
        again.RunStep();
        EXPECT_EQ(again.loss(), kept.loss());
        EXPECT_TRUE(again.Gradients() == expected)
            << Describe(sharing) << ", " << RecomputeName(recompute);
        const auto& pairs = again.world().work(1).pairs;
        EXPECT_EQ(pairs[static_cast<size_t>(KvPhase::kRecompute)],
                  pairs[static_cast<size_t>(KvPhase::kForward)]);
      }
    }
  }
}

// Lanes keep them apart.
TEST(SharedSequences, AForwardMayBeOpenBesideABackward) {
  for (const Sharing& sharing : Sharings(4)) {
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
      SmallModel model = OfLength(16);
      model.batch.num_microbatches = 3;
      model.open_actions = 2;
      model.recompute = recompute;
      SharedModel in_turn(model, sharing);
      in_turn.RunStep();
      SharedModel together(model, sharing);
      together.Forward(0);
      together.Together(1, 0);
      together.Together(2, 1);
      together.Backward(2);
      EXPECT_TRUE(together.Gradients() == in_turn.Gradients()) << Describe(sharing);
    }
  }
}

TEST(SharedSequences, MemoryIsWhatTheModelPredicts) {
  for (const bool documents : {false, true}) {
    for (Sharing sharing : Sharings(4)) {
      sharing.documents = documents;
      for (const Recompute recompute :
           {Recompute::kNone, Recompute::kAttention, Recompute::kFull}) {
        SmallModel model = OfLength(32);
        model.recompute = recompute;
        model.dtype = documents ? DType::kBFloat16 : DType::kFloat32;
        SharedModel shared(model, sharing);
        shared.RunStep();
        const MemoryPrediction predicted = PredictMemory(
            shared.table(), {.shape = shared.stage(0).options().shape, .isa = ThisVectorIsa()});
        const MemoryPrediction used = shared.ledger(0).Snapshot().peak_bytes;
        for (const MemoryTag tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kActivations,
                                    MemoryTag::kWorkspace}) {
          EXPECT_EQ(used[static_cast<size_t>(tag)], predicted[static_cast<size_t>(tag)])
              << MemoryTagName(tag) << ", " << Describe(sharing) << ", "
              << RecomputeName(recompute);
        }
      }
    }
  }
}

// What a rank keeps of a microbatch falls as ranks share it.
TEST(SharedSequences, EachRankKeepsItsShare) {
  for (const auto& [ranks, share] : {std::pair(2, 2), {4, 4}, {8, 8}}) {
    SmallModel model = OfLength(256);
    StageShape shape{.model = model.Spec(), .layout = {.num_layers = 3}, .batch = model.batch};
    const int64_t whole = StashLayoutOf(shape).num_bytes;
    shape.batch.context.num_ranks = ranks;
    EXPECT_NEAR(static_cast<double>(StashLayoutOf(shape).num_bytes * share),
                static_cast<double>(whole), 0.02 * static_cast<double>(whole));
  }
}

}  // namespace
}  // namespace troupe

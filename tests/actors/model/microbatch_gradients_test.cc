// Gradients that are reduced microbatch by microbatch, in pieces: of one rank, and of several that
// the test adds up.
#include "actors/model/microbatch_gradients.h"

#include <gtest/gtest.h>

#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::SmallModel;

// One rank's parameters and gradients of a whole model.
struct Member {
  Member(const SmallModel& model, const ParameterTable& table, const StageLayout& layout,
         const ShardPlace& place)
      : parameters({.shards = place}, table, layout, ledger),
        gradients({.num_microbatches = model.batch.num_microbatches,
                   .groups = model.batch.gradient_groups,
                   .halves = model.halves,
                   .shards = place},
                  parameters, table, layout, ledger) {
    for (const StageParameter& p : parameters.all()) {
      accumulators.push_back(gradients.AddAccumulator(p.first_element, p.spec->num_elements()));
    }
    if (table.tied()) {
      accumulators.push_back(gradients.AddAccumulator(
          parameters.num_elements(), table[table.embedding_index()].num_elements()));
    }
  }

  int64_t Bytes(MemoryTag tag) const {
    return ledger.Snapshot().current_bytes[static_cast<size_t>(tag)];
  }

  MemoryLedger ledger;
  StageParameters parameters;
  MicrobatchGradients gradients;
  std::vector<int> accumulators{};
};

// Whose sums depend on the order.
float Value(int accumulator, int member, int32_t microbatch, int64_t element) {
  const int mixed =
      (accumulator * 7 + member * 5 + microbatch * 3 + static_cast<int>(element)) % 11;
  return mixed % 3 == 0 ? 1e7F + static_cast<float>(mixed) : 0.37F * static_cast<float>(mixed);
}

struct Job {
  explicit Job(const SmallModel& m, int num_members) : model(m), table(m.Spec()) {
    layout = {.num_layers = static_cast<int>(m.config.num_hidden_layers)};
    for (int i = 0; i < num_members; ++i) {
      members.push_back(std::make_unique<Member>(
          model, table, layout, ShardPlace{.owner = i, .num_owners = num_members}));
    }
  }

  // Every member computes its microbatch of each piece, the sums in ascending order of members.
  void Run() {
    const auto pieces = GradientPiecesOf(table, layout, model.halves);
    for (int32_t m = 0; m < model.batch.num_microbatches; ++m) {
      for (size_t piece = pieces.size(); piece-- > 0;) RunPiece(static_cast<int>(piece), m);
    }
    for (auto& member : members) member->gradients.Finish({});
  }

  void RunPiece(int piece, int32_t microbatch) {
    std::vector<std::unique_ptr<MicrobatchGradients::Bucket>> buckets;
    for (size_t i = 0; i < members.size(); ++i) {
      MicrobatchGradients& gradients = members[i]->gradients;
      gradients.Open({}, piece, microbatch);
      for (size_t a = 0; a < members[i]->accumulators.size(); ++a) {
        if (PieceOf(a) != piece) continue;
        const TensorView target = gradients.Target({}, members[i]->accumulators[a], microbatch);
        for (int64_t e = 0; e < target.num_elements(); ++e) {
          EXPECT_EQ(target.as<float>()[e], 0) << "a bucket is not empty at its start";
          target.as<float>()[e] += Value(static_cast<int>(a), static_cast<int>(i), microbatch, e);
        }
      }
      buckets.push_back(gradients.Close(piece, microbatch));
    }
    int64_t first = 0;
    for (size_t owner = 0; owner < members.size(); ++owner) {
      const int64_t count =
          members.size() > 1 ? buckets[owner]->counts[owner] : buckets[owner]->all.num_elements();
      EXPECT_EQ(buckets[owner]->own.num_elements(), count);
      std::vector<float> sums;
      for (int64_t e = first; e < first + count; ++e) {
        float sum = buckets[0]->all.as<float>()[e];
        for (size_t i = 1; i < buckets.size(); ++i) sum += buckets[i]->all.as<float>()[e];
        sums.push_back(sum);
      }
      std::ranges::copy(sums, buckets[owner]->own.as<float>());
      first += count;
    }
    for (size_t i = 0; i < members.size(); ++i) {
      members[i]->gradients.Add({}, std::move(buckets[i]));
    }
  }

  // Of an accumulator: which piece has its parameter and use.
  int PieceOf(size_t accumulator) const {
    const auto& all = members.front()->parameters.all();
    const bool second = accumulator == all.size();
    const int index = second ? table.embedding_index() : all[accumulator].index;
    const auto pieces = GradientPiecesOf(table, layout, model.halves);
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].second_use != second) continue;
      if (std::ranges::find(pieces[i].parameters, index) != pieces[i].parameters.end()) {
        return static_cast<int>(i);
      }
    }
    return -1;
  }

  SmallModel model;
  ParameterTable table;
  StageLayout layout{};
  std::vector<std::unique_ptr<Member>> members{};
};

float Expected(const SmallModel& model, int num_members, int accumulator, int64_t element) {
  const int32_t group_size = model.batch.num_microbatches / model.batch.gradient_groups;
  float total = 0;
  float group = 0;
  for (int32_t m = 0; m < model.batch.num_microbatches; ++m) {
    float sum = Value(accumulator, 0, m, element);
    for (int i = 1; i < num_members; ++i) sum += Value(accumulator, i, m, element);
    group += sum;
    if ((m + 1) % group_size != 0) continue;
    total += group;
    group = 0;
  }
  return total;
}

void CheckSums(Job& job) {
  const auto num_members = static_cast<int>(job.members.size());
  for (auto& member : job.members) {
    for (size_t a = 0; a < member->accumulators.size(); ++a) {
      const auto& all = member->parameters.all();
      const bool second = a == all.size();
      const StageParameter& p =
          second ? member->parameters.Of(job.table.embedding_index()) : all[a];
      const int64_t first = second ? member->parameters.num_elements() : p.first_element;
      const TensorView sum =
          member->gradients.Sum(first + p.shard.first_element, p.shard.num_elements);
      for (int64_t e = 0; e < p.shard.num_elements; ++e) {
        ASSERT_EQ(sum.as<float>()[e],
                  Expected(job.model, num_members, static_cast<int>(a), p.shard.first_element + e))
            << p.spec->name << " " << second << " element " << e;
      }
    }
  }
}

TEST(MicrobatchGradients, AreSummedOverMembersThenMicrobatches) {
  for (const int num_members : {1, 2, 3}) {
    for (const bool tied : {false, true}) {
      for (const bool halves : {false, true}) {
        SmallModel model;
        model.config.hidden_size = 64;  // rows of more leaves than members
        model.config.tie_word_embeddings = tied;
        model.halves = halves;
        model.batch.num_microbatches = model.batch.gradient_groups = 3;
        Job job(model, num_members);
        job.Run();
        CheckSums(job);
        for (auto& member : job.members) member->gradients.Reset({});
        job.Run();
        CheckSums(job);
      }
    }
  }
}

TEST(MicrobatchGradients, OfOneRankFollowTheGroups) {
  for (const int32_t groups : {1, 2, 3, 6}) {
    SmallModel model;
    model.batch.num_microbatches = 6;
    model.batch.gradient_groups = groups;
    Job job(model, 1);
    job.Run();
    CheckSums(job);
    const int64_t sum_bytes = job.members[0]->parameters.num_elements() * 4;
    const int buffers = groups == 1 || groups == 6 ? 1 : 2;
    EXPECT_EQ(job.members[0]->Bytes(MemoryTag::kGrads), buffers * sum_bytes) << groups;
  }
}

TEST(MicrobatchGradients, KeepAShardAndOneBucket) {
  SmallModel model;
  model.config.hidden_size = 64;
  model.batch.num_microbatches = model.batch.gradient_groups = 2;
  Job job(model, 2);
  job.Run();
  int64_t owned = 0;
  int64_t largest = 0;
  for (auto& member : job.members) owned += member->Bytes(MemoryTag::kGrads);
  for (const auto& piece : GradientPiecesOf(job.table, job.layout, model.halves)) {
    largest = std::max(largest, piece.num_elements);
  }
  EXPECT_EQ(owned, job.members[0]->parameters.num_elements() * 4);
  EXPECT_EQ(job.members[0]->Bytes(MemoryTag::kComm), largest * 4);
}

}  // namespace
}  // namespace troupe

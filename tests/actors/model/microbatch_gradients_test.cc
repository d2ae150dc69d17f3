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
  Job(const SmallModel& m, int num_members, int64_t persist_elements = 0)
      : model(m), table(m.Spec()) {
    place = {.num_owners = num_members, .persist_elements = persist_elements};
    layout = {.num_layers = static_cast<int>(m.config.num_hidden_layers)};
    for (place.owner = 0; place.owner < num_members; ++place.owner) {
      members.push_back(std::make_unique<Member>(model, table, layout, place));
    }
    place.owner = 0;
  }

  // Every member computes its microbatch of each piece, the sums in ascending order of members.
  void Run() {
    const auto pieces = Pieces();
    for (int32_t m = 0; m < model.batch.num_microbatches; ++m) {
      int last = -1;
      for (size_t piece = pieces.size(); piece-- > 0;) {
        const int portion =
            *members[0]->gradients.PortionOf(pieces[piece].unit, pieces[piece].moment);
        if (portion != last) RunPortion(portion, m);
        last = portion;
      }
    }
    for (auto& member : members) member->gradients.Finish({});
  }

  void RunPortion(int portion, int32_t microbatch) {
    std::vector<std::shared_ptr<MicrobatchGradients::Bucket>> buckets;
    for (size_t i = 0; i < members.size(); ++i) {
      MicrobatchGradients& gradients = members[i]->gradients;
      gradients.Open({}, portion, microbatch);
      for (size_t a = 0; a < members[i]->accumulators.size(); ++a) {
        if (PortionOf(a) != portion) continue;
        const TensorView target = gradients.Target({}, members[i]->accumulators[a], microbatch);
        for (int64_t e = 0; e < target.num_elements(); ++e) {
          EXPECT_EQ(target.as<float>()[e], 0) << "a bucket is not empty at its start";
          target.as<float>()[e] += Value(static_cast<int>(a), static_cast<int>(i), microbatch, e);
        }
      }
      buckets.push_back(gradients.Close({}, portion, microbatch));
    }
    for (size_t part = 0; part < buckets[0]->parts.size(); ++part) {
      AddUp(buckets, part);
      for (size_t i = 0; i < members.size(); ++i) members[i]->gradients.Add({}, buckets[i], part);
    }
  }

  // As the ranks do: who owns a run has its sum, of what is whole everyone.
  static void AddUp(const std::vector<std::shared_ptr<MicrobatchGradients::Bucket>>& buckets,
                    size_t part) {
    const auto gradients = [&](size_t i) { return buckets[i]->parts[part].gradients; };
    std::vector<float> sums;
    for (int64_t e = 0; e < gradients(0).num_elements(); ++e) {
      float sum = gradients(0).as<float>()[e];
      for (size_t i = 1; i < buckets.size(); ++i) sum += gradients(i).as<float>()[e];
      sums.push_back(sum);
    }
    int64_t first = 0;
    for (size_t owner = 0; owner < buckets.size(); ++owner) {
      const auto counts = buckets[owner]->parts[part].counts;
      const int64_t count = counts.empty() ? std::ssize(sums) : counts[owner];
      std::ranges::copy_n(sums.begin() + first, count,
                          gradients(owner).template as<float>() + first);
      if (!counts.empty()) first += count;
    }
  }

  std::vector<GradientPiece> Pieces() const {
    return GradientPiecesOf(table, layout, model.halves, place);
  }

  // Of an accumulator: in which portion its parameter and use is.
  int PortionOf(size_t accumulator) const {
    const auto& all = members.front()->parameters.all();
    const bool second = accumulator == all.size();
    const int index = second ? table.embedding_index() : all[accumulator].index;
    for (const GradientPiece& piece : Pieces()) {
      if (piece.second_use != second) continue;
      if (std::ranges::find(piece.parameters, index) != piece.parameters.end()) {
        return *members.front()->gradients.PortionOf(piece.unit, piece.moment);
      }
    }
    return -1;
  }

  SmallModel model;
  ParameterTable table;
  StageLayout layout{};
  ShardPlace place{};  // of the first
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
        for (const int64_t persist_elements : {0, 100, 5000}) {
          Job job(model, num_members, persist_elements);
          job.Run();
          CheckSums(job);
          for (auto& member : job.members) member->gradients.Reset({});
          job.Run();
          CheckSums(job);
        }
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

// Each microbatch's gradient is computed wide and rounded; so is each sum.
TEST(MicrobatchGradients, NarrowSumsAreRoundedOneAfterTheOther) {
  for (const int32_t groups : {1, 2, 4}) {
    SmallModel model;
    const ParameterTable table(model.Spec());
    const StageLayout layout{.num_layers = static_cast<int>(model.config.num_hidden_layers)};
    MemoryLedger ledger;
    StageParameters parameters({}, table, layout, ledger);
    MicrobatchGradients gradients({.sum_dtype = DType::kBFloat16,
                                   .num_microbatches = 4,
                                   .groups = groups,
                                   .reduce = GradReduce::kStep},
                                  parameters, table, layout, ledger);
    const StageParameter& p = parameters.Of(table.OfUnit(1).front());
    const int accumulator = gradients.AddAccumulator(p.first_element, p.spec->num_elements());
    const auto value = [](int32_t m, int64_t e) {
      return 1.0F + 0.37F * static_cast<float>((m * 7 + e * 3) % 11);
    };
    const int portion = *gradients.PortionOf(1, GradientMoment::kWeight);
    for (int32_t m = 0; m < 4; ++m) {
      gradients.Open({.num_threads = 3}, portion, m);
      const TensorView target = gradients.Target({}, accumulator, m);
      for (int64_t e = 0; e < target.num_elements(); ++e) target.as<float>()[e] = value(m, e);
      const auto bucket = gradients.Close({.num_threads = 3}, portion, m);
      for (size_t part = 0; part < bucket->parts.size(); ++part) gradients.Add({}, bucket, part);
    }
    gradients.Finish({});
    const TensorView sum = gradients.Sum(p.first_element, p.spec->num_elements());
    ASSERT_EQ(sum.dtype(), DType::kBFloat16);
    for (int64_t e = 0; e < sum.num_elements(); ++e) {
      bfloat16 total{};
      bfloat16 group{};
      for (int32_t m = 0; m < 4; ++m) {
        group = bfloat16(static_cast<float>(group) + static_cast<float>(bfloat16(value(m, e))));
        if ((m + 1) % (4 / groups) != 0) continue;
        total = bfloat16(static_cast<float>(total) + static_cast<float>(group));
        group = bfloat16{};
      }
      ASSERT_EQ(static_cast<float>(sum.as<bfloat16>()[e]), static_cast<float>(total)) << e;
    }
  }
}

TEST(MicrobatchGradients, KeepAShardAndOneBucket) {
  SmallModel model;
  model.config.hidden_size = 64;
  model.batch.num_microbatches = model.batch.gradient_groups = 2;
  Job job(model, 2);
  job.Run();
  int64_t owned = 0;
  for (auto& member : job.members) owned += member->Bytes(MemoryTag::kGrads);
  const int64_t largest = BucketElements(job.table, job.layout, model.halves, job.place);
  EXPECT_EQ(owned, job.members[0]->parameters.num_elements() * 4);
  EXPECT_EQ(job.members[0]->Bytes(MemoryTag::kComm), largest * 4);
}

}  // namespace
}  // namespace troupe

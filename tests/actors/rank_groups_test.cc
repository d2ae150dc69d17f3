#include "actors/rank_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "kernels/tensor_view.h"
#include "tests/support/answering_stage.h"
#include "tests/support/idle_stage.h"
#include "tests/support/in_process_job.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

// A stage whose every action brings the ranks' places together, as the methods do that exchange
// keys or heads all at once.
class GatheringStage : public testing::AnsweringStage<GatheringStage> {
 public:
  GatheringStage(const RankPlace& place, StageId stage)
      : AnsweringStage(place, stage), scope_(place.stream) {}

  using AnsweringStage::On;
  Status On(const RunAction& run) {
    auto answer = std::make_shared<ActionDone>(AnswerTo(run));
    const int lane = run.action.kind == ActionKind::kForward ? 0 : 1;
    place().stream.LaunchTask(scope_, GatherPlaces(*place().groups.OfLane(lane)),
                              [this, answer](const WorkTime&, Status status) {
                                answer->status = std::move(status);
                                (void)executor().Send(std::move(*answer));
                              });
    return {};
  }
  Status On(CollectVote collect) {  // one of those with the same weights
    if (plan().mesh.ReplicaOf(place().rank) == 0) return AnsweringStage::On(collect);
    return executor().Send(StageVote{.stage = stage(), .round = collect.round});
  }

 private:
  Task<Status> GatherPlaces(Group& group) {
    const std::array own = {static_cast<float>(group.index())};
    std::array all = {-1.0F, -1.0F};
    constexpr auto kFloat32 = static_cast<uint8_t>(DType::kFloat32);
    CO_RETURN_IF_ERROR(
        co_await group.AllGather({kFloat32, own.data(), 1}, {kFloat32, all.data(), 2}));
    if (all != std::array{0.0F, 1.0F}) co_return MakeError(ErrorCode::kFailed, "other places");
    co_return Status{};
  }

  const StreamScope scope_;
};

// With evaluations between the steps, which the report leaves out.
TEST(RankGroups, RanksThatShareSequencesHaveAGroupForEachLane) {
  testing::InProcessJobOptions options{.num_ranks = 1, .num_microbatches = 3};
  options.config = ModelConfig{.hidden_size = 8,
                               .intermediate_size = 8,
                               .num_hidden_layers = 1,
                               .num_attention_heads = 2,
                               .num_key_value_heads = 1,
                               .head_dim = 4,
                               .vocab_size = 10};
  options.batch = BatchArithmetic{.global_batch_size = 3,
                                  .seq_len = 8,
                                  .num_microbatches = 3,
                                  .context = {.num_ranks = 2, .method = ContextMethod::kAllGather}};
  options.steps = {.steps = 4, .evaluate_every = 2, .evaluate_rounds = 1};
  std::vector<const RankGroups*> groups;
  testing::InProcessJob job(
      options,
      [&groups](const RankPlace& place, StageId stage) {
        groups.push_back(&place.groups);
        EXPECT_EQ(place.ring.ring(), nullptr);
        EXPECT_EQ(place.Sharing().groups[1], place.groups.OfLane(1));
        return place.scheduler.Spawn<GatheringStage>({}, place, stage);
      },
      [](const RankPlace& place) { return place.scheduler.Spawn<testing::IdleLoader>({}); });
  job.Run();
  EXPECT_THAT(job.errors, ElementsAre());
  ASSERT_TRUE(job.ended);
  EXPECT_EQ(job.evaluations.size(), 2u);
  for (int rank = 0; rank < 2; ++rank) {
    const RankGroups& own = *groups[static_cast<size_t>(rank)];
    ASSERT_NE(own.OfLane(0), nullptr);
    ASSERT_NE(own.OfLane(1), nullptr);
    EXPECT_NE(own.OfLane(0)->spec().id, own.OfLane(1)->spec().id);
    EXPECT_EQ(own.OfLane(0)->spec().name, "attention of Forward");
    EXPECT_THAT(own.OfLane(1)->spec().ranks, ElementsAre(Rank(0), Rank(1)));
    const proto::CommunicationReport report = job.Communication(rank);
    const auto row = std::ranges::find_if(report.rows(), [](const auto& each) {
      return each.axis() == "cp" && each.operation() == "all-gather";
    });
    ASSERT_NE(row, report.rows().end());
    EXPECT_EQ(row->measured_count(), 4 * 3 * 2) << "a Forward and a Backward a microbatch";
    EXPECT_EQ(row->measured_bytes(), 4 * 3 * 2 * 4);
  }
}

}  // namespace
}  // namespace troupe

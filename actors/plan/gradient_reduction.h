// Which stages hold copies of the same weights, and so add up their gradients before a step ends:
// those of the ranks at one place of the pipelines (dp x cp), the two uses of a tied embedding, and
// the two directions of a bidirectional pipeline. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

enum class SharedWeights : uint8_t {
  kStage,  // all of the stage's, each use by itself: ranks of other pipelines hold the same stage,
           // and of two directions its replica
  kReplica,  // all of the stage's: the other direction's stage holds the same layers
  kTied,     // the embedding, which is also the head
};

// All copies have the sum when it has ended, with equal bits. The copies of one rank are added in
// ascending order of stages first, then the ranks in the order of JobPlan::MembersOf.
struct GradientReduction {
  SharedWeights weights = SharedWeights::kTied;
  std::vector<StageId> stages{};  // of one pipeline, that hold a copy, ascending

  bool operator==(const GradientReduction&) const = default;
};

// Slots that a member of a reduction between ranks posts for each other one, and their bytes at
// most.
inline constexpr int kReductionSlots = 4;
inline constexpr int64_t kReductionBlockBytes = int64_t{256} << 10;
// By which a rank lets others of its host read its gradients in place (collective/lent_memory.h).
inline constexpr int64_t kLendingPageBytes = 4096;

// In the order in which those of one stage must happen: the sums over all pipelines and their
// directions first, or where a pipeline is alone those over its directions, then each chain's two
// uses of a tied weight. The same list on every rank: a reduction is named by its place.
std::vector<GradientReduction> GradientReductionsOf(const Schedule& schedule, bool tied,
                                                    int weight_replicas = 1);

// The ranks of a pipeline that hold a copy, ascending.
std::vector<PipelineRank> RanksOf(const Schedule& schedule, const GradientReduction& reduction);
// The copies of `rank`, ascending.
std::vector<StageId> StagesOn(const Schedule& schedule, const GradientReduction& reduction,
                              PipelineRank rank);

// The stage that votes, saves and exports the parameters of `stage`: itself, or its replica.
StageId OwnerOf(const Schedule& schedule, StageId stage);

}  // namespace troupe

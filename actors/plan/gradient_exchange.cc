#include "actors/plan/gradient_exchange.h"

namespace troupe {

std::vector<GradientExchange> GradientExchangesOf(const Schedule& schedule, bool tied) {
  std::vector<GradientExchange> exchanges;
  const int chain = schedule.StagesPerDirection();
  for (int stage = chain; stage < schedule.num_stages; ++stage) {
    exchanges.push_back(
        {SharedWeights::kReplica, OwnerOf(schedule, StageId(stage)), StageId(stage)});
  }
  if (!tied || chain == 1) return exchanges;  // both uses on one stage add up there
  for (int first = 0; first < schedule.num_stages; first += chain) {
    exchanges.push_back({SharedWeights::kTied, StageId(first), StageId(first + chain - 1)});
  }
  return exchanges;
}

StageId OwnerOf(const Schedule& schedule, StageId stage) {
  return StageId(stage.value % schedule.StagesPerDirection());
}

}  // namespace troupe

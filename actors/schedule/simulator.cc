#include "actors/schedule/simulator.h"

#include "actors/schedule/simulator_prepared.h"

namespace troupe {

Simulator::Simulator(const Schedule& schedule, const SimulateOptions& options) {
  auto prepared = std::make_unique<Prepared>(Prepared{.schedule = &schedule, .options = options});
  prepared->lists.reserve(static_cast<size_t>(schedule.num_ranks));
  if (options.slots_per_channel > 0) prepared->channels = ChannelsOf(schedule);
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    prepared->lists.emplace_back(schedule, PipelineRank(rank), options.policy,
                                 DataArrival::kAtStart, options.held_for_weight);
  }
  for (const RankList& list : prepared->lists) {
    auto& outputs = prepared->outputs.emplace_back(list.entries().size());
    auto& reads = prepared->reads.emplace_back();
    if (options.slots_per_channel > 0) {
      reads.assign(list.entries().size(), Prepared::Reads{-1, -1, -1, -1});
    }
    for (size_t i = 0; i < list.entries().size(); ++i) {
      const Action& action = list.entries()[i].action;
      prepared->has_collectives = prepared->has_collectives || IsCollective(action.kind);
      if (const auto output = OutputOf(schedule, action); output && output->crosses_ranks()) {
        const RankList& to = prepared->lists[static_cast<size_t>(output->to.value)];
        outputs[i] = {.rank = output->to.value,
                      .cell = to.CellIndex(output->to_stage, output->microbatch),
                      .bit = RankList::ArrivalBit(output->kind, output->input),
                      .channel = prepared->ChannelOf(*output)};
      }
      if (reads.empty()) continue;
      for (const Transfer& input : InputsOf(schedule, action)) {
        if (!input.crosses_ranks()) continue;
        reads[i][static_cast<size_t>(input.input)] = prepared->ChannelOf(input);
      }
    }
  }
  prepared_ = std::move(prepared);
}

Simulator::~Simulator() = default;
Simulator::Simulator(Simulator&&) noexcept = default;

Result<Simulation> Simulate(const Schedule& schedule, const CostModel& costs,
                            const SimulateOptions& options) {
  return Simulator(schedule, options).Run(ActionTimes(schedule, costs));
}

}  // namespace troupe

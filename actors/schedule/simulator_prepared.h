// What a simulator works out once for all its runs. Used by simulator.cc and simulator_run.cc
// alone.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "actors/schedule/channels.h"
#include "actors/schedule/rank_list.h"
#include "actors/schedule/simulator.h"

namespace troupe {

// Where an entry's output goes: the receiver's cell and bit.
struct OutputLink {
  int32_t rank = -1;  // -1: nothing leaves the rank
  int32_t cell = -1;
  uint8_t bit = 0;
  int32_t channel = -1;  // where slots are counted
};

struct Simulator::Prepared {
  const Schedule* schedule;
  SimulateOptions options;
  bool has_collectives = false;
  std::vector<RankList> lists{};
  std::vector<std::vector<OutputLink>> outputs{};  // [rank][entry]
  // Only where slots are counted: channels, and those whose slots an entry gives back.
  std::vector<Channel> channels{};
  using Reads = std::array<int32_t, kStageInputsMax>;  // -1: none
  std::vector<std::vector<Reads>> reads{};             // [rank][entry]

  int32_t ChannelOf(const Transfer& transfer) const {
    for (size_t i = 0; i < channels.size(); ++i) {
      const Channel& c = channels[i];
      if (c.from == transfer.from && c.to == transfer.to && c.kind == transfer.kind) {
        return static_cast<int32_t>(i);
      }
    }
    return -1;
  }
};

}  // namespace troupe

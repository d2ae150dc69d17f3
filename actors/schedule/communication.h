// Sends and receives as actions of their own, as files of other runtimes list them. Ours derives
// them from the compute actions; this is for writing and reading such files. Pure.
//   0SEND_F3 on the row of stage 0 meets 1RECV_F3 on the row of stage 1, and 1SEND_B3 meets
//   0RECV_B3: a send carries the sender's stage, a receive the receiver's. Two stages of one rank
//   hand over without either.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

// Whether lists name the end of every send (WAIT_SEND_F, WAIT_SEND_B) and of every reduction that
// they begin (WAIT_REDUCE_GRAD), as recent versions of PyTorch ask, or leave it to the runtime.
enum class Waits : uint8_t { kImplied, kListed };

// The lists with every send right after what it sends and every receive where its send happens, in
// one order of all ranks: rank by rank in turn, whatever is ready. So they run without deadlock
// even where each send waits for its receive. An overlapped pair waits here for both its inputs and
// sends at its end, as in PyTorch. Listed waits: an activation's send ends after the microbatch's
// backward on that stage, which proves that it was read, a gradient's at the end of the list, and a
// reduction's, where the schedule has no wait for it, at once.
// kInvalidSpec where the schedule is not valid or cannot run so.
Result<std::vector<std::vector<Action>>> WithCommunication(const Schedule& schedule,
                                                           Waits waits = Waits::kImplied);

// What is wrong with an action of a list that has sends and receives.
struct Misplaced {
  PipelineRank rank{};
  size_t index = 0;  // in the rank's list
  std::string why{};
};
// Whether the sends and receives in `lists` are exactly those that the compute actions need, sends
// after and receives before theirs, and each wait for a send's end, where there are any, after it.
// `schedule` gives the stages' ranks and directions only.
std::optional<Misplaced> FindMisplacedCommunication(const Schedule& schedule,
                                                    const std::vector<std::vector<Action>>& lists);

}  // namespace troupe

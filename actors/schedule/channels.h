// Channels of a schedule: the messages of one kind from one rank to another, and how many slots the
// receiver must post so that an output never waits for one. Pure.
#pragma once

#include <vector>

#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"

namespace troupe {

struct Channel {
  PipelineRank from{};
  PipelineRank to{};
  InputKind kind = InputKind::kActivation;
  int num_messages = 0;  // a step
  // Most messages that can be produced and not yet consumed at one time, whatever the speeds. A
  // message is consumed when the action that reads it is done. Counts what follows from messages
  // between the two ranks; a bound through a third rank is not used, so never too small.
  int slots = 0;
};

// Ordered by (from, to, kind). The schedule's lists must be complete (ValidateStructure). Where
// Forwards or input gradients may jump the queue, the list says nothing of when a message is read;
// the sender then bounds it: what is on its way for a microbatch is still held by the stage before.
std::vector<Channel> ChannelsOf(const Schedule& schedule, const ExecutionPolicy& policy = {});

// `channels` with as many slots as the fuller of each and of its like in `others`, and the channels
// that only `others` have: enough for either schedule.
std::vector<Channel> WithMoreSlots(std::vector<Channel> channels,
                                   const std::vector<Channel>& others);

// Most microbatches that a stage holds at one time where Forwards may jump the queue.
int HeldByStage(const Schedule& schedule, const ExecutionPolicy& policy, StageId stage);
// Whether the policy lets Forwards leave the list's order.
bool ForwardsJump(const ExecutionPolicy& policy);

// Most outputs that lie between two stages of this rank at one time.
int HandOversOn(const Schedule& schedule, const ExecutionPolicy& policy, PipelineRank rank);

// 0 where no such channel exists.
int SlotsFor(const std::vector<Channel>& channels, PipelineRank from, PipelineRank to,
             InputKind kind);

}  // namespace troupe

// Proof that a schedule can run: complete, in order, each stage on one rank, free of deadlock with
// bounded slots. Called before a job starts and on every schedule that a user wrote. Pure.
// Messages name the row and cell as in the CSV file (both from 1) and the reason in words.
#pragma once

#include <vector>

#include "actors/schedule/channels.h"
#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"

namespace troupe {

struct ValidateOptions {
  // Slots a receiver posts for each channel; 0 = as many as ChannelsOf computes.
  int slots_per_channel = 0;
  PairMode pairs = PairMode::kEager;  // a fused pair waits for all its inputs, so it may deadlock
  // Share of a microbatch's activation that BackwardInput leaves for BackwardWeight; 1 = all of it.
  double held_for_weight = 1.0;
};

struct ScheduleReport {
  // Per rank, in microbatches of the rank's whole share of the model.
  std::vector<double> peak_activations{};
  std::vector<Channel> channels{};  // slots: the bound, or slots_per_channel where that was given
  int messages_per_microbatch = 0;  // between ranks, Forward and backward together
  int parameter_replicas = 1;       // copies of each parameter that the ranks hold together
  // Every stage runs each kind in ascending microbatch order, so its gradient sums have the bits of
  // one worker's.
  bool ascending = false;
};

// Complete and in order on every rank; everything but deadlock.
Status ValidateStructure(const Schedule& schedule);
Result<ScheduleReport> Validate(const Schedule& schedule, const ValidateOptions& options = {});

}  // namespace troupe

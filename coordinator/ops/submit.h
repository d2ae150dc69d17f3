// Submit: takes a job into the queue. A submission that came before finds the same job.
//
//   at once: known already? folder free?  →  planner: can it be laid out?  →  disk: number and
//   folder  →  queued
//
// Only the first and the last are on the loop: a plan may take seconds, a disk for ever.
#pragma once

#include "coordinator/job_life.h"

namespace troupe {

void Submit(State& state, Seams seams, const NewRecorder& new_recorder,
            proto::SubmitRequest request, Answer<proto::SubmitReply> answer);

// The coordinator ends: answers every submission that is on its way.
void RefuseSubmissions(State& state);

// The number of the first job of a coordinator with this folder: no earlier one had it.
Result<uint64_t> FirstJob(FileSystem& files, const std::string& state_directory);

}  // namespace troupe

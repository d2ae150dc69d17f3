// What a rank says about itself: memory, communication, spans, digests, the machine. Used by the
// worker's root and the rank's actors.
#pragma once

#include <string>
#include <vector>

#include "actors/model/stage_parameters.h"
#include "actors/plan/communication_volume.h"
#include "actors/plan/job_plan.h"
#include "actors/plan/memory_model.h"
#include "proto/worker.pb.h"
#include "runtime/actor/wait_record.h"
#include "runtime/base/file_system.h"
#include "runtime/memory/buffer.h"
#include "runtime/memory/memory_course.h"

namespace troupe {

// Measured beside predicted, by tag; `other` = resident memory minus all tags.
proto::MemoryReport ReportMemory(const MemoryLedger& ledger, const MemoryPrediction& predicted,
                                 int64_t step);
// How it went through one step, beside the predicted peak.
proto::StepMemory ReportStepMemory(int64_t step, const MemoryCourse& course,
                                   const MemoryPrediction& predicted);
// What `steps` training steps sent beside what the plan says of one.
proto::CommunicationReport ReportCommunication(const std::vector<CommunicationVolume>& predicted,
                                               const std::vector<CommunicationVolume>& sent,
                                               int64_t steps);
// What the plan says of the attention of one step, beside what was measured.
void AddPredictedAttention(const JobPlan& plan, Rank rank,
                           proto::CommunicationReport::Attention& report);
// Everything traced since the last call, but the handlers' own spans. Empty where nothing was.
proto::SpanBatch ReportSpans();
proto::Waits ReportWaits(const WaitBoard& waits, const Clock& clock);

// xxh64 of the master of each parameter that the rank's stages own, by its index in the table.
void AddParameterDigests(const std::vector<const StageParameters*>& stages,
                         proto::Finished& finished);
// What this machine is (CPU, build, memory), and how fast its device computes the job's products
// and, where the job's schedule or partition hangs on them, the parts of its model.
Status MeasureDevice(FileSystem& files, const proto::JobSpec& spec, const Clock& clock,
                     proto::Hello& hello);
// Of the running program's file: ranks of one job must agree.
std::string BuildId();
std::string CpuName();  // model and vector instructions

}  // namespace troupe

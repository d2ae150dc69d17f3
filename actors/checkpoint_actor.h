// CheckpointActor: writes its rank's share of a checkpoint when the schedule actor asks for one.
//   Takes:  CheckpointStart (through the executor)
//   Sends:  CheckpointDone -> schedule
//   Thread: the rank's actor thread; the writing is a task of the compute stream, which is idle
//   between steps.
//
//   I1. CheckpointDone without an error means that the rank's files are durable.
//   I2. Weights that are in shards are gathered for an export row by row, one at a time.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "actors/checkpoint_store.h"
#include "actors/messages.h"
#include "actors/model/row_source.h"
#include "actors/model/stage_parameters.h"
#include "actors/plan/trace_window.h"
#include "actors/state_readers.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"
#include "runtime/actor/stream.h"
#include "runtime/base/file_system.h"

namespace troupe {

struct CheckpointOptions {
  Rank rank{};
  int num_ranks = 1;
  PipelineRank place{};  // of the rank, and of how many: an exported model's files are by place
  int num_places = 1;
  bool exports = true;
  DType dtype = DType::kFloat32;  // of the job: what an exported model is saved in
  TraceWindow trace{};            // the steps whose checkpoints leave a span
};

// A stage's parameters, and where the whole of its rows comes from; null where it is here.
struct SavedStage {
  const StageParameters* parameters = nullptr;
  RowSource* rows = nullptr;
};

class CheckpointActor : public Actor<CheckpointActor, proto::CheckpointStart> {
 public:
  // All that is referred to outlives the actor, and so does what the rank's stages point to. Shards
  // are written on `disk`, beside the steps; a model is exported on `compute`, for it may have to
  // be gathered first.
  CheckpointActor(CheckpointOptions options, FileSystem& files, std::vector<SavedStage> stages,
                  MemoryLedger& ledger, Stream& compute, Stream& disk, StateReaders& readers,
                  Ref<proto::CheckpointDone> schedule);

  Status On(proto::CheckpointStart start);

 private:
  // Calls `end_reading` on the scheduler's thread when it reads nothing more of the stages and goes
  // on.
  Task<Status> Write(proto::CheckpointStart start, proto::CheckpointDone& done,
                     std::function<void()> end_reading) const;
  Task<Status> Export(const std::string& folder) const;
  Task<Status> ExportRow(const SavedStage& stage, int row, HfShardWriter& writer) const;
  std::vector<const StageParameters*> Parameters() const;
  void Trace(int64_t step, const WorkTime& time) const;

  const CheckpointOptions options_;
  FileSystem& files_;
  const std::vector<SavedStage> stages_;
  MemoryLedger& ledger_;
  Stream& compute_;
  Stream& disk_;
  StateReaders& readers_;
  const StreamScope compute_scope_{compute_};
  const StreamScope disk_scope_{disk_};
  const Ref<proto::CheckpointDone> schedule_;
};

}  // namespace troupe

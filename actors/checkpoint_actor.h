// CheckpointActor: writes its rank's share of a checkpoint when the schedule actor asks for one.
//   Takes:  CheckpointStart (through the executor)
//   Sends:  CheckpointDone -> schedule
//   Thread: the rank's actor thread; the writing on the compute stream, which is idle between
//   steps.
//
//   I1. CheckpointDone without an error means that the rank's files are durable.
#pragma once

#include <vector>

#include "actors/messages.h"
#include "actors/model/stage_parameters.h"
#include "actors/plan/trace_window.h"
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

class CheckpointActor : public Actor<CheckpointActor, proto::CheckpointStart> {
 public:
  // Files, stream and the parameters of the rank's stages outlive the actor.
  CheckpointActor(CheckpointOptions options, FileSystem& files,
                  std::vector<const StageParameters*> stages, Stream& stream,
                  Ref<proto::CheckpointDone> schedule);

  Status On(proto::CheckpointStart start);

 private:
  proto::CheckpointDone Write(const proto::CheckpointStart& start) const;
  void Trace(int64_t step, const WorkTime& time) const;

  const CheckpointOptions options_;
  FileSystem& files_;
  const std::vector<const StageParameters*> stages_;
  Stream& stream_;
  const Ref<proto::CheckpointDone> schedule_;
};

}  // namespace troupe

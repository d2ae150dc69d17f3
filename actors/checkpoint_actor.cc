#include "actors/checkpoint_actor.h"

#include <memory>
#include <utility>

#include "actors/checkpoint_store.h"

namespace troupe {

CheckpointActor::CheckpointActor(CheckpointOptions options, FileSystem& files,
                                 std::vector<const StageParameters*> stages, Stream& stream,
                                 Ref<proto::CheckpointDone> schedule)
    : options_(options),
      files_(files),
      stages_(std::move(stages)),
      stream_(stream),
      schedule_(schedule) {}

Status CheckpointActor::On(proto::CheckpointStart start) {
  auto done = std::make_shared<proto::CheckpointDone>();
  stream_.Launch([this, done, start = std::move(start)] { *done = Write(start); },
                 [this, done](const WorkTime&) { (void)schedule_.Send(*done); });
  return {};
}

proto::CheckpointDone CheckpointActor::Write(const proto::CheckpointStart& start) const {
  proto::CheckpointDone done;
  done.set_step(start.step());
  done.set_rank(options_.rank.value);
  const auto fail = [&done](const Error& error) {
    done.set_error(error.message);
    done.set_error_code(static_cast<int>(error.code));
    return done;
  };
  if (start.directory().empty()) {
    NameOwnedTensors(stages_, done);
  } else {
    const Status written = WriteCheckpointShard(files_, start.directory(), options_.rank.value,
                                                options_.num_ranks, stages_, done);
    if (!written.ok()) return fail(written.error());
  }
  if (start.hf_directory().empty()) return done;
  const Status exported = WriteHfShard(files_, start.hf_directory(), options_.rank.value,
                                       options_.num_ranks, options_.dtype, stages_);
  return exported.ok() ? done : fail(exported.error());
}

}  // namespace troupe

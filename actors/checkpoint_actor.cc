#include "actors/checkpoint_actor.h"

#include <memory>
#include <utility>

#include "actors/checkpoint_store.h"
#include "runtime/trace/span.h"

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
                 [this, done](const WorkTime& time) {
                   Trace(done->step(), time);
                   (void)schedule_.Send(*done);
                 });
  return {};
}

void CheckpointActor::Trace(int64_t step, const WorkTime& time) const {
  if (!options_.trace.Covers(step)) return;
  static const uint32_t name = InternTraceName("checkpoint");
  static const uint32_t track = InternTraceName("step");
  SpanRecord record;
  record.name = name;
  record.category = SpanCategory::kIo;
  record.track = track;
  record.rank = options_.rank.value;
  record.step = static_cast<int32_t>(step);
  record.start_ns = time.start_ns;
  record.end_ns = time.end_ns;
  record.cpu_ns = time.cpu_ns;
  ThreadTraceRing().Write(record);
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
  if (!start.directory().empty()) {
    const Status written = WriteCheckpointShard(files_, start.directory(), options_.rank.value,
                                                options_.num_ranks, stages_, done);
    if (!written.ok()) return fail(written.error());
  }
  if (start.hf_directory().empty() || !options_.exports) return done;
  const Status exported = WriteHfShard(files_, start.hf_directory(), options_.place,
                                       options_.num_places, options_.dtype, stages_);
  return exported.ok() ? done : fail(exported.error());
}

}  // namespace troupe

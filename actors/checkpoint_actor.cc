#include "actors/checkpoint_actor.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "runtime/trace/span.h"

namespace troupe {

CheckpointActor::CheckpointActor(CheckpointOptions options, FileSystem& files,
                                 std::vector<SavedStage> stages, MemoryLedger& ledger,
                                 Stream& compute, Stream& disk, StateReaders& readers,
                                 Ref<proto::CheckpointDone> schedule)
    : options_(options),
      files_(files),
      stages_(std::move(stages)),
      ledger_(ledger),
      compute_(compute),
      disk_(disk),
      readers_(readers),
      schedule_(schedule) {}

Status CheckpointActor::On(proto::CheckpointStart start) {
  auto done = std::make_shared<proto::CheckpointDone>();
  done->set_step(start.step());
  done->set_rank(options_.rank.value);
  const bool exports = !start.hf_directory().empty() && options_.exports;
  Stream& stream = exports ? compute_ : disk_;
  readers_.Begin(start.step());
  auto reads = std::make_shared<bool>(true);
  const auto end_reading = [this, reads] {
    if (std::exchange(*reads, false)) readers_.End();
  };
  stream.LaunchTask(exports ? compute_scope_ : disk_scope_,
                    Write(std::move(start), *done, end_reading),
                    [this, done, end_reading](const WorkTime& time, const Status& status) {
                      end_reading();
                      if (!status.ok()) {
                        done->set_error(status.error().message);
                        done->set_error_code(static_cast<int>(status.error().code));
                      }
                      Trace(done->step(), time);
                      (void)schedule_.Send(*done);
                    });
  return {};
}

void CheckpointActor::Trace(int64_t step, const WorkTime& time) const {
  if (!options_.trace.Covers(step)) return;
  static const uint32_t name = InternTraceName("checkpoint");
  SpanRecord record;
  record.name = name;
  record.category = SpanCategory::kIo;
  record.rank = options_.rank.value;
  record.step = static_cast<int32_t>(step);
  record.start_ns = time.start_ns;
  record.end_ns = time.end_ns;
  record.cpu_ns = time.cpu_ns;
  ThreadTraceRing().Write(record);
}

std::vector<const StageParameters*> CheckpointActor::Parameters() const {
  std::vector<const StageParameters*> parameters;
  for (const SavedStage& stage : stages_) parameters.push_back(stage.parameters);
  return parameters;
}

Task<Status> CheckpointActor::Write(proto::CheckpointStart start, proto::CheckpointDone& done,
                                    std::function<void()> end_reading) const {
  const bool exports = !start.hf_directory().empty() && options_.exports;
  if (!start.directory().empty()) {
    CO_ASSIGN_OR_RETURN(UnsyncedFiles shard,
                        WriteCheckpointShard(files_, start.directory(), options_.rank.value,
                                             options_.num_ranks, Parameters(), done));
    // The disk may take longer than a step; an update need not wait for that.
    if (!exports) co_await OnScheduler(end_reading);
    CO_RETURN_IF_ERROR(shard.Sync());
  }
  if (!exports) co_return Status{};
  co_return co_await Export(start.hf_directory());
}

Task<Status> CheckpointActor::Export(const std::string& folder) const {
  const std::vector<const StageParameters*> parameters = Parameters();
  CO_ASSIGN_OR_RETURN(HfShardWriter writer,
                      HfShardWriter::Create(files_, folder, options_.place, options_.num_places,
                                            options_.dtype, parameters));
  for (const SavedStage& stage : stages_) {
    const auto num_rows = static_cast<int>(stage.parameters->rows().size());
    for (int row = 0; row < num_rows; ++row) {
      CO_RETURN_IF_ERROR(co_await ExportRow(stage, row, writer));
    }
  }
  co_return writer.Finish();
}

Task<Status> CheckpointActor::ExportRow(const SavedStage& stage, int row,
                                        HfShardWriter& writer) const {
  const StageParameters& parameters = *stage.parameters;
  const ShardRow& shards = parameters.rows()[static_cast<size_t>(row)];
  const auto exported = [&](int index) { return parameters.Of(index).exported; };
  if (std::ranges::none_of(shards.parameters, exported)) co_return Status{};
  Buffer whole;  // of the row
  const bool gathers = stage.rows != nullptr && !shards.persists;
  if (gathers) {
    whole = Buffer::Unfilled(ledger_, MemoryTag::kComm,
                             shards.num_elements * DTypeBytes(options_.dtype));
    RowArrival arrival;
    co_await OnScheduler([&] { stage.rows->Gather(row, whole.bytes(), arrival); });
    co_await arrival.here;
    CO_RETURN_IF_ERROR(arrival.status);
  }
  int64_t first = 0;  // of the parameter in the row
  for (const int index : shards.parameters) {
    const StageParameter& p = parameters.Of(index);
    TensorView weights = ExportedWeights(p, options_.dtype);
    if (gathers) {
      weights = Shaped(whole.data() + first * DTypeBytes(options_.dtype), options_.dtype, *p.spec);
    }
    first += p.spec->num_elements();
    if (p.exported) CO_RETURN_IF_ERROR(writer.Append(weights));
  }
  co_return Status{};
}

}  // namespace troupe

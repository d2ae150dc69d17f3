#include "actors/data_loader_actor.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/cross_entropy.h"

namespace troupe {

static_assert(kNoLabel == kIgnoredLabel);

DataLoaderActor::DataLoaderActor(DataLoaderOptions options, std::optional<TokenSource> source,
                                 Stream& stream)
    : options_(options),
      positions_(PositionsOfSequences(options.batch, options.context_rank)),
      source_(std::move(source)),
      stream_(stream) {
  CHECK(source_ || !options_.fields.any_of_file(), "tokens are read, but of no file");
}

Status DataLoaderActor::On(MeetExecutor meet) {
  executor_ = meet.executor;
  return {};
}

Status DataLoaderActor::On(FetchMicrobatches fetch) {
  auto ready = std::make_shared<MicrobatchesReady>(MicrobatchesReady{.round = fetch.round});
  stream_.Launch(
      [this, fetch = std::move(fetch), ready] { ready->status = Make(fetch, ready->microbatches); },
      [this, ready](const WorkTime&) { (void)executor_.Send(std::move(*ready)); });
  return {};
}

Status DataLoaderActor::Make(const FetchMicrobatches& fetch,
                             std::vector<SharedMicrobatch>& microbatches) {
  const BatchArithmetic& batch = options_.batch;
  const bool samples = fetch.mode == proto::STEP_MODE_SAMPLE;
  const bool reads = source_ && !samples;
  std::vector<int32_t> rows(static_cast<size_t>(batch.micro_batch_size * (batch.seq_len + 1)));
  for (int32_t m = 0; m < fetch.num_microbatches; ++m) {
    if (samples) RETURN_IF_ERROR(WriteRows(fetch.text, rows));
    if (reads) {
      const int64_t number = batch.NumberInStep(options_.data_parallel_rank, m);
      const int64_t first = fetch.first_sample + number * batch.micro_batch_size;
      if (Status read = ReadRows(fetch.mode, first, rows); !read.ok()) {
        RETURN_IF_ERROR(source_->file.CheckUnchanged());  // says more, where that is the cause
        return read;
      }
    }
    microbatches.push_back(std::make_shared<const Microbatch>(
        MicrobatchOf(rows, batch, options_.fields, positions_, options_.special)));
  }
  return reads ? source_->file.CheckUnchanged() : Status{};
}

Status DataLoaderActor::ReadRows(proto::StepMode mode, int64_t first, std::vector<int32_t>& rows) {
  const int64_t seq_len = options_.batch.seq_len;
  for (int64_t i = 0; i < options_.batch.micro_batch_size; ++i) {
    const int64_t sample = mode == proto::STEP_MODE_TRAIN ? source_->order.TrainSample(first + i)
                                                          : source_->order.ValSample(first + i);
    int32_t* row = rows.data() + i * (seq_len + 1);
    RETURN_IF_ERROR(source_->file.Read(sample * seq_len, seq_len + 1, row));
  }
  return {};
}

Status DataLoaderActor::WriteRows(std::span<const int32_t> text, std::vector<int32_t>& rows) const {
  if (text.empty() || std::ssize(text) > options_.batch.seq_len) {
    return MakeError(ErrorCode::kFailed, "{} tokens in a context of {}", text.size(),
                     options_.batch.seq_len);
  }
  std::ranges::copy(text, rows.begin());
  return {};
}

}  // namespace troupe

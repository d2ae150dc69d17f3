#include "actors/data_loader_actor.h"

#include <memory>
#include <vector>

namespace troupe {

DataLoaderActor::DataLoaderActor(DataLoaderOptions options, TokenFile file, DataOrder order,
                                 Stream& stream)
    : options_(options), file_(std::move(file)), order_(std::move(order)), stream_(stream) {}

Status DataLoaderActor::On(MeetExecutor meet) {
  executor_ = meet.executor;
  return {};
}

Status DataLoaderActor::On(FetchTokens fetch) {
  auto ready = std::make_shared<TokensReady>(TokensReady{.round = fetch.round});
  stream_.Launch(
      [this, fetch, ready] {
        for (int32_t m = 0; m < fetch.num_microbatches; ++m) {
          ready->blocks.push_back(
              Block(fetch.mode, fetch.first_sample + m * options_.micro_batch_size));
        }
      },
      [this, ready](const WorkTime&) { (void)executor_.Send(std::move(*ready)); });
  return {};
}

TokenBlock DataLoaderActor::Block(proto::StepMode mode, int64_t first) {
  const int64_t row = options_.seq_len + 1;
  auto block =
      std::make_shared<std::vector<int32_t>>(static_cast<size_t>(options_.micro_batch_size * row));
  for (int64_t i = 0; i < options_.micro_batch_size; ++i) {
    const int64_t sample = mode == proto::STEP_MODE_TRAIN ? order_.TrainSample(first + i)
                                                          : order_.ValSample(first + i);
    file_.Read(sample * options_.seq_len, row, block->data() + i * row);
  }
  return block;
}

}  // namespace troupe

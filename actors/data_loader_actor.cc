#include "actors/data_loader_actor.h"

#include <memory>

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
  stream_.Launch([this, fetch, ready] { ready->status = Read(fetch, ready->blocks); },
                 [this, ready](const WorkTime&) { (void)executor_.Send(std::move(*ready)); });
  return {};
}

Status DataLoaderActor::Read(const FetchTokens& fetch, std::vector<TokenBlock>& blocks) {
  for (int32_t m = 0; m < fetch.num_microbatches; ++m) {
    auto block = Block(fetch.mode, fetch.first_sample + m * options_.micro_batch_size);
    if (!block.ok()) {
      RETURN_IF_ERROR(file_.CheckUnchanged());  // says more, where that is the cause
      return std::move(block).error();
    }
    blocks.push_back(*std::move(block));
  }
  return file_.CheckUnchanged();
}

Result<TokenBlock> DataLoaderActor::Block(proto::StepMode mode, int64_t first) {
  const int64_t row = options_.seq_len + 1;
  auto block =
      std::make_shared<std::vector<int32_t>>(static_cast<size_t>(options_.micro_batch_size * row));
  for (int64_t i = 0; i < options_.micro_batch_size; ++i) {
    const int64_t sample = mode == proto::STEP_MODE_TRAIN ? order_.TrainSample(first + i)
                                                          : order_.ValSample(first + i);
    RETURN_IF_ERROR(file_.Read(sample * options_.seq_len, row, block->data() + i * row));
  }
  return TokenBlock(std::move(block));
}

}  // namespace troupe

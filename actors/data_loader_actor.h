// DataLoaderActor: turns sample numbers into token blocks. Ranks with the embedding or the head
// each have one over the same file, so tokens never travel.
//   Takes:  MeetExecutor (the root), FetchTokens (executor)
//   Sends:  TokensReady -> executor, one a round
//   Thread: the rank's actor thread; the reading, which may wait for a disk, and the shuffling of
//   an epoch on the compute stream, ahead of the actions that need the tokens.
//
//   I1. Sample numbers alone decide the tokens: no state survives a round.
#pragma once

#include <utility>
#include <vector>

#include "actors/messages.h"
#include "actors/plan/data_order.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/stream.h"
#include "runtime/format/token_file.h"

namespace troupe {

struct DataLoaderOptions {
  int64_t micro_batch_size = 1;  // sequences
  int64_t seq_len = 0;           // tokens
};

class DataLoaderActor : public Actor<DataLoaderActor, MeetExecutor, FetchTokens> {
 public:
  // The stream outlives the actor's last fetch.
  DataLoaderActor(DataLoaderOptions options, TokenFile file, DataOrder order, Stream& stream);

  Status On(MeetExecutor meet);
  Status On(FetchTokens fetch);

 private:
  // Fills the round's blocks; fails where the file can no longer be read, or changes meanwhile.
  Status Read(const FetchTokens& fetch, std::vector<TokenBlock>& blocks);
  // Tokens of `micro_batch_size` samples from global number `first`: rows of seq_len + 1.
  Result<TokenBlock> Block(proto::StepMode mode, int64_t first);

  const DataLoaderOptions options_;
  TokenFile file_;  // the stream's, as is the next
  DataOrder order_;
  Stream& stream_;
  ExecutorAnswers executor_{};
};

}  // namespace troupe

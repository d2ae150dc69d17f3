// DataLoaderActor: turns sample numbers into the microbatches of a round: of each token what any
// stage of its rank reads. Every rank has one; those with the embedding or the head, and all of
// them where attention stays within documents, read the same file, so tokens never travel.
//   Takes:  MeetExecutor (the root), FetchMicrobatches (executor)
//   Sends:  MicrobatchesReady -> executor, one a round
//   Thread: the rank's actor thread; the reading, which may wait for a disk, and the shuffling of
//   an epoch on the compute stream, ahead of the actions that need the tokens.
//
//   I1. Sample numbers alone decide the microbatches: no state survives a round.
//   I2. Ranks that share sequences (cp) read the same samples, and each takes its positions: labels
//       are what follows in the sequence, whoever has that.
//   I3. A label that does not count leaves here as kNoLabel; as an input its token stays.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "actors/messages.h"
#include "actors/token_source.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/stream.h"

namespace troupe {

struct DataLoaderOptions {
  BatchArithmetic batch{};
  int data_parallel_rank = 0;
  int context_rank = 0;       // along cp
  MicrobatchFields fields{};  // what comes of the file only where there is a source
  SpecialTokens special{};
};

class DataLoaderActor : public Actor<DataLoaderActor, MeetExecutor, FetchMicrobatches> {
 public:
  // The stream outlives the actor's last fetch.
  DataLoaderActor(DataLoaderOptions options, std::optional<TokenSource> source, Stream& stream);

  Status On(MeetExecutor meet);
  Status On(FetchMicrobatches fetch);

 private:
  // Fills in the round's microbatches; fails where the file can no longer be read, or changes
  // meanwhile.
  Status Make(const FetchMicrobatches& fetch, std::vector<SharedMicrobatch>& microbatches);
  // micro_batch_size samples from global number `first`: rows of seq_len + 1.
  Status ReadRows(proto::StepMode mode, int64_t first, std::vector<int32_t>& rows);
  // One microbatch whose first sequence begins with the text, which all ranks along cp are given.
  Status WriteRows(std::span<const int32_t> text, std::vector<int32_t>& rows) const;

  const DataLoaderOptions options_;
  const TokenPositions positions_;     // of every microbatch
  std::optional<TokenSource> source_;  // the stream's
  Stream& stream_;
  ExecutorAnswers executor_{};
};

}  // namespace troupe

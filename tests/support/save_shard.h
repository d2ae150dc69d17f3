// SaveShard: a rank's part of a checkpoint, durable on return.
#pragma once

#include <string>
#include <vector>

#include "actors/checkpoint_store.h"

namespace troupe::testing {

inline Status SaveShard(FileSystem& files, const std::string& folder, int rank, int num_ranks,
                        const std::vector<const StageParameters*>& stages,
                        proto::CheckpointDone& written) {
  ASSIGN_OR_RETURN(UnsyncedFiles shard,
                   WriteCheckpointShard(files, folder, rank, num_ranks, stages, written));
  return shard.Sync();
}

}  // namespace troupe::testing

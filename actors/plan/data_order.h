// Which sample comes when. Sample i is tokens [i·seq_len, (i+1)·seq_len], its labels the same
// shifted by one; a file of T tokens has (T-1)/seq_len of them, the last val_fraction of which are
// for validation. An epoch visits every training sample once, permuted by (seed, epoch) or in plain
// order. Global sample numbers count through all epochs: a step takes the next global_batch_size of
// them, across an epoch's end too.
// Thread: one. Keeps the permutation of the epoch asked for last.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/result.h"

namespace troupe {

struct DataOrderSpec {
  int64_t num_samples = 0;  // of the file
  double val_fraction = 0;
  bool validates = false;  // ValSample will be asked for
  bool shuffle = true;
  uint64_t seed = 0;
};

class DataOrder {
 public:
  // Refuses a fraction outside [0, 1) and a file that leaves no sample to train on, or none to
  // validate on where the job does.
  static Result<DataOrder> Make(const DataOrderSpec& spec);

  int64_t num_train_samples() const { return num_train_; }
  int64_t num_val_samples() const { return num_samples_ - num_train_; }

  // Sample index in the file of a global sample number >= 0.
  int64_t TrainSample(int64_t number);
  // Of a validation sample number; wraps around. There must be one.
  int64_t ValSample(int64_t number) const;

 private:
  int64_t num_samples_ = 0;
  int64_t num_train_ = 0;
  bool shuffle_ = true;
  uint64_t seed_ = 0;
  int64_t epoch_ = -1;
  std::vector<int64_t> permutation_{};
};

}  // namespace troupe

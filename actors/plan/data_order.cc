#include "actors/plan/data_order.h"

#include <fmt/format.h>

#include <cmath>

#include "runtime/base/check.h"
#include "runtime/base/random.h"

namespace troupe {
namespace {

// To two digits, as a person would write it.
double RoundedUp(double fraction) {
  const double unit = std::pow(10, std::floor(std::log10(fraction)) - 1);
  constexpr double kOfTheLastBit = 1e-9;
  return std::ceil(fraction / unit - kOfTheLastBit) * unit;
}

}  // namespace

Result<DataOrder> DataOrder::Make(const DataOrderSpec& spec) {
  if (!(spec.val_fraction >= 0) || spec.val_fraction >= 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "data.val_fraction = {}: use 0 to below 1 (the share of the file's tail)",
                     spec.val_fraction);
  }
  DataOrder order;
  order.num_samples_ = spec.num_samples;
  order.num_train_ =
      spec.num_samples -
      static_cast<int64_t>(std::floor(spec.val_fraction * static_cast<double>(spec.num_samples)));
  if (order.num_train_ < 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "data.train has {} samples and none is left to train on: use a longer file or "
                     "a shorter batch.seq_len",
                     spec.num_samples);
  }
  if (spec.validates && order.num_val_samples() < 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "data.val_fraction = {} of {} samples leaves none to evaluate on: use "
                     "{:.2g} or more",
                     spec.val_fraction, spec.num_samples,
                     RoundedUp(1.0 / static_cast<double>(spec.num_samples)));
  }
  order.shuffle_ = spec.shuffle;
  order.seed_ = spec.seed;
  return order;
}

int64_t DataOrder::TrainSample(int64_t number) {
  const int64_t epoch = number / num_train_;
  const int64_t position = number % num_train_;
  if (!shuffle_) return position;
  if (epoch != epoch_) {
    permutation_ =
        Permutation(RandomKey(seed_, fmt::format("data order, epoch {}", epoch)), num_train_);
    epoch_ = epoch;
  }
  return permutation_[static_cast<size_t>(position)];
}

int64_t DataOrder::ValSample(int64_t number) const {
  CHECK(num_val_samples() > 0, "no sample is set aside for validation");
  return num_train_ + number % num_val_samples();
}

}  // namespace troupe

#include "actors/plan/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

namespace troupe {

int32_t DefaultDecaySteps(const proto::JobSpec& spec) {
  return std::max(spec.train().steps(), spec.lr_scheduler().warmup_steps());
}

LearningRate LearningRate::Read(const proto::JobSpec& spec, std::vector<Error>& errors) {
  const auto refuse = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
    errors.push_back(MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...));
  };
  LearningRate rate;
  rate.lr_ = spec.optimizer().lr();
  const bool lr_good = rate.lr_ > 0 && std::isfinite(rate.lr_);
  if (!lr_good) refuse("optimizer.lr = {}: use a positive number, as 3e-4", rate.lr_);
  const proto::LrScheduler& scheduler = spec.lr_scheduler();
  const std::string name = scheduler.has_name() ? scheduler.name() : "constant";
  if (name == "constant") {
    rate.shape_ = Shape::kConstant;
  } else if (name == "linear") {
    rate.shape_ = Shape::kLinear;
  } else if (name == "cosine") {
    rate.shape_ = Shape::kCosine;
  } else {
    refuse("lr_scheduler.name = {}: use constant, linear or cosine", name);
  }
  rate.min_lr_ = scheduler.min_lr();
  if (!(rate.min_lr_ >= 0) || (lr_good && rate.min_lr_ > rate.lr_)) {
    refuse("lr_scheduler.min_lr = {}: use 0 to optimizer.lr = {}", rate.min_lr_, rate.lr_);
  }
  rate.warmup_steps_ = scheduler.warmup_steps();
  rate.decay_steps_ =
      scheduler.has_decay_steps() ? scheduler.decay_steps() : DefaultDecaySteps(spec);
  if (rate.warmup_steps_ < 0) {
    refuse("lr_scheduler.warmup_steps = {}: use 0 or more", rate.warmup_steps_);
  } else if (rate.shape_ != Shape::kConstant && rate.decay_steps_ < rate.warmup_steps_) {
    refuse(
        "lr_scheduler.decay_steps = {} is below lr_scheduler.warmup_steps = {}: the decay begins "
        "where the warm-up ends; use {} or more",
        rate.decay_steps_, rate.warmup_steps_, rate.warmup_steps_);
  }
  return rate;
}

Result<LearningRate> LearningRate::FromSpec(const proto::JobSpec& spec) {
  std::vector<Error> errors;
  const LearningRate rate = Read(spec, errors);
  if (!errors.empty()) return std::move(errors.front());
  return rate;
}

double LearningRate::At(int64_t step) const {
  if (step <= warmup_steps_) {
    return lr_ * static_cast<double>(step) / static_cast<double>(warmup_steps_);
  }
  if (shape_ == Shape::kConstant) return lr_;
  const int64_t length = decay_steps_ - warmup_steps_;
  const double t =
      length <= 0
          ? 1.0
          : std::min(1.0, static_cast<double>(step - warmup_steps_) / static_cast<double>(length));
  if (shape_ == Shape::kLinear) return lr_ + (min_lr_ - lr_) * t;
  return min_lr_ + (lr_ - min_lr_) * 0.5 * (1 + std::cos(std::numbers::pi * t));
}

}  // namespace troupe

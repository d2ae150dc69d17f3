#include "runtime/memory/memory_course.h"

namespace troupe {

void MemoryCourse::Add(const MemorySample& sample) {
  latest_ = sample;
  if (samples_.size() > 1 && in_newest_ < stride_) {
    ++in_newest_;
    if (sample.used() > samples_.back().used()) samples_.back() = sample;
    return;
  }
  if (samples_.size() + 1 == kSamplesMax) Halve();  // the end has a place of its own
  samples_.push_back(sample);
  in_newest_ = 1;
}

void MemoryCourse::Halve() {
  size_t kept = 1;
  for (size_t i = 1; i < samples_.size(); i += 2) {
    const size_t second = i + 1 < samples_.size() ? i + 1 : i;
    samples_[kept++] =
        samples_[i].used() >= samples_[second].used() ? samples_[i] : samples_[second];
  }
  samples_.resize(kept);
  stride_ *= 2;
}

std::vector<MemorySample> MemoryCourse::Samples() const {
  std::vector<MemorySample> samples = samples_;
  if (samples.empty()) return samples;
  if (latest_.time_ns != samples.back().time_ns ||
      latest_.used_bytes != samples.back().used_bytes) {
    samples.push_back(latest_);
  }
  return samples;
}

}  // namespace troupe

#include "actors/schedule/list_writer.h"

#include <algorithm>

namespace troupe {

void ListWriter::Append(StageId stage, ActionKind kind, int& count, int32_t pair) {
  const int microbatch = schedule_.FirstMicrobatch(stage).value + count++;
  actions_.push_back(
      {.stage = stage, .kind = kind, .pair = pair, .microbatch = MicrobatchId(microbatch)});
}

void ListWriter::Forward(StageId stage) {
  Append(stage, ActionKind::kForward, written_[stage].forwards);
}

void ListWriter::Backward(StageId stage) {
  Append(stage, ActionKind::kBackward, written_[stage].backwards);
  ++written_[stage].weights;
}

void ListWriter::BackwardInput(StageId stage) {
  Append(stage, ActionKind::kBackwardInput, written_[stage].backwards);
  owed_.push_back(stage);
}

void ListWriter::Pair(StageId forward, StageId backward) {
  Append(forward, ActionKind::kForward, written_[forward].forwards, next_pair_);
  Append(backward, ActionKind::kBackward, written_[backward].backwards, next_pair_);
  ++written_[backward].weights;
  ++next_pair_;
}

void ListWriter::BackwardWeight(StageId stage) {
  const auto oldest = std::ranges::find(owed_, stage);
  CHECK(oldest != owed_.end(), "stage {} owes no weight gradient", stage);
  owed_.erase(oldest);
  Append(stage, ActionKind::kBackwardWeight, written_[stage].weights);
}

void ListWriter::OldestBackwardWeight() {
  CHECK(!owed_.empty(), "no stage owes a weight gradient");
  BackwardWeight(owed_.front());
}

bool ListWriter::OwesWeight(StageId stage) const {
  return std::ranges::find(owed_, stage) != owed_.end();
}

void ListWriter::AllOwedWeights() {
  while (!owed_.empty()) {
    OldestBackwardWeight();
  }
}

}  // namespace troupe

#include "actors/action_choices.h"

#include <fmt/format.h>

#include <utility>

#include "actors/schedule/channels.h"

namespace troupe {

ActionChoices::ActionChoices(Options options) : options_(std::move(options)) {
  CHECK(options_.followers.empty() || !options_.follows,
        "rank {} decides for others and follows one", options_.self);
}

Status ActionChoices::Begin(int64_t round, bool trains, RankProgress& progress) {
  round_ = round;
  const bool hangs_on_arrivals = trains && ForwardsJump(progress.list().policy());
  tells_ = hangs_on_arrivals && !options_.followers.empty();
  if (hangs_on_arrivals && options_.follows) progress.Follow();
  for (const ActionChosen& chosen : std::exchange(early_, {})) {
    RETURN_IF_ERROR(Choose(chosen, progress));
  }
  return {};
}

Status ActionChoices::Started(const Action& action) const {
  if (!tells_ || !ReadsWeights(action.kind)) return {};
  const ActionChosen chosen{.round = round_,
                            .stage = action.stage.value,
                            .microbatch = action.microbatch.value,
                            .kind = static_cast<uint32_t>(action.kind)};
  for (const FollowerRef& follower : options_.followers) {
    RETURN_IF_ERROR(follower.Send(chosen));
  }
  return {};
}

Status ActionChoices::Take(const ActionChosen& chosen, RankProgress* progress) {
  if (chosen.round == round_ && progress != nullptr) return Choose(chosen, *progress);
  if (chosen.round != round_ + 1) return Unexpected(chosen);
  early_.push_back(chosen);
  return {};
}

Status ActionChoices::Choose(const ActionChosen& chosen, RankProgress& progress) const {
  const auto kind = static_cast<ActionKind>(chosen.kind);
  const bool is_next =
      chosen.round == round_ && chosen.kind < kNumActionKinds &&
      progress.MarkChosen(StageId(chosen.stage), kind, MicrobatchId(chosen.microbatch));
  return is_next ? Status{} : Unexpected(chosen);
}

Error ActionChoices::Unexpected(const ActionChosen& chosen) const {
  const bool has_name = chosen.kind < kNumActionKinds;
  return MakeError(ErrorCode::kCorrupt,
                   "rank {}: rank {} starts {} of microbatch {} on stage {} in round {}, which is "
                   "not what comes next here (round {})",
                   options_.self, options_.follows.value_or(options_.self),
                   has_name ? KindName(static_cast<ActionKind>(chosen.kind)) : "something",
                   chosen.microbatch, chosen.stage, chosen.round, round_);
}

}  // namespace troupe

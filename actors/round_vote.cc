#include "actors/round_vote.h"

#include <utility>

namespace troupe {

void RoundVote::Begin(const proto::StepStart& start, Rank rank) {
  times_.Clear();
  vote_.Clear();
  vote_.set_step(start.step());
  vote_.set_round(start.round());
  vote_.set_rank(rank.value);
  vote_.set_mode(start.mode());
  vote_.set_finite(true);
  vote_.set_sampled_token(-1);
}

void RoundVote::Add(const ActionDone& done, int32_t number) {
  if (done.loss) {
    auto* loss = vote_.add_losses();
    loss->set_microbatch(number);
    loss->set_loss_sum(done.loss->nll);
    loss->set_num_tokens(done.loss->num_tokens);
  }
  if (done.sampled_token >= 0) vote_.set_sampled_token(done.sampled_token);
  if (vote_.first_action_ns() == 0) vote_.set_first_action_ns(done.time.start_ns);
  vote_.set_last_action_ns(done.time.end_ns);
  times_.Add(done.action, done.time.ran_ns);
  vote_.set_busy_ns(vote_.busy_ns() + done.time.ran_ns);
}

void RoundVote::Add(StageVote vote) {
  for (auto& node : vote.norm_nodes) *vote_.add_norm_nodes() = std::move(node);
  vote_.set_finite(vote_.finite() && vote.finite);
}

}  // namespace troupe

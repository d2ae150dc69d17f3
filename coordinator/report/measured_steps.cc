#include "coordinator/report/measured_steps.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "actors/schedule/transforms.h"

namespace troupe {
namespace {

// What a stage runs; a wait is its executor's.
bool LeavesSpan(const Action& action) {
  return IsCompute(action.kind) ||
         (IsCollective(action.kind) && action.kind != ActionKind::kWaitReduceGrad);
}

std::optional<ActionKind> KindNamed(std::string_view name) {
  for (int i = 0; i < kNumActionKinds; ++i) {
    const auto kind = static_cast<ActionKind>(i);
    if (KindName(kind) == name && LeavesSpan({.kind = kind})) return kind;
  }
  return {};
}

using ActionKey = std::tuple<StageId, ActionKind, MicrobatchId, int>;  // with the part

// A span does not tell part and pair; a stage runs the parts of a weight gradient in their order.
void Identify(std::vector<Bar>& bars, const std::vector<Action>& list) {
  std::map<ActionKey, const Action*> listed;
  for (const Action& action : list) {
    listed[{action.stage, action.kind, action.microbatch, action.part}] = &action;
  }
  std::map<ActionKey, int> parts;
  for (Bar& bar : bars) {
    const Action& told = bar.action;
    const int part = parts[{told.stage, told.kind, told.microbatch, 0}]++;
    const auto found = listed.find({told.stage, told.kind, told.microbatch, part});
    if (found != listed.end()) bar.action = *found->second;
  }
}

}  // namespace

MeasuredSteps::MeasuredSteps(const JobPlan& plan)
    : mesh_(plan.mesh),
      orders_{{.schedule = plan.train, .policy = plan.policy, .ascending = plan.ascending}} {
  orders_.insert(orders_.end(), plan.others.begin(), plan.others.end());
  for (const TrainSchedule& order : orders_) {
    std::vector<size_t>& ranks = num_actions_.emplace_back();
    for (const auto& actions : order.schedule.ranks) {
      ranks.push_back(static_cast<size_t>(std::ranges::count_if(actions, LeavesSpan)));
    }
    const size_t num_bars = std::accumulate(ranks.begin(), ranks.end(), size_t{1});
    gathered_max_ = std::min(gathered_max_, std::max(kBarsKeptMax / num_bars, kStepsGatheredMin));
  }
}

MeasuredSteps::Gathering& MeasuredSteps::GatheringOf(int64_t step) {
  const auto [found, fresh] = gathering_.try_emplace(step);
  Gathering& gathering = found->second;
  if (!fresh) return gathering;
  gathering.bars.resize(static_cast<size_t>(orders_.front().schedule.num_ranks));
  if (gathering_.size() > gathered_max_ && gathering_.begin() != found) {
    gathering_.erase(gathering_.begin());
  }
  return gathering;
}

void MeasuredSteps::AddStep(int64_t step, int32_t order, double seconds) {
  const bool known = order >= 0 && static_cast<size_t>(order) < orders_.size();
  if (!known || step <= newest_whole_) return;
  Gathering& gathering = GatheringOf(step);
  gathering.order = static_cast<size_t>(order);
  gathering.seconds = seconds;
  KeepIfWhole(step);
}

void MeasuredSteps::AddSpan(int32_t rank, const proto::Span& span) {
  const Schedule& any = orders_.front().schedule;
  const auto kind = KindNamed(span.name());
  const PipelineRank place = mesh_.PipelineRankOf(Rank(rank));
  const bool known = rank >= 0 && rank < mesh_.num_ranks() && span.stage() >= 0 &&
                     span.stage() < any.num_stages && span.step() > newest_whole_ &&
                     mesh_.InPipelineOf(Rank(0), place) == Rank(rank);
  if (!kind || !known || any.num_ranks > kRanksGatheredMax) return;
  std::vector<Bar>& bars = GatheringOf(span.step()).bars[static_cast<size_t>(place.value)];
  // A rank tells its spans in order: what comes after its last action is not the step's.
  size_t most = 0;
  for (const auto& ranks : num_actions_) {
    most = std::max(most, ranks[static_cast<size_t>(place.value)]);
  }
  if (bars.size() == most) return;
  Bar bar{.rank = place};
  bar.action.stage = StageId(span.stage());
  bar.action.kind = *kind;
  bar.action.microbatch = MicrobatchId(std::max(span.microbatch(), 0));  // -1: it has none
  bar.action.of_microbatch = *kind == ActionKind::kReduceGrad && span.microbatch() >= 0;
  bar.start_ns = span.start_ns();
  bar.end_ns = span.end_ns();
  bar.cpu_ns = span.cpu_ns() > 0 ? span.cpu_ns() : span.end_ns() - span.start_ns();
  bars.push_back(bar);
  KeepIfWhole(span.step());
}

void MeasuredSteps::KeepIfWhole(int64_t step) {
  const auto found = gathering_.find(step);
  if (found == gathering_.end() || !found->second.order) return;
  Gathering& gathering = found->second;
  const std::vector<size_t>& num_actions = num_actions_[*gathering.order];
  for (size_t rank = 0; rank < num_actions.size(); ++rank) {
    if (gathering.bars[rank].size() < num_actions[rank]) return;
  }
  const Schedule& schedule = orders_[*gathering.order].schedule;
  WholeStep whole{.step = step,
                  .seconds = gathering.seconds,
                  .order = *gathering.order,
                  .timeline = {.num_ranks = schedule.num_ranks}};
  for (size_t rank = 0; rank < num_actions.size(); ++rank) {
    std::vector<Bar>& bars = gathering.bars[rank];
    bars.resize(num_actions[rank]);
    Identify(bars, schedule.ranks[rank]);
    whole.timeline.bars.insert(whole.timeline.bars.end(), bars.begin(), bars.end());
  }
  newest_whole_ = step;
  gathering_.erase(gathering_.begin(), gathering_.upper_bound(step));
  Keep(std::move(whole));
}

void MeasuredSteps::Keep(WholeStep whole) {
  if (num_whole_++ % keep_every_ != 0) return;
  const size_t num_bars = std::max<size_t>(whole.timeline.bars.size(), 1);
  const size_t kept_max = std::clamp<size_t>(kBarsKeptMax / num_bars, 1, kStepsKeptMax);
  kept_.push_back(std::move(whole));
  if (kept_.size() > kept_max) {  // every second one goes; the newest stays where only one can
    std::ranges::sort(kept_, {}, &WholeStep::step);
    size_t stay = 0;
    for (size_t i = (kept_.size() + 1) % 2; i < kept_.size(); i += 2) {
      std::swap(kept_[stay++], kept_[i]);
    }
    kept_.resize(stay);
    keep_every_ *= 2;
  }
  std::ranges::stable_sort(kept_, {}, &WholeStep::seconds);
}

const MeasuredSteps::WholeStep& MeasuredSteps::Median() const {
  return kept_[(kept_.size() - 1) / 2];
}

Schedule MeasuredSteps::AsRun() const { return Frozen(order().schedule, timeline()); }

}  // namespace troupe

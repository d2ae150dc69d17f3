// What a job makes of ranks that all are there and do not get on: the part of JobLife that asks who
// waits for whom, for a person (`status --why`) and for itself.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "coordinator/job_life.h"

namespace troupe {
namespace {

constexpr int kHangSeconds = 300;  // of a spec without the key
constexpr int64_t kMsPerSecond = 1000;
constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

// ---- asking ------------------------------------------------------------------------------------

void JobLife::AskWaits(Answer<proto::GetStatusReply> answer) {
  wait_answers_.push_back(std::move(answer));
  AskRanks(kWaitsMs);
}

void JobLife::AskRanks(int64_t patience_ms) {
  if (std::exchange(asking_waits_, true)) return;
  waits_.clear();
  proto::ToRank order;
  order.mutable_status();
  TellAll(order);
  if (ended_ || AllExited() || epoch_ == 0) return AnswerWaits();
  waits_timer_ = seams_.scheduler.After(patience_ms, [this] { AnswerWaits(); });
}

void JobLife::OnWaits(int32_t rank, const proto::Waits& waits) {
  if (!asking_waits_) return;
  std::vector<proto::WaitEdge>& edges = waits_[rank];
  edges.assign(waits.edges().begin(),
               waits.edges().begin() + std::min(waits.edges_size(), kWaitEdgesMax));
  if (waits_.size() == ranks_.size()) AnswerWaits();
}

std::vector<WaitsOfRank> JobLife::WaitsNow() const {
  std::vector<WaitsOfRank> all;
  for (size_t rank = 0; rank < ranks_.size() && !ended_; ++rank) {
    const auto index = static_cast<int32_t>(rank);
    const auto said = waits_.find(index);
    WaitsOfRank& of_rank = all.emplace_back();
    of_rank.name = RankInWords(index);
    of_rank.answered = said != waits_.end() || ranks_[rank].exited || epoch_ == 0;
    if (said != waits_.end()) of_rank.edges = said->second;
    const int64_t silent_ms = ranks_[rank].silent_ms;
    if (!of_rank.answered && silent_ms > 0) of_rank.silence = SilenceInWords(index, silent_ms);
  }
  return all;
}

void JobLife::AnswerWaits() {
  seams_.scheduler.Cancel(waits_timer_);
  asking_waits_ = false;
  const std::vector<WaitsOfRank> all = WaitsNow();
  const std::optional<WaitRoot> root = RootOfWaits(all);
  proto::GetStatusReply reply;
  *reply.mutable_summary() = summary_;
  for (const WaitsOfRank& of_rank : all) {
    for (const proto::WaitEdge& edge : of_rank.edges) *reply.add_waits() = edge;
    if (of_rank.answered) continue;
    proto::WaitEdge& edge = *reply.add_waits();
    edge.set_waiter("coordinator");
    edge.set_owed("an answer to this question");
    edge.set_from(of_rank.name);
    edge.set_waited_ms(kWaitsMs);
  }
  if (root) reply.set_root(root->sentence);
  waits_.clear();
  for (const auto& answer : std::exchange(wait_answers_, {})) answer(reply);
  if (std::exchange(judging_, false)) Judge(root);
}

// ---- judging -----------------------------------------------------------------------------------

int64_t JobLife::HangMs() const {
  const proto::Resources& resources = request_.spec().resources();
  return (resources.has_hang_seconds() ? resources.hang_seconds() : kHangSeconds) * kMsPerSecond;
}

// J4. From now on, and whenever a rank gets on.
void JobLife::GotOn() {
  got_on_ns_ = seams_.scheduler.now_ns();
  if (hang_timer_.generation == 0 && !judging_) LookForHang(HangMs());
}

void JobLife::LookForHang(int64_t delay_ms) {
  hang_timer_ = seams_.scheduler.After(std::max<int64_t>(1, delay_ms), [this] {
    hang_timer_ = {};
    if (ended_ || killing_ || stop_) return;  // a stop has its own limit
    const int64_t still_ms = (seams_.scheduler.now_ns() - got_on_ns_) / kNsPerMs;
    if (still_ms < HangMs()) return LookForHang(HangMs() - still_ms);
    judging_ = true;
    AskRanks(std::clamp<int64_t>(HangMs() / 4, kWaitsMs, kHangAnswerMs));
  });
}

void JobLife::Judge(const std::optional<WaitRoot>& root) {
  if (ended_ || killing_ || stop_) return;
  const int64_t still_ms = (seams_.scheduler.now_ns() - got_on_ns_) / kNsPerMs;
  if (!root || still_ms < HangMs()) return LookForHang(HangMs());
  if (root->waited_ms && *root->waited_ms < HangMs()) {
    return LookForHang(HangMs() - *root->waited_ms);
  }
  Fail(ErrorCode::kDeadlineExceeded,
       fmt::format("nothing has moved for {} s (resources.hang_seconds = {}): {}",
                   still_ms / kMsPerSecond, HangMs() / kMsPerSecond, root->sentence));
}

}  // namespace troupe

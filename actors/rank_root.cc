#include "actors/rank_root.h"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "actors/plan/job_orders.h"
#include "actors/plan/job_shape.h"
#include "actors/rank_reports.h"
#include "actors/rank_setup.h"

namespace troupe {
namespace {

constexpr int kLossMs = 1000;             // until the transport says who was lost, at most
constexpr int kSilenceMarginMs = 10'000;  // the agent judges a peer's silence before we do
constexpr int kCloseMs = 500;

proto::Content ToProto(const ContentIdentity& content) {
  proto::Content words;
  words.set_num_bytes(content.num_bytes);
  words.set_digest(content.digest);
  return words;
}

}  // namespace

std::string_view RankRoot::StateName(State state) {
  switch (state) {
    case State::kAwaitingStart:
      return "waits for its start";
    case State::kConnecting:
      return "waits for its peers";
    case State::kLoading:
      return "loads";
    case State::kReady:
      return "is ready";
    case State::kTraining:
      return "trains";
    default:
      return "has finished";
  }
}

RankRoot::RankRoot(RankSeams seams)
    : seams_(std::move(seams)), news_(seams_), waits_(seams_, news_) {
  seams_.scheduler.SetOnDown([this](const Down& down) { OnDown(down); });
}

RankRoot::~RankRoot() {
  seams_.scheduler.Cancel(loss_timer_);
  seams_.scheduler.SetOnDown({});
  waits_.StopWatching();
  stream_.reset();  // waits for the work under way
  disk_.reset();
  // Shards leave from the stages' memory: it goes when the transport has closed.
  const StageSet stages = actors_ ? actors_->TakeStages() : StageSet{};
  actors_.reset();  // the executor lets go of what it received while the transport is there
  router_.reset();
  if (transport_) transport_->Close(kCloseMs);
}

// ---- orders ------------------------------------------------------------------------------------

void RankRoot::Take(proto::ToRank order) {
  Status status = Obey(std::move(order));
  if (!status.ok()) Fail(std::move(status).error());
}

Status RankRoot::Obey(proto::ToRank order) {
  if (order.has_status()) {
    waits_.Answer();
    return {};
  }
  if (order.has_leave()) {
    state_ = State::kLeft;
    seams_.leave();
    return {};
  }
  if (finished()) return {};  // R1
  switch (order.message_case()) {
    case proto::ToRank::kStart:
      return OnStart(std::move(*order.mutable_start()));
    case proto::ToRank::kPeers:
      return OnPeers(order.peers());
    case proto::ToRank::kBegin:
      return OnBegin();
    case proto::ToRank::kCancel:
      if (self_.value != 0 || !actors_) return Expect(State::kTraining, "Cancel");
      return actors_->Cancel(order.cancel().checkpoint());
    case proto::ToRank::kShutDown:
      Finish({.last_step = last_step_});
      return {};
    default:
      return {};
  }
}

Status RankRoot::Expect(State state, std::string_view order) const {
  if (state_ == state) return {};
  return MakeError(ErrorCode::kFailed, "{} came to a rank that {}", order, StateName(state_));
}

Status RankRoot::OnStart(proto::StartRank start) {
  RETURN_IF_ERROR(Expect(State::kAwaitingStart, "StartRank"));
  start_ = std::move(start);
  self_ = Rank(start_.rank());
  name_ = fmt::format("rank {}", self_);
  const proto::JobSpec& spec = start_.spec();
  ASSIGN_OR_RETURN(plan_, seams_.plan(spec, {}));
  TransportNeeds needs{
      .self = self_,
      .world_size = start_.world_size(),
      .silence_ms = spec.resources().peer_silence_seconds() * 1000 + kSilenceMarginMs,
      .ledger = ledger_};
  needs.warn = [this](const std::string& text) {
    if (self_.value == 0) news_.Happened("warning", text);  // all would say the same
  };
  ASSIGN_OR_RETURN(transport_, seams_.new_transport(needs));
  proto::FromRank news;
  auto* hello = news.mutable_hello();
  hello->set_pid(::getpid());
  hello->set_transport_address(transport_->LocalAddress());
  hello->set_steady_ns(seams_.scheduler.clock().NowNs());
  hello->set_wall_us(seams_.scheduler.clock().WallUs());
  hello->set_predicted_bytes(PredictedBytes(*plan_, self_));
  RETURN_IF_ERROR(seams_.measure(spec, *hello));
  state_ = State::kConnecting;
  news_.Say(news);
  news_.StartAlive();
  return {};
}

Status RankRoot::OnPeers(const proto::Peers& peers) {
  RETURN_IF_ERROR(Expect(State::kConnecting, "Peers"));
  const std::vector<proto::Parallelism> orders(peers.orders().begin(), peers.orders().end());
  if (!orders.empty()) {
    ASSIGN_OR_RETURN(plan_, seams_.plan(start_.spec(), orders));
  }
  if (plan_->mesh.num_ranks() != start_.world_size()) {
    return MakeError(ErrorCode::kInvalidSpec, "the plan has {} ranks, the job was given {}",
                     plan_->mesh.num_ranks(), start_.world_size());
  }
  product_flops_ = peers.product_flops();
  for (const proto::ModelCosts& costs : peers.costs()) rank_costs_.push_back(FromProto(costs));
  if (self_.value == 0 && !peers.reason().empty()) news_.Happened("info", peers.reason());
  hosts_ = HostNumbersOf(peers, start_.world_size());
  RETURN_IF_ERROR(OpenRouter(peers));
  ASSIGN_OR_RETURN(stream_, seams_.new_stream());
  if (seams_.new_disk_stream) {
    ASSIGN_OR_RETURN(disk_, seams_.new_disk_stream());
  }
  waits_.Watch(*stream_, name_, WaitDeadlineMs(start_.spec(), kDiskWaitMs));
  state_ = State::kLoading;
  Load();
  return {};
}

Status RankRoot::OnBegin() {
  if (self_.value != 0) {
    return MakeError(ErrorCode::kFailed, "Begin came to rank {}: it is rank 0's", self_);
  }
  RETURN_IF_ERROR(Expect(State::kReady, "Begin"));
  state_ = State::kTraining;
  return actors_->Begin();
}

// ---- building ----------------------------------------------------------------------------------

Status RankRoot::OpenRouter(const proto::Peers& peers) {
  RankRouter::Options options{
      .self = self_, .job = JobId(start_.job()), .epoch = Epoch(start_.epoch())};
  options.on_peer_down = [this](Rank peer, const Error& cause) {
    if (!finished()) lost_peer_ = peer;
    Fail(actors_ ? actors_->LossInWords(peer, cause) : cause);
    if (actors_) actors_->OnPeerDown(peer, cause);
  };
  options.on_credit = [this](Rank peer, uint16_t channel) {
    if (actors_) actors_->OnCredit(peer, channel);
  };
  options.on_drop = [this](DropCause cause, const Envelope& envelope, const Error& error) {
    if (cause == DropCause::kWrongEpoch) return;
    Fail(MakeError(error.code, "a message of rank {} was dropped ({}): {}", envelope.source_rank,
                   DropCauseName(cause), error.message));
  };
  router_ = std::make_unique<RankRouter>(seams_.scheduler, *transport_, std::move(options));
  for (const auto& peer : peers.peers()) {
    if (peer.rank() == self_.value) continue;
    RETURN_IF_ERROR(transport_->Connect(Rank(peer.rank()), peer.address()));
  }
  return PostSlots(*transport_, start_.spec(), *plan_, self_);
}

// Whoever asks why nothing happens is told what is waited for meanwhile.
void RankRoot::Load() {
  disk_wait_ =
      seams_.scheduler.waits().Begin({.waiter = name_,
                                      .activity = "start",
                                      .owed = "weights and tokens",
                                      .from = "files",
                                      .deadline_ms = WaitDeadlineMs(start_.spec(), kDiskWaitMs)});
  auto loaded = std::make_shared<Result<LoadedRank>>(LoadedRank{});
  stream_->Launch([this, loaded] { *loaded = seams_.load(seams_.files, start_, *plan_, ledger_); },
                  [this, loaded](const WorkTime&) {
                    disk_wait_.Reset();
                    if (finished()) return;  // the job ended meanwhile
                    Status ready = OnLoaded(std::move(*loaded));
                    if (!ready.ok()) Fail(std::move(ready).error());
                  });
}

Status RankRoot::OnLoaded(Result<LoadedRank> result) {
  ASSIGN_OR_RETURN(LoadedRank loaded, std::move(result));
  last_step_ = loaded.progress.step;
  actors_.emplace(RankActors::Context{seams_, start_, *plan_, *router_, *stream_,
                                      disk_ ? *disk_ : *stream_, ledger_, hosts_},
                  std::move(loaded));
  RETURN_IF_ERROR(
      actors_->Spawn([this](const RankActivity& activity) { news_.Progressed(activity); }));
  if (self_.value == 0) RETURN_IF_ERROR(SpawnJob());
  state_ = State::kReady;
  SayReady();
  news_.StartReports({.rank = self_,
                      .ledger = &ledger_,
                      .plan = &*plan_,
                      .traced = &actors_->traced_memory(),
                      .spans = !start_.reference_run()});
  return {};
}

Status RankRoot::SpawnJob() {
  RankActors::JobParts parts{.product_flops = product_flops_};
  if (!rank_costs_.empty()) parts.replanner.emplace(*plan_, std::move(rank_costs_));
  parts.say = [this](const proto::FromRank& news) { news_.Say(news); };
  parts.on_end = [this](JobEnd end) { OnJobEnd(std::move(end)); };
  return actors_->SpawnJob(std::move(parts));
}

void RankRoot::SayReady() {
  proto::FromRank news;
  auto* ready = news.mutable_ready();
  for (int peer = 0; peer < start_.world_size(); ++peer) {
    if (peer == self_.value) continue;
    auto* lane = ready->add_lanes();
    lane->set_peer(peer);
    lane->set_lane(std::string(LaneName(transport_->LaneTo(Rank(peer)))));
  }
  int64_t num_parameters = 0;
  for (const StageParameters* stage : actors_->parameters())
    num_parameters += stage->num_elements();
  ready->set_num_parameters(num_parameters);
  const RunContent& content = actors_->content();
  if (content.data) *ready->mutable_data() = ToProto(*content.data);
  if (content.init_from && start_.resume_from().empty()) {
    *ready->mutable_init_from() = ToProto(*content.init_from);
  }
  news_.Say(news);
}

// ---- the end -----------------------------------------------------------------------------------

void RankRoot::OnDown(const Down& down) {
  if (down.error.code != ErrorCode::kPeerDown) return Fail(down.error);
  // It sent to a peer that is being lost: which one, the transport says soon.
  seams_.scheduler.Cancel(loss_timer_);
  loss_timer_ = seams_.scheduler.After(kLossMs, [this, error = down.error] { Fail(error); });
}

void RankRoot::OnJobEnd(JobEnd end) {
  last_step_ = end.last_step;
  if (!end.end.ok()) return Fail(std::move(end.end).error());
  Finish(end);
}

void RankRoot::Finish(const JobEnd& end) {
  if (finished()) return;
  state_ = State::kFinished;
  news_.ReportOnce();
  auto news = std::make_shared<proto::FromRank>();
  auto* finished = news->mutable_finished();
  finished->set_last_step(end.last_step);
  finished->set_cancelled(end.cancelled);
  finished->set_checkpoint(end.checkpoint);
  finished->mutable_stage_layers()->Assign(end.stage_layers.begin(), end.stage_layers.end());
  if (!actors_) return news_.Say(*news);
  if (Trains(start_.spec())) *finished->mutable_communication() = actors_->Communication();
  stream_->Launch([this, finished] { AddParameterDigests(actors_->parameters(), *finished); },
                  [this, news](const WorkTime&) { news_.Say(*news); });
}

void RankRoot::Fail(Error error) {
  if (finished()) return;
  state_ = State::kFinished;
  proto::FromRank news;
  auto* finished = news.mutable_finished();
  finished->set_error_code(static_cast<int>(error.code) + 1);
  finished->set_error(error.message);
  finished->set_last_step(last_step_);
  if (lost_peer_) finished->set_lost_peer(lost_peer_->value);
  news_.Say(news);
}

}  // namespace troupe

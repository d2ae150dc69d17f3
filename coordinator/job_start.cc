// How a job starts: its folder, its ranks, their words to one another. The part of JobLife from a
// place in the queue to the first step.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "actors/plan/job_orders.h"
#include "coordinator/job_life.h"

namespace troupe {

void JobLife::Start(std::vector<Placement> places) {
  ranks_.assign(places.size(), {});
  std::vector<std::string> hosts;
  for (size_t rank = 0; rank < places.size(); ++rank) {
    ranks_[rank].place = places[rank];
    ranks_[rank].host_name = HostName(places[rank].host);
    hosts.push_back(ranks_[rank].host_name);
  }
  for (const std::string& host : std::set<std::string>(hosts.begin(), hosts.end())) {
    summary_.add_hosts(host);
  }
  summary_.clear_reason();
  SetState(proto::JOB_STATE_STARTING);
  if (!recorder_) return Spawn(request_.spec());
  folder_timer_ = seams_.scheduler.After(kFolderMs, [this] {
    Warn(
        fmt::format("{} has not answered for {} ms: is its disk, or one that another job writes "
                    "to, standing still?",
                    request_.run_directory(), kFolderMs));
  });
  recorder_->Begin(hosts, [this, alive = std::weak_ptr<bool>(alive_)](const Status& begun) {
    if (!alive.expired()) Begun(begun);
  });
}

void JobLife::Begun(const Status& begun) {
  seams_.scheduler.Cancel(folder_timer_);
  if (ended_) return;
  if (begun.ok() && !failure_) return Spawn(request_.spec());
  if (!failure_) failure_ = begun.error();
  if (failure_->code == ErrorCode::kNotFound) failure_->code = ErrorCode::kIo;  // of the folder
  for (RankState& rank : ranks_) rank.exited = true;                            // none was started
  PhaseOver();
}

void JobLife::Spawn(const proto::JobSpec& spec) {
  ++epoch_;
  introduced_ = false;
  began_ = false;
  killing_ = false;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    proto::ToAgent command;
    auto* spawn = command.mutable_spawn();
    spawn->set_job(id_);
    spawn->set_epoch(epoch_);
    spawn->set_rank(static_cast<int32_t>(rank));
    auto* start = spawn->mutable_start();
    start->set_job(id_);
    start->set_epoch(epoch_);
    start->set_rank(static_cast<int32_t>(rank));
    start->set_world_size(static_cast<int32_t>(ranks_.size()));
    *start->mutable_spec() = spec;
    start->set_run_directory(request_.run_directory());
    start->set_resume_from(reference_run_ ? ReferenceStart() : resume_from_);
    start->set_reference_run(reference_run_);
    if (!reference_run_ && spec.eval().has_check_against()) {
      start->set_reference_start(request_.resume_from());
    }
    start->set_owner(fmt::format("{:x}-{}-{}", state_.term, id_, epoch_));
    if (AgentPort* port = PortOf(ranks_[rank].place.host)) port->Send(command);
  }
  const int hello_ms = MeasuresCosts(spec) ? kMeasuredHelloMs : kHelloMs;
  hello_timer_ = seams_.scheduler.After(hello_ms, [this, hello_ms] {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (ranks_[rank].hello) continue;
      return Fail(ErrorCode::kDeadlineExceeded,
                  fmt::format("{} did not say Hello within {} ms of its start",
                              RankInWords(static_cast<int32_t>(rank)), hello_ms));
    }
  });
}

// Where no step was left to run, there is nothing to compare but where all of them lead.
std::string JobLife::ReferenceStart() const {
  return main_trace_.steps.empty() ? "" : request_.resume_from();
}

void JobLife::OnHello(int32_t rank, const proto::Hello& hello) {
  auto& greeted = ranks_[static_cast<size_t>(rank)].hello;
  if (killing_ || greeted) return;
  greeted = hello;
  const auto said = [](const RankState& r) { return r.hello.has_value(); };
  if (!std::ranges::all_of(ranks_, said)) return;
  seams_.scheduler.Cancel(hello_timer_);
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (ranks_[r].hello->build() == ranks_[0].hello->build()) continue;
    return Fail(ErrorCode::kFailed,
                fmt::format("{} runs another build than {}: install the same binaries everywhere",
                            RankInWords(static_cast<int32_t>(r)), RankInWords(0)));
  }
  if (const Status room = CheckRoomOnHosts(Words()); !room.ok()) {
    return Fail(room.error().code, room.error().message);
  }
  if (reference_run_ || !MeasuresCosts(request_.spec())) return IntroducePeers();
  std::vector<proto::Hello> hellos;
  for (const RankState& r : ranks_) hellos.push_back(*r.hello);
  Decide([spec = request_.spec(),
          hellos](DecidedOrders& decided) { return decided.Decide(spec, hellos); },
         [this] {
           if (recorder_ && !decided_.orders().empty()) recorder_->Planned(decided_.orders());
           IntroducePeers();
         });
}

std::vector<RankWords> JobLife::Words() const {
  std::vector<RankWords> words;
  for (const RankState& rank : ranks_) {
    words.push_back({.host = rank.host_name,
                     .hello = rank.hello ? &*rank.hello : nullptr,
                     .ready = rank.ready ? &*rank.ready : nullptr});
  }
  return words;
}

void JobLife::Decide(std::function<Status(DecidedOrders&)> decide, std::function<void()> go_on) {
  struct Work {
    DecidedOrders decided;
    Status status;
  };
  const auto work = std::make_shared<Work>(Work{decided_, {}});
  seams_.planner.Launch(
      [work, decide = std::move(decide)] { work->status = decide(work->decided); },
      [this, alive = std::weak_ptr<bool>(alive_), epoch = epoch_, work,
       go_on = std::move(go_on)](const WorkTime&) {
        if (alive.expired() || ended_ || killing_ || epoch != epoch_) return;
        if (!work->status.ok()) {
          return Fail(work->status.error().code, work->status.error().message);
        }
        decided_ = std::move(work->decided);
        go_on();
      });
}

void JobLife::IntroducePeers() {
  introduced_ = true;
  proto::ToRank order;
  auto* peers = order.mutable_peers();
  for (size_t r = 0; r < ranks_.size(); ++r) {
    auto* peer = peers->add_peers();
    peer->set_rank(static_cast<int32_t>(r));
    peer->set_address(ranks_[r].hello->transport_address());
    peer->set_host(ranks_[r].host_name);
  }
  double product_flops = 0;
  for (const RankState& rank : ranks_) product_flops += rank.hello->product_flops();
  peers->set_product_flops(product_flops);
  if (!reference_run_) decided_.WriteTo(*peers);
  TellAll(order);
  GotOn();
}

void JobLife::OnReady(int32_t rank, const proto::Ready& ready) {
  if (!introduced_ || began_ || killing_) return;
  auto& said = ranks_[static_cast<size_t>(rank)].ready;
  said = ready;
  said->clear_lanes();
  if (!std::ranges::all_of(ranks_, [](const RankState& r) { return r.ready.has_value(); })) return;
  if (const Status same = CheckSameContent(Words(), request_.spec()); !same.ok()) {
    return Fail(same.error().code, same.error().message);
  }
  began_ = true;
  proto::ToRank order;
  order.mutable_begin();
  Tell(0, order);
  if (!reference_run_ && !stop_) SetState(proto::JOB_STATE_RUNNING);
}

}  // namespace troupe

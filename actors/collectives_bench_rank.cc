#include "actors/collectives_bench_rank.h"

#include <sched.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "actors/collective_measurement.h"
#include "actors/element_types.h"
#include "actors/messages.h"
#include "proto/collectives_bench.pb.h"
#include "runtime/actor/frame_link.h"
#include "runtime/actor/stream.h"
#include "runtime/collective/router_groups.h"
#include "runtime/transport/ucx/ucx_transport.h"

namespace troupe {
namespace {

constexpr int kLastWordsMs = 2000;

// This thread and those that it starts, to the `number`th CPU that it may use, counted in circles.
// Left to itself the kernel puts two processes that wake each other on one of them.
void BindToCpu(int number) {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  int wanted = number % std::max(CPU_COUNT(&allowed), 1);
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || wanted-- > 0) continue;
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(cpu, &own);
    ::sched_setaffinity(0, sizeof(own), &own);
    return;
  }
}

class CollectivesBenchRank {
 public:
  CollectivesBenchRank(Rank self, int control_fd)
      : self_(self),
        link_(scheduler_, control_fd,
              {.on_frame = [this](std::string_view frame) { return OnFrame(frame); },
               .on_closed = [this](const Error&) { scheduler_.Stop(); }}) {}  // B1

  int Run() {
    const Status opened = OpenTransport();
    if (opened.ok()) {
      scheduler_.Run();
    } else {
      Fail(opened.error());
    }
    return exit_code_;
  }

 private:
  Status OpenTransport() {
    ASSIGN_OR_RETURN(transport_, UcxTransport::Create({.self = self_}, ledger_));
    proto::FromBenchWorker news;
    news.set_address(transport_->LocalAddress());
    link_.Send(news.SerializeAsString());
    return {};
  }

  Status OnFrame(std::string_view frame) {
    proto::ToBenchWorker order;
    if (!order.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
      return MakeError(ErrorCode::kCorrupt, "an order of {} bytes does not parse", frame.size());
    }
    const Status done = order.has_join() ? Join(order.join()) : Measure(order.measure());
    if (!done.ok()) Fail(done.error());
    return {};
  }

  Status Join(const proto::JoinGroup& join) {
    if (group_) return MakeError(ErrorCode::kInvalidSpec, "a worker joins one group");
    if (join.bind()) BindToCpu(self_.value);
    stream_.emplace(scheduler_, "measure");
    RETURN_IF_ERROR(stream_->started());
    scope_.emplace(*stream_);
    router_.emplace(
        scheduler_, *transport_,
        RankRouter::Options{
            .self = self_,
            .job = JobId(1),
            .epoch = Epoch(1),
            .on_peer_down = [this](Rank peer, const Error& why) { groups_->OnPeerDown(peer, why); },
            .on_credit = [this](Rank peer,
                                uint16_t channel) { groups_->OnCredit(peer, channel); }});
    groups_.emplace(*router_, RouterGroupsOptions{.elements = ElementTypes(),
                                                  .actor_index = kCollectiveIndex,
                                                  .ledger = &ledger_,
                                                  .lends = &ledger_});
    GroupSpec spec{.id = GroupId(1),
                   .name = "of all workers",
                   .self = self_,
                   .sums = join.ring() ? SumAlgorithm::kRing : SumAlgorithm::kOrdered};
    for (int rank = 0; rank < join.addresses_size(); ++rank) {
      spec.ranks.emplace_back(rank);
      if (Rank(rank) == self_) continue;
      RETURN_IF_ERROR(transport_->Connect(Rank(rank), join.addresses(rank)));
    }
    if (spec.ranks.empty() || spec.ranks.back() < self_) {
      return MakeError(ErrorCode::kInvalidSpec, "rank {} is none of {} workers", self_,
                       spec.ranks.size());
    }
    ASSIGN_OR_RETURN(group_, groups_->Open(std::move(spec), kFirstGroupChannel));
    proto::FromBenchWorker news;
    news.mutable_joined();
    link_.Send(news.SerializeAsString());
    return {};
  }

  Status Measure(const proto::MeasureCollective& asked) {
    const auto kind = MeasurableOperation(asked.operation());
    const auto dtype = MeasurableDType(asked.dtype());
    if (!group_ || measurement_ || !kind || !dtype) {
      return MakeError(ErrorCode::kInvalidSpec, "{} of {} is not measured now", asked.operation(),
                       asked.dtype());
    }
    ASSIGN_OR_RETURN(measurement_,
                     CollectiveMeasurement::Make(*group_,
                                                 {.kind = *kind,
                                                  .dtype = *dtype,
                                                  .count = asked.count(),
                                                  .in_place = asked.in_place(),
                                                  .private_buffers = asked.private_buffers(),
                                                  .warmup = asked.warmup(),
                                                  .iterations = asked.iterations()},
                                                 ledger_, scheduler_.clock()));
    stream_->LaunchTask(*scope_, measurement_->Run(),
                        [this](const WorkTime&, const Status& status) { Measured(status); });
    return {};
  }

  void Measured(const Status& status) {
    const auto measurement = std::move(measurement_);
    if (!status.ok()) return Fail(status.error());
    proto::FromBenchWorker news;
    news.mutable_measured()->set_mean_us(measurement->mean_us());
    news.mutable_measured()->set_num_wrong(measurement->num_wrong());
    link_.Send(news.SerializeAsString());
  }

  void Fail(const Error& error) {  // B2
    proto::FromBenchWorker news;
    news.mutable_failure()->set_code(static_cast<int32_t>(error.code));
    news.mutable_failure()->set_message(error.message);
    link_.Send(news.SerializeAsString());
    link_.Drain(kLastWordsMs);
    exit_code_ = ExitCode(error.code);
    scheduler_.Stop();
  }

  const Rank self_;
  Scheduler scheduler_{{.trace_handlers = false}};
  FrameLink link_;
  MemoryLedger ledger_{};
  std::unique_ptr<Transport> transport_{};
  std::optional<RankRouter> router_{};
  std::optional<RouterGroups> groups_{};
  std::unique_ptr<Group> group_{};
  std::unique_ptr<CollectiveMeasurement> measurement_{};
  std::optional<ThreadStream> stream_{};
  std::optional<StreamScope> scope_{};
  int exit_code_ = 0;
};

}  // namespace

int RunCollectivesBenchRank(Rank self, int control_fd) {
  return CollectivesBenchRank(self, control_fd).Run();
}

}  // namespace troupe

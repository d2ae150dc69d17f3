// Bulk operations among processes of one host against Open MPI and Gloo. Numbers are bus bandwidth,
// with sizes as nccl-tests count them: of S bytes among n members all-reduce moves 2 (n - 1) / n S
// from each, reduce-scatter (of S bytes of input) and all-gather (of S bytes of output) half of
// that. Ours works in place on shared buffers; rows that end in /messages are the same with private
// ones.
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "runtime/actor/stream.h"
#include "runtime/collective/router_groups.h"
#include "runtime/transport/ucx/ucx_transport.h"
#include "tests/benchmark/bench.h"
#include "tests/runtime/collective/element_types.h"
#include "tests/runtime/transport/ucx_child.h"

namespace troupe {
namespace {

constexpr auto kFloat32 = static_cast<uint8_t>(DType::kFloat32);

struct Measured {
  GroupOperationKind kind = GroupOperationKind::kAllReduce;
  int size = 2;  // members
  int64_t num_bytes = 0;
  int times = 1;
  bool shared = true;
};

// One member and all that carries its group.
struct Member {
  explicit Member(Rank self)
      : transport(*UcxTransport::Create({.self = self}, ledger)),
        router(
            scheduler, *transport,
            {.self = self,
             .job = JobId(1),
             .epoch = Epoch(1),
             .on_peer_down = [this](Rank peer,
                                    const Error& cause) { groups.OnPeerDown(peer, cause); },
             .on_credit = [this](Rank peer, uint16_t channel) { groups.OnCredit(peer, channel); }}),
        groups(router, {.elements = testing::ElementTypes(),
                        .actor_index = 1,
                        .ledger = &ledger,
                        .lends = &ledger}),
        stream(scheduler, "member") {}

  // `addresses`: of all members, by rank.
  void Open(const std::vector<std::string>& addresses, Rank self) {
    GroupSpec spec{.id = GroupId(1), .name = "all", .self = self};
    for (int rank = 0; rank < static_cast<int>(addresses.size()); ++rank) {
      spec.ranks.push_back(Rank(rank));
      if (Rank(rank) == self) continue;
      CHECK(transport->Connect(Rank(rank), addresses[static_cast<size_t>(rank)]).ok());
    }
    group = *groups.Open(spec, /*channel=*/1);
  }

  MemoryLedger ledger{};
  std::unique_ptr<Transport> transport;
  Scheduler scheduler{{.trace_handlers = false}};
  RankRouter router;
  RouterGroups groups;
  std::unique_ptr<Group> group{};
  ThreadStream stream;
};

// In place: what a member has or gets of its own is its part of the whole.
Task<Status> Operate(Group& group, GroupOperationKind kind, Elements whole) {
  const int64_t part = whole.count / group.size();
  const Elements own{kFloat32, static_cast<float*>(whole.data) + group.index() * part, part};
  if (kind == GroupOperationKind::kReduceScatter) return group.ReduceScatter(whole, own);
  if (kind == GroupOperationKind::kAllGather) return group.AllGather(own, whole);
  return group.AllReduce(whole);
}

// So often; the time of one is in *spent_ns.
Task<Status> OperateAll(Group& group, Measured what, Elements whole, double* spent_ns) {
  for (int i = 0; i < what.times / 10 + 5; ++i) {
    CO_RETURN_IF_ERROR(co_await Operate(group, what.kind, whole));
  }
  CO_RETURN_IF_ERROR(co_await group.Barrier());
  const double start_ns = bench::WallNs();
  for (int i = 0; i < what.times; ++i) {
    CO_RETURN_IF_ERROR(co_await Operate(group, what.kind, whole));
  }
  CO_RETURN_IF_ERROR(co_await group.Barrier());
  *spent_ns = (bench::WallNs() - start_ns) / what.times;
  co_return Status{};
}

double RunMember(Member& member, const Measured& what) {
  Buffer data = what.shared ? Buffer::Shared(member.ledger, MemoryTag::kGrads, what.num_bytes)
                            : Buffer(member.ledger, MemoryTag::kGrads, what.num_bytes);
  const Elements whole{kFloat32, data.data(), what.num_bytes / int64_t{sizeof(float)}};
  const StreamScope scope(member.stream);
  double spent_ns = 0;
  member.stream.LaunchTask(scope, OperateAll(*member.group, what, whole, &spent_ns),
                           [&](const WorkTime&, const Status& status) {
                             CHECK(status.ok(), "{}", status.error().message);
                             member.scheduler.Stop();
                           });
  member.scheduler.Run();
  return spent_ns;
}

[[noreturn]] void RunChild(int rank, int socket, const Measured& what) {
  Member member{Rank(rank)};
  WriteAddress(socket, member.transport->LocalAddress());
  std::vector<std::string> addresses;
  for (int i = 0; i < what.size; ++i) addresses.push_back(ReadAddress(socket));
  member.Open(addresses, Rank(rank));
  WriteAddress(socket, "open");
  ReadAddress(socket);
  RunMember(member, what);
  WriteAddress(socket, "ended");
  member.scheduler.Run();  // what others still wait for goes out
  _exit(0);
}

// Rank 0 is this process; the others are its children and answer until they are killed.
double OperationNs(const Measured& what) {
  std::vector<int> sockets;
  std::vector<pid_t> children;
  for (int rank = 1; rank < what.size; ++rank) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) RunChild(rank, pair[1], what);
    sockets.push_back(pair[0]);
    children.push_back(child);
    close(pair[1]);
  }
  double spent_ns = 0;
  {
    Member member{Rank(0)};
    std::vector<std::string> addresses = {member.transport->LocalAddress()};
    for (const int socket : sockets) addresses.push_back(ReadAddress(socket));
    for (const int socket : sockets) {
      for (const auto& address : addresses) WriteAddress(socket, address);
    }
    member.Open(addresses, Rank(0));
    for (const int socket : sockets) ReadAddress(socket);  // everybody has posted slots
    for (const int socket : sockets) WriteAddress(socket, "begin");
    spent_ns = RunMember(member, what);
    for (const int socket : sockets) {
      pollfd ended{.fd = socket, .events = POLLIN};
      while (poll(&ended, 1, 0) == 0) member.scheduler.RunUntilIdle();
    }
    member.group.reset();
    member.transport->Close(100);
  }
  for (const pid_t child : children) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  for (const int socket : sockets) close(socket);
  return spent_ns;
}

// Bytes a nanosecond.
double BusBandwidth(const Measured& what, double ns) {
  const double factor = what.kind == GroupOperationKind::kAllReduce ? 2 : 1;
  return factor * (what.size - 1) / what.size * static_cast<double>(what.num_bytes) / ns;
}

struct Peer {
  std::string name{};
  std::string command{};  // prints the microseconds of one operation
};

// Those that are installed and know the operation. Their programs lie beside this one.
std::vector<Peer> PeersFor(const Measured& what) {
  const std::string folder =
      std::filesystem::read_symlink("/proc/self/exe").parent_path().string() + "/";
  const std::string arguments = fmt::format(" {} {} {} {}", GroupOperationName(what.kind),
                                            what.num_bytes, what.times, what.size);
  std::vector<Peer> peers;
  if (std::filesystem::exists(folder + "collectives_open_mpi")) {
    // More processes than cores are to yield; unset, each would spin where another could work.
    peers.push_back({"Open MPI", fmt::format("OMPI_ALLOW_RUN_AS_ROOT=1 "
                                             "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -np {} "
                                             "--oversubscribe --mca mpi_yield_when_idle 1 "
                                             "{}collectives_open_mpi{}",
                                             what.size, folder, arguments)});
  }
  if (std::filesystem::exists(folder + "collectives_gloo")) {
    peers.push_back({"Gloo", "timeout 60 " + folder + "collectives_gloo" + arguments});
  }
  return peers;
}

double PeerNs(const Peer& peer) {
  const auto output = bench::OutputOf(peer.command);
  return output ? std::strtod(output->c_str(), nullptr) * 1000 : 0;
}

// As nccl-tests print it, to stderr.
void SayTime(std::string_view who, const Measured& what, const std::vector<double>& ns) {
  constexpr std::string_view kLine =
      "{:<16} {:<14} {:>7} {:>12} {:>12} {:>8} {:>6} {:>10} {:>7} {:>7}\n";
  static const bool headed [[maybe_unused]] = [&] {
    fmt::print(stderr, fmt::runtime(kLine), "#", "operation", "members", "size (B)", "count",
               "type", "redop", "time (us)", "algbw", "busbw");
    return true;
  }();
  if (ns.empty() || bench::Median(ns) <= 0) return;
  const double time = bench::Median(ns);
  const bool sums = what.kind != GroupOperationKind::kAllGather;
  fmt::print(stderr, fmt::runtime(kLine), who, GroupOperationName(what.kind), what.size,
             what.num_bytes, what.num_bytes / int64_t{sizeof(float)}, "float",
             sums ? "sum" : "none", fmt::format("{:.1f}", time / 1000),
             fmt::format("{:.2f}", static_cast<double>(what.num_bytes) / time),
             fmt::format("{:.2f}", BusBandwidth(what, time)));
}

// Against the better of the peers, found in two runs of each.
void CompareWithPeers(bench::Bench& bench, const Measured& what, const std::string& name,
                      double goal) {
  bench::Comparison comparison{
      .name = name, .unit = "GB/s", .goal = goal, .higher_is_better = true, .num_rounds = 5};
  std::vector<double> our_ns;
  std::vector<double> their_ns;
  const auto ours = [&] {
    our_ns.push_back(OperationNs(what));
    return BusBandwidth(what, our_ns.back());
  };
  const auto bandwidth_of = [what](double ns) { return ns > 0 ? BusBandwidth(what, ns) : 0; };
  Peer best;
  double most = 0;
  for (const Peer& peer : PeersFor(what)) {
    const double reached = std::max(bandwidth_of(PeerNs(peer)), bandwidth_of(PeerNs(peer)));
    if (reached <= most) continue;
    best = peer;
    most = reached;
  }
  if (most <= 0) {
    bench.Measure(comparison, ours, "neither Open MPI nor Gloo runs here");
  } else {
    comparison.peer_name = best.name;
    bench.Compare(comparison, ours, [&] {
      their_ns.push_back(PeerNs(best));
      return bandwidth_of(their_ns.back());
    });
  }
  SayTime(what.shared ? "shared buffers" : "messages", what, our_ns);
  SayTime(best.name, what, their_ns);
}

constexpr std::pair<int, int> kSizes[] = {{1, 400}, {16, 30}, {64, 8}};  // MiB, times

void CompareAll(bench::Bench& bench, GroupOperationKind kind, std::string_view name, double goal) {
  for (const int size : {2, 4}) {
    for (const auto& [mib, times] : kSizes) {
      Measured what{.kind = kind, .size = size, .num_bytes = int64_t{mib} << 20, .times = times};
      const std::string row = fmt::format("{}/{}MiB/{}", name, mib, size);
      CompareWithPeers(bench, what, row, goal);
      what.shared = false;
      CompareWithPeers(bench, what, row + "/messages", 0);
    }
  }
}

TROUPE_BENCHMARK(AllReduce) { CompareAll(bench, GroupOperationKind::kAllReduce, "all_reduce", 2); }
TROUPE_BENCHMARK(ReduceScatter) {
  CompareAll(bench, GroupOperationKind::kReduceScatter, "reduce_scatter", 2);
}
TROUPE_BENCHMARK(AllGather) {
  CompareAll(bench, GroupOperationKind::kAllGather, "all_gather", 1.4);
}
TROUPE_BENCHMARK(AllReduceOfOneElement) {
  bench.Measure({.name = "all_reduce/4B/2", .unit = "us", .num_rounds = 5},
                [] { return OperationNs({.num_bytes = 4, .times = 20'000}) / 1000; });
}

}  // namespace
}  // namespace troupe

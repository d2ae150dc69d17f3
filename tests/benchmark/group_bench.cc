// All-reduce among processes of one host, over the router and UCX's shared memory, against copying
// as many bytes within one process. Numbers are bus bandwidth: an all-reduce of S bytes among n
// members moves 2 (n - 1) / n S from each.
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
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
        groups(router, {.elements = testing::ElementTypes(), .actor_index = 1, .ledger = &ledger}),
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

// All-reduces `data` so often; the time of one is in *spent_ns.
Task<Status> AllReduces(Group& group, std::vector<float>& data, int times, double* spent_ns) {
  const Elements elements{kFloat32, data.data(), static_cast<int64_t>(data.size())};
  for (int i = 0; i < times / 10 + 2; ++i) CO_RETURN_IF_ERROR(co_await group.AllReduce(elements));
  const double start_ns = bench::WallNs();
  for (int i = 0; i < times; ++i) CO_RETURN_IF_ERROR(co_await group.AllReduce(elements));
  *spent_ns = (bench::WallNs() - start_ns) / times;
  co_return co_await group.Barrier();
}

double RunMember(Member& member, int64_t num_bytes, int times) {
  std::vector<float> data(static_cast<size_t>(num_bytes) / sizeof(float));
  const StreamScope scope(member.stream);
  double spent_ns = 0;
  member.stream.LaunchTask(scope, AllReduces(*member.group, data, times, &spent_ns),
                           [&](const WorkTime&, const Status& status) {
                             CHECK(status.ok(), "{}", status.error().message);
                             member.scheduler.Stop();
                           });
  member.scheduler.Run();
  return spent_ns;
}

// Rank 0 is this process; the others are its children and answer until they are killed.
double AllReduceNs(int size, int64_t num_bytes, int times) {
  std::vector<int> sockets;
  std::vector<pid_t> children;
  for (int rank = 1; rank < size; ++rank) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      Member member{Rank(rank)};
      WriteAddress(pair[1], member.transport->LocalAddress());
      std::vector<std::string> addresses;
      for (int i = 0; i < size; ++i) addresses.push_back(ReadAddress(pair[1]));
      member.Open(addresses, Rank(rank));
      WriteAddress(pair[1], "open");
      ReadAddress(pair[1]);
      RunMember(member, num_bytes, times);
      WriteAddress(pair[1], "ended");
      member.scheduler.Run();  // what others still wait for goes out
      _exit(0);
    }
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
    spent_ns = RunMember(member, num_bytes, times);
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

double CopyGbPerSecond(int64_t num_bytes, int times) {
  const std::vector<char> from(static_cast<size_t>(num_bytes), 1);
  std::vector<char> to(from.size());
  const double start_ns = bench::WallNs();
  for (int i = 0; i < times; ++i) {
    std::memcpy(to.data(), from.data(), from.size());
    asm volatile("" : : "r"(to.data()) : "memory");
  }
  return static_cast<double>(num_bytes) * times / (bench::WallNs() - start_ns);
}

TROUPE_BENCHMARK(AllReduce) {
  for (const int size : {2, 4}) {
    for (const auto& [mib, times] : {std::pair{1, 400}, std::pair{16, 40}}) {
      const int64_t num_bytes = int64_t{mib} << 20;
      const double moved = 2.0 * (size - 1) / size * static_cast<double>(num_bytes);
      bench.Compare(
          {.name = fmt::format("all_reduce/{}MiB/{}", mib, size),
           .unit = "GB/s",
           .peer_name = "memcpy",
           .higher_is_better = true,
           .num_rounds = 5},
          [=, n = times] { return moved / AllReduceNs(size, num_bytes, n); },
          [=, n = times] { return CopyGbPerSecond(num_bytes, n); });
    }
  }
  bench.Measure({.name = "all_reduce/4B/2", .unit = "us", .num_rounds = 5},
                [] { return AllReduceNs(2, 4, 20'000) / 1000; });
}

}  // namespace
}  // namespace troupe

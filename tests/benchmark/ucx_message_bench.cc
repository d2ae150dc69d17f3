// Messages between two processes of one host through the public actor API, against ucx_perftest in
// the same error mode and on the same cores. Ours carries an envelope of 64 bytes with a checksum,
// goes through typed handlers on both sides, and its bulk is fetched from ordinary memory.
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <sstream>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"
#include "runtime/transport/ucx/ucx_transport.h"
#include "tests/benchmark/bench.h"
#include "tests/runtime/transport/ucx_child.h"

namespace troupe {
namespace {

constexpr uint32_t kActor = 1;
constexpr uint16_t kChannel = 1;
constexpr int kSlots = 4;
constexpr int kRoundTrips = 100'000;
constexpr int kPort = 23'457;

struct Ping {
  static constexpr std::string_view kMessageName = "troupe.bench.Ping";
  uint64_t number = 0;
};
static_assert(sizeof(Ping) == 8);
struct Block {
  static constexpr std::string_view kMessageName = "troupe.bench.Block";
  uint64_t number = 0;
};

void PinTo(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  sched_setaffinity(0, sizeof(cores), &cores);
}

// One rank: transport, scheduler and router.
struct Process {
  Process(Rank self, int socket, int64_t slot_bytes) {
    auto made = UcxTransport::Create({.self = self}, ledger);
    CHECK(made.ok(), "{}", made.error().message);
    transport = *std::move(made);
    router = std::make_unique<RankRouter>(
        scheduler, *transport,
        RankRouter::Options{.self = self,
                            .job = JobId(1),
                            .epoch = Epoch(1),
                            .on_peer_down = [this](Rank, const Error&) { scheduler.Stop(); },
                            .on_credit = [this](Rank, uint16_t) { on_credit(); },
                            .on_drop = [](DropCause, const Envelope&,
                                          const Error& e) { CHECK(false, "{}", e.message); }});
    const Rank peer(1 - self.value);
    CHECK(transport->PostSlots(peer, kChannel, kSlots, slot_bytes).ok());
    WriteAddress(socket, transport->LocalAddress());
    CHECK(transport->Connect(peer, ReadAddress(socket)).ok());
    transport->SetCredits(peer, kChannel, kSlots);
  }

  MemoryLedger ledger{};
  std::function<void()> on_credit = [] {};
  std::unique_ptr<Transport> transport{};
  Scheduler scheduler{{.trace_handlers = false}};
  std::unique_ptr<RankRouter> router{};
};

class Answerer : public Actor<Answerer, Ping, WithBulk<Block>> {
 public:
  explicit Answerer(RemoteRef<Ping> peer) : peer_(peer) {}
  Status On(Ping ping) { return peer_.Send(ping); }
  Status On(WithBulk<Block>) { return {}; }  // lets the slot go

 private:
  RemoteRef<Ping> peer_;
};

class Asker : public Actor<Asker, Ping> {
 public:
  Asker(RemoteRef<Ping> peer, int rounds) : peer_(peer), rounds_(rounds) {}
  Status On(Ping ping) {
    if (--rounds_ > 0) return peer_.Send(ping);
    context().scheduler().Stop();
    return {};
  }

 private:
  RemoteRef<Ping> peer_;
  int rounds_;
};

// Runs `rank0` here against a rank 1 in a child process, which answers.
double WithAnswerer(int64_t slot_bytes, const std::function<double(Process&)>& rank0) {
  int sockets[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
  const pid_t child = fork();
  if (child == 0) {
    close(sockets[0]);
    PinTo(1 % static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
    Process process(Rank(1), sockets[1], slot_bytes);
    auto actor = process.scheduler.Spawn<Answerer>({.name = "answerer"},
                                                   process.router->Remote<Ping>(Rank(0), kActor));
    process.router->Register<Ping, WithBulk<Block>>(kActor, actor);
    process.scheduler.Run();
    _exit(0);
  }
  close(sockets[1]);
  cpu_set_t before;
  sched_getaffinity(0, sizeof(before), &before);
  PinTo(0);
  double sample = 0;
  {
    Process process(Rank(0), sockets[0], 1);
    sample = rank0(process);
    process.transport->Close(100);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(sockets[0]);
  sched_setaffinity(0, sizeof(before), &before);
  return sample;
}

double OurOneWayUs() {
  return WithAnswerer(1, [](Process& process) {
    auto peer = process.router->Remote<Ping>(Rank(1), kActor);
    const auto run = [&](int rounds) {
      auto asker = process.scheduler.Spawn<Asker>({.name = "asker"}, peer, rounds);
      process.router->Register<Ping>(kActor, asker);
      CHECK(peer.Send(Ping{}).ok());
      const double start_ns = bench::WallNs();
      process.scheduler.Run();
      const double spent_ns = bench::WallNs() - start_ns;
      process.scheduler.End(asker);
      return spent_ns / 1000 / 2 / rounds;
    };
    run(kRoundTrips / 10);
    return run(kRoundTrips);
  });
}

double OurMbPerSecond(int64_t num_bytes, int count) {
  return WithAnswerer(num_bytes, [=](Process& process) {
    auto peer = process.router->Remote<WithBulk<Block>>(Rank(1), kActor);
    const std::vector<std::byte> block(static_cast<size_t>(num_bytes), std::byte{7});
    int to_send = 0;
    int to_return = 0;
    const auto send = [&] {
      while (to_send > 0 && process.transport->Credits(Rank(1), kChannel) > 0) {
        --to_send;
        CHECK(peer.SendBulk(Block{}, block, [] {}, {.channel = kChannel}).ok());
      }
    };
    process.on_credit = [&] {
      if (--to_return == 0) process.scheduler.Stop();
      send();
    };
    const auto run = [&](int messages) {
      to_send = to_return = messages;
      const double start_ns = bench::WallNs();
      send();
      process.scheduler.Run();
      const double spent_ns = bench::WallNs() - start_ns;
      return static_cast<double>(num_bytes) * messages / (spent_ns / 1e9) / (1 << 20);
    };
    process.scheduler.RunUntilIdle();
    run(count / 10 + kSlots);
    return run(count);
  });
}

// A column of ucx_perftest's last line, 0 where it did not run. Its environment is its own: our
// settings of UCX would change what it measures.
double PerftestColumn(const std::string& arguments, int column) {
  const std::string program =
      fmt::format("env -i PATH=\"$PATH\" UCX_POSIX_ERROR_HANDLING=y ucx_perftest -e -p {}", kPort);
  const auto output = bench::OutputOf(
      fmt::format("({} -c 1 >/dev/null 2>&1 &) ; sleep 0.3; {} -c 0 {} 127.0.0.1 2>/dev/null | "
                  "grep Final; sleep 0.2",
                  program, program, arguments));
  if (!output) return 0;
  std::istringstream words(*output);
  std::string word;
  for (int i = 0; i <= column; ++i) words >> word;
  return std::strtod(word.c_str(), nullptr);
}

bool HasPerftest() { return bench::OutputOf("command -v ucx_perftest").has_value(); }

void CompareOrMeasure(bench::Bench& bench, const bench::Comparison& what, const bench::Sample& ours,
                      const bench::Sample& peer) {
  if (HasPerftest()) return bench.Compare(what, ours, peer);
  bench.Measure(what, ours, "ucx_perftest is not installed (ucx-utils)");
}

TROUPE_BENCHMARK(UcxMessage) {
  CompareOrMeasure(bench,
                   {.name = "ucx_message/8B",
                    .unit = "us one way",
                    .peer_name = "ucx_perftest -e",
                    .goal = 0.6,
                    .num_rounds = 5},
                   OurOneWayUs,
                   [] { return PerftestColumn("-t ucp_am_lat -s 8 -n 200000 -w 20000", 4); });
}

TROUPE_BENCHMARK(UcxBulk) {
  for (const auto& [mib, count] : {std::pair{1, 2000}, std::pair{16, 200}}) {
    const int64_t num_bytes = int64_t{mib} << 20;
    CompareOrMeasure(
        bench,
        {.name = fmt::format("ucx_bulk/{}MiB", mib),
         .unit = "MiB/s",
         .peer_name = "ucx_perftest -e",
         .goal = 0.95,
         .higher_is_better = true,
         .num_rounds = 5},
        [=, messages = count] { return OurMbPerSecond(num_bytes, messages); },
        [=, messages = count] {
          return PerftestColumn(
              fmt::format("-t ucp_am_bw -s {} -n {} -w {}", num_bytes, messages, messages / 10), 6);
        });
  }
}

}  // namespace
}  // namespace troupe

// collectives_gloo KIND SIZE BYTES:WARMUP:TIMES…: prints the microseconds of one operation of each
// size among SIZE processes that it starts, in place, float32, over its only transport here, TCP.
// For collectives_bench.cc. `--part FIRST COUNT FOLDER INTERFACE` before it: starts those alone,
// and finds the others by the folder.
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/reduce_scatter.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

class Member {
 public:
  Member(int rank, int size, const std::string& folder, const std::string& interface)
      : context_(std::make_shared<gloo::rendezvous::Context>(rank, size)) {
    gloo::transport::tcp::attr attributes;
    attributes.iface = interface;
    gloo::rendezvous::FileStore store(folder);
    auto device = gloo::transport::tcp::CreateDevice(attributes);
    context_->connectFullMesh(store, device);
  }

  // To run again and again: what an operation of Gloo needs is made here, once. `data` stays.
  std::function<void()> Operation(std::string_view kind, std::vector<float>& data) {
    const size_t part = data.size() / static_cast<size_t>(context_->size);
    if (kind == "all-reduce") {
      auto options = std::make_shared<gloo::AllreduceOptions>(context_);
      options->setOutput(data.data(), data.size());
      options->setReduceFunction([](void* out, const void* a, const void* b, size_t count) {
        gloo::sum<float>(out, a, b, count);
      });
      return [options] { gloo::allreduce(*options); };
    }
    if (kind == "reduce-scatter") {
      const std::vector<int> counts(static_cast<size_t>(context_->size), static_cast<int>(part));
      auto algorithm = std::make_shared<gloo::ReduceScatterHalvingDoubling<float>>(
          context_, std::vector{data.data()}, static_cast<int>(data.size()), counts);
      return [algorithm] { algorithm->run(); };
    }
    auto options = std::make_shared<gloo::AllgatherOptions>(context_);
    options->setInput(data.data() + static_cast<size_t>(context_->rank) * part, part);
    options->setOutput(data.data(), data.size());
    return [options] { gloo::allgather(*options); };
  }
  void Barrier() {
    gloo::BarrierOptions options(context_);
    gloo::barrier(options);
  }

 private:
  std::shared_ptr<gloo::rendezvous::Context> context_;
};

double Microseconds(Member& member, const char* kind, long long num_bytes, int warmup, int times) {
  std::vector<float> data(static_cast<size_t>(num_bytes) / sizeof(float));
  const auto operate = member.Operation(kind, data);
  for (int i = 0; i < warmup; ++i) operate();
  member.Barrier();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) operate();
  member.Barrier();
  const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
  return spent.count() / times;
}

// Each member to a CPU that it may use, in turn, as workers of `troupe bench collectives`.
void BindToCpu(int rank) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  int before = rank % CPU_COUNT(&allowed);
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || before-- > 0) continue;
    CPU_ZERO(&allowed);
    CPU_SET(cpu, &allowed);
    sched_setaffinity(0, sizeof(allowed), &allowed);
    return;
  }
}

struct Part {
  int first = 0;
  int count = 0;
  std::string folder{};
  std::string interface = "lo";
};

void Run(int rank, int size, const Part& part, const char* kind, char** sizes) {
  BindToCpu(rank);  // before Gloo starts its thread
  Member member(rank, size, part.folder, part.interface);
  for (; *sizes != nullptr; ++sizes) {
    long long num_bytes = 0;
    int warmup = 0;
    int times = 0;
    if (std::sscanf(*sizes, "%lld:%d:%d", &num_bytes, &warmup, &times) != 3) return;
    const double us = Microseconds(member, kind, num_bytes, warmup, times);
    if (rank == 0) std::printf("%.3f\n", us);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Part part;
  const bool alone = argc < 6 || std::string_view(argv[1]) != "--part";
  if (!alone) {
    part = {std::atoi(argv[2]), std::atoi(argv[3]), argv[4], argv[5]};
    argc -= 5;
    argv += 5;
  }
  if (argc < 4) return 2;
  const int size = std::atoi(argv[2]);
  if (alone) {
    part.count = size;
    part.folder = std::filesystem::temp_directory_path() / "collectives-XXXXXX";
    if (mkdtemp(part.folder.data()) == nullptr) return 1;
  }
  std::vector<pid_t> children;
  for (int rank = part.first + 1; rank < part.first + part.count; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      Run(rank, size, part, argv[1], argv + 3);
      _exit(0);
    }
    children.push_back(child);
  }
  Run(part.first, size, part, argv[1], argv + 3);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  if (alone) std::filesystem::remove_all(part.folder);
  return 0;
}

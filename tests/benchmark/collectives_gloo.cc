// collectives_gloo KIND BYTES TIMES SIZE: prints the microseconds of one operation among SIZE
// processes that it starts, in place, float32, over its only transport for one host. For
// collectives_bench.cc.
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/reduce_scatter.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

namespace {

class Member {
 public:
  Member(int rank, int size, const std::string& folder)
      : context_(std::make_shared<gloo::rendezvous::Context>(rank, size)) {
    gloo::transport::tcp::attr attributes;
    attributes.iface = "lo";
    gloo::rendezvous::FileStore store(folder);
    auto device = gloo::transport::tcp::CreateDevice(attributes);
    context_->connectFullMesh(store, device);
  }

  void Operate(std::string_view kind, std::vector<float>& data) {
    const size_t part = data.size() / static_cast<size_t>(context_->size);
    if (kind == "all-reduce") {
      gloo::AllreduceOptions options(context_);
      options.setOutput(data.data(), data.size());
      options.setReduceFunction([](void* out, const void* a, const void* b, size_t count) {
        gloo::sum<float>(out, a, b, count);
      });
      gloo::allreduce(options);
    } else if (kind == "reduce-scatter") {
      const std::vector<int> counts(static_cast<size_t>(context_->size), static_cast<int>(part));
      gloo::ReduceScatterHalvingDoubling<float>(context_, {data.data()},
                                                static_cast<int>(data.size()), counts)
          .run();
    } else {
      gloo::AllgatherOptions options(context_);
      options.setInput(data.data() + static_cast<size_t>(context_->rank) * part, part);
      options.setOutput(data.data(), data.size());
      gloo::allgather(options);
    }
  }
  void Barrier() {
    gloo::BarrierOptions options(context_);
    gloo::barrier(options);
  }

 private:
  std::shared_ptr<gloo::rendezvous::Context> context_;
};

double Run(int rank, int size, const std::string& folder, const char* kind, long long num_bytes,
           int times) {
  Member member(rank, size, folder);
  std::vector<float> data(static_cast<size_t>(num_bytes) / sizeof(float));
  for (int i = 0; i < times / 10 + 5; ++i) member.Operate(kind, data);
  member.Barrier();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) member.Operate(kind, data);
  member.Barrier();
  const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
  return spent.count() / times;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const int size = std::atoi(argv[4]);
  std::string folder = std::filesystem::temp_directory_path() / "collectives-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return 1;
  std::vector<pid_t> children;
  for (int rank = 1; rank < size; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      Run(rank, size, folder, argv[1], std::atoll(argv[2]), std::atoi(argv[3]));
      _exit(0);
    }
    children.push_back(child);
  }
  const double us = Run(0, size, folder, argv[1], std::atoll(argv[2]), std::atoi(argv[3]));
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  std::filesystem::remove_all(folder);
  std::printf("%.3f\n", us);
  return 0;
}

// The backend over NCCL itself, where its library and GPUs are.
#include <dlfcn.h>

#include <cstdlib>

#include "tests/runtime/collective/every_operation.h"
#include "tests/runtime/collective/group_conformance.h"
#include "tests/runtime/collective/nccl/nccl_world.h"

namespace troupe {
namespace {

// What the tests need of CUDA beside what the backend calls.
struct CudaMemory {
  cudaError_t (*allocate)(void** memory, size_t num_bytes) = nullptr;
  cudaError_t (*free)(void* memory) = nullptr;
  cudaError_t (*copy)(void* to, const void* from, size_t num_bytes, cudaMemcpyKind) = nullptr;
  cudaError_t (*create_stream)(cudaStream_t* stream, unsigned flags) = nullptr;
};

CudaMemory LoadCudaMemory() {
  const std::string file = "libcudart.so." + std::to_string(CUDART_VERSION / 1000);
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  const auto find = [handle](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(handle, name));
    CHECK(*function != nullptr, "{}", name);
  };
  CudaMemory memory;
  find("cudaMalloc", &memory.allocate);
  find("cudaFree", &memory.free);
  find("cudaMemcpy", &memory.copy);
  find("cudaStreamCreateWithFlags", &memory.create_stream);
  return memory;
}

// Operations on the host's memory by those of a group on the device's: copied there and back.
class StagedGroup final : public Group {
 public:
  StagedGroup(std::unique_ptr<Group> inner, const CudaMemory& cuda, const NcclLibrary& library,
              int device)
      : Group(inner->spec(), inner->elements()),
        inner_(std::move(inner)),
        cuda_(cuda),
        library_(library),
        device_(device) {}

  Task<Status> Run(GroupOperation operation) override {
    if (operation.kind == GroupOperationKind::kBarrier) co_return co_await inner_->Run(operation);
    const int64_t element_bytes = ElementOf(operation.dtype()).num_bytes;
    const GroupOperation on_host = operation;
    library_.cudaSetDevice(device_);
    operation.input.data = ToDevice(on_host.input.data, on_host.input.count * element_bytes);
    operation.output.data =
        on_host.output.data == on_host.input.data
            ? const_cast<void*>(operation.input.data)
            : ToDevice(on_host.output.data, on_host.output.count * element_bytes);
    const Status ended = co_await inner_->Run(operation);
    library_.cudaSetDevice(device_);
    if (on_host.output.count > 0) {
      cuda_.copy(on_host.output.data, operation.output.data,
                 static_cast<size_t>(on_host.output.count * element_bytes), cudaMemcpyDeviceToHost);
    }
    if (operation.output.data != operation.input.data) cuda_.free(operation.output.data);
    cuda_.free(const_cast<void*>(operation.input.data));
    co_return ended;
  }

 private:
  void* ToDevice(const void* from, int64_t num_bytes) {
    void* to = nullptr;
    CHECK(cuda_.allocate(&to, static_cast<size_t>(num_bytes) + 1) == cudaSuccess);
    if (num_bytes > 0) {
      cuda_.copy(to, from, static_cast<size_t>(num_bytes), cudaMemcpyHostToDevice);
    }
    return to;
  }

  const std::unique_ptr<Group> inner_;
  const CudaMemory& cuda_;
  const NcclLibrary& library_;
  const int device_;
};

// Two members of one process, on two GPUs or one: the sum of two is the same in any order, so every
// byte is that of groups over messages.
TEST(NcclGpuTest, TwoMembersComputeWhatMessagesDo) {
  static const auto library = NcclLibrary::Load({});
  if (!library.ok()) GTEST_SKIP() << library.error().message;
  int num_devices = 0;
  const cudaError_t counted = library->cudaGetDeviceCount(&num_devices);
  if (counted != cudaSuccess || num_devices == 0) {
    GTEST_SKIP() << "no GPU here: " << library->cudaGetErrorString(counted);
  }
  if (num_devices == 1 && library->version < kSharedGpuVersion) {
    GTEST_SKIP() << "one GPU, which two ranks share with NCCL "
                 << NcclVersionText(kSharedGpuVersion) << " or later; this is "
                 << NcclVersionText(library->version);
  }
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", /*overwrite=*/1);
  static const CudaMemory cuda = LoadCudaMemory();

  struct GpuWorld : RouterWorld<InprocWorldNetwork> {
    using RouterWorld::RouterWorld;
    std::unique_ptr<Group> Open(const GroupSpec& spec, uint16_t channel) {
      int count = 0;
      library->cudaGetDeviceCount(&count);
      const int device = spec.self.value % count;
      cudaStream_t stream = nullptr;
      library->cudaSetDevice(device);
      CHECK(cuda.create_stream(&stream, cudaStreamNonBlocking) == cudaSuccess);
      return std::make_unique<StagedGroup>(
          std::make_unique<NcclGroup>(
              scheduler(spec.self.value), *library, RouterWorld::Open(spec, channel),
              NcclOptions{
                  .device = device, .stream = stream, .completion = NcclCompletion::kFinished}),
          cuda, *library, device);
    }
  };
  const auto left_by = [](auto world) {
    std::vector<std::unique_ptr<Group>> groups;
    std::vector<std::unique_ptr<StreamScope>> scopes;
    std::vector<std::string> left(2);
    std::vector<std::optional<Status>> ended(2);
    for (const int rank : {0, 1}) {
      groups.push_back(world->Open({.id = GroupId(0),
                                    .name = "all",
                                    .ranks = {Rank(0), Rank(1)},
                                    .self = Rank(rank),
                                    .deadline_ms = 60'000},
                                   16));
      scopes.push_back(std::make_unique<StreamScope>(world->stream(rank)));
    }
    for (const size_t rank : {size_t{0}, size_t{1}}) {
      world->stream(static_cast<int>(rank))
          .LaunchTask(*scopes[rank], RunEveryOperation(*groups[rank], &left[rank]),
                      [&ended, rank](const WorkTime&, Status s) { ended[rank] = std::move(s); });
    }
    EXPECT_TRUE(world->Until([&] { return ended[0] && ended[1]; }));
    for (const auto& status : ended) {
      EXPECT_TRUE(status && status->ok()) << (status ? status->error().message : "still open");
    }
    scopes.clear();
    return left;
  };
  EXPECT_EQ(left_by(std::make_unique<GpuWorld>(2)),
            left_by(std::make_unique<RouterWorld<InprocWorldNetwork>>(2)));
}

}  // namespace
}  // namespace troupe

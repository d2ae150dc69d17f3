#include "runtime/collective/nccl/nccl_communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "runtime/base/thread.h"

namespace troupe {
namespace {

std::optional<ncclDataType_t> TypeNamed(std::string_view name) {
  if (name == "float32") return ncclFloat32;
  if (name == "bfloat16") return ncclBfloat16;
  if (name == "float16") return ncclFloat16;
  if (name == "float64") return ncclFloat64;
  if (name == "int32") return ncclInt32;
  if (name == "int64") return ncclInt64;
  return std::nullopt;
}

// Cut to the field, which keeps a zero at its end.
template <size_t N>
void CopyText(std::string_view text, char (&field)[N]) {
  std::memcpy(field, text.data(), std::min(text.size(), N - 1));
}

}  // namespace

NcclCommunicator::NcclCommunicator(const NcclLibrary& library, int device, cudaStream_t stream)
    : library_(library), device_(device), stream_(stream) {}

NcclCommunicator::~NcclCommunicator() {
  if (alive()) Abort([] {});
  WaitUntilEnded();
  for (cudaEvent_t event : events_) library_.cudaEventDestroy(event);
}

Status NcclCommunicator::CallError(ncclResult_t result) const {
  if (result == ncclSuccess || result == ncclInProgress) return {};
  const ErrorCode code = result == ncclRemoteError ? ErrorCode::kPeerDown : ErrorCode::kFailed;
  const char* detail = library_.ncclGetLastError(communicator_);
  const bool has_detail = detail != nullptr && *detail != '\0';
  return MakeError(code, "NCCL: {}{}{}", library_.ncclGetErrorString(result),
                   has_detail ? ": " : "", has_detail ? detail : "");
}

Status NcclCommunicator::CudaError(cudaError_t result) const {
  if (result == cudaSuccess) return {};
  return MakeError(ErrorCode::kFailed, "CUDA: {}", library_.cudaGetErrorString(result));
}

Result<NcclMember> NcclCommunicator::Member() const {
  NcclMember member{.version = library_.version};
  const char* shares = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  member.may_share_gpu = shares != nullptr && std::string_view(shares) == "1" ? 1 : 0;
  std::string host;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), host);
  CopyText(host, member.host);
  RETURN_IF_ERROR(
      CudaError(library_.cudaDeviceGetPCIBusId(member.gpu, sizeof(member.gpu), device_)));
  return member;
}

Result<NcclId> NcclCommunicator::NewId() const {
  ncclUniqueId id;
  RETURN_IF_ERROR(CallError(library_.ncclGetUniqueId(&id)));
  return std::bit_cast<NcclId>(id);
}

Status NcclCommunicator::Init(const NcclId& id, int size, int index) {
  RETURN_IF_ERROR(CudaError(library_.cudaSetDevice(device_)));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return CallError(library_.ncclCommInitRankConfig(
      &communicator_, size, std::bit_cast<ncclUniqueId>(id), index, &config));
}

Result<bool> NcclCommunicator::IsIdle() const {
  ncclResult_t state = ncclSuccess;
  RETURN_IF_ERROR(CallError(library_.ncclCommGetAsyncError(communicator_, &state)));
  RETURN_IF_ERROR(CallError(state));
  return state == ncclSuccess;
}

ncclResult_t NcclCommunicator::Issue(const NcclCall& call, ncclDataType_t type) const {
  const auto count = static_cast<size_t>(call.count);
  switch (call.kind) {
    case NcclCallKind::kAllReduce:
      return library_.ncclAllReduce(call.send, call.receive, count, type, ncclSum, communicator_,
                                    stream_);
    case NcclCallKind::kReduceScatter:
      return library_.ncclReduceScatter(call.send, call.receive, count, type, ncclSum,
                                        communicator_, stream_);
    case NcclCallKind::kAllGather:
      return library_.ncclAllGather(call.send, call.receive, count, type, communicator_, stream_);
    case NcclCallKind::kBroadcast:
      return library_.ncclBroadcast(call.send, call.receive, count, type, call.peer, communicator_,
                                    stream_);
    case NcclCallKind::kReduce:
      return library_.ncclReduce(call.send, call.receive, count, type, ncclSum, call.peer,
                                 communicator_, stream_);
    case NcclCallKind::kSend:
      return library_.ncclSend(call.send, count, type, call.peer, communicator_, stream_);
    case NcclCallKind::kReceive:
      return library_.ncclRecv(call.receive, count, type, call.peer, communicator_, stream_);
  }
  return ncclInvalidArgument;
}

Status NcclCommunicator::Enqueue(std::span<const NcclCall> calls, std::string_view element) {
  const auto type = TypeNamed(element);
  if (!type) return MakeError(ErrorCode::kFailed, "NCCL has no elements of {}", element);
  RETURN_IF_ERROR(CudaError(library_.cudaSetDevice(device_)));
  if (calls.size() == 1) return CallError(Issue(calls[0], *type));
  RETURN_IF_ERROR(CallError(library_.ncclGroupStart()));
  Status issued;
  for (const NcclCall& call : calls) {
    issued = CallError(Issue(call, *type));
    if (!issued.ok()) break;
  }
  // Ended whatever happened: it counts per thread, and other communicators use this one.
  const Status ended = CallError(library_.ncclGroupEnd());
  return issued.ok() ? ended : issued;
}

Result<cudaEvent_t> NcclCommunicator::Mark() {
  cudaEvent_t event = nullptr;
  if (free_events_.empty()) {
    RETURN_IF_ERROR(CudaError(library_.cudaSetDevice(device_)));
    RETURN_IF_ERROR(CudaError(library_.cudaEventCreateWithFlags(&event, cudaEventDisableTiming)));
    events_.push_back(event);
  } else {
    event = free_events_.back();
    free_events_.pop_back();
  }
  const Status recorded = CudaError(library_.cudaEventRecord(event, stream_));
  if (recorded.ok()) return event;
  free_events_.push_back(event);
  return recorded.error();
}

Result<bool> NcclCommunicator::Passed(cudaEvent_t event) {
  const cudaError_t state = library_.cudaEventQuery(event);
  if (state == cudaErrorNotReady) return false;
  free_events_.push_back(event);
  RETURN_IF_ERROR(CudaError(state));
  return true;
}

Status NcclCommunicator::Finalize() { return CallError(library_.ncclCommFinalize(communicator_)); }

void NcclCommunicator::Destroy(std::function<void()> ended) {
  End([this] { library_.ncclCommDestroy(communicator_); }, std::move(ended));
}

void NcclCommunicator::Abort(std::function<void()> ended) {
  End(
      [this] {
        // Kernels see the abort and leave; what comes through the stream after them is the
        // caller's. No answer is of use: the communicator is gone either way.
        library_.ncclCommAbort(communicator_);
        library_.cudaStreamSynchronize(stream_);
      },
      std::move(ended));
}

void NcclCommunicator::End(std::function<void()> how, std::function<void()> ended) {
  ending_ = true;
  const std::function<void()> body = [this, how = std::move(how), ended = std::move(ended)] {
    library_.cudaSetDevice(device_);
    how();
    ended();
  };
  auto thread = StartThread("the end of an NCCL communicator", body);
  if (!thread.ok()) return body();
  ending_thread_ = *std::move(thread);
}

void NcclCommunicator::WaitUntilEnded() {
  if (ending_thread_.joinable()) ending_thread_.join();
}

}  // namespace troupe

#include "tests/runtime/collective/nccl/nccl_stand_in.h"

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

namespace {

// One call as it lies on a stream. A sum or copy of all members is their n-th such call; a send is
// matched with the receiver's first receive of the sender that is not matched yet.
struct Call {
  std::string function;
  const void* send = nullptr;
  void* receive = nullptr;
  size_t count = 0;
  ncclDataType_t type = ncclFloat32;
  int peer = 0;
  bool is_done = false;

  bool Fits(const Call& other) const {
    return function == other.function && count == other.count && type == other.type &&
           peer == other.peer;
  }
};

// The calls of one operation.
struct Work {
  ncclComm_t communicator = nullptr;  // null: it was aborted
  std::vector<std::shared_ptr<Call>> calls;
  bool has_arrived = false;
};

// The communicators of one unique id.
struct Clique {
  int size = 0;
  std::map<int, ncclComm_t> members;
  std::map<int, std::deque<std::shared_ptr<Call>>> collectives;            // by rank
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Call>>> sends;  // by source, target
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Call>>> receives;
};

struct Rank {
  std::vector<std::string> calls;
  std::map<std::string, ncclResult_t> failures;
  std::set<std::string> hangs;
  ncclResult_t error = ncclSuccess;
  bool device_hangs = false;
};

}  // namespace

struct CUstream_st {
  int rank = 0;
  std::deque<Work> work;
  uint64_t num_enqueued = 0;
  uint64_t num_done = 0;
};

struct CUevent_st {
  cudaStream_t stream = nullptr;
  uint64_t behind = 0;
};

struct ncclComm {
  std::shared_ptr<Clique> clique;
  int rank = 0;
  bool is_joining = true;
  bool hangs = false;
  int num_in_progress = 0;
};

namespace {

struct Library {
  std::mutex mutex;
  std::condition_variable went_on;
  troupe::nccl_stand_in::Sum sum;
  int version = NCCL_VERSION_CODE;
  int num_devices = 8;
  int num_in_progress = 0;
  uint64_t num_ids = 0;
  std::map<int, Rank> ranks;
  std::map<uint64_t, std::shared_ptr<Clique>> cliques;
  std::set<ncclComm_t> communicators;
  std::deque<std::unique_ptr<CUstream_st>> streams;
};

Library& The() {
  static Library library;
  return library;
}

// Between ncclGroupStart and ncclGroupEnd, on this thread.
thread_local bool in_group = false;
thread_local int num_unsaid_starts = 0;
thread_local ncclComm_t group_communicator = nullptr;
thread_local cudaStream_t group_stream = nullptr;
thread_local std::vector<std::shared_ptr<Call>> group_calls;

const char* TypeName(ncclDataType_t type) {
  switch (type) {
    case ncclFloat32:
      return "float32";
    case ncclBfloat16:
      return "bfloat16";
    case ncclFloat16:
      return "float16";
    case ncclFloat64:
      return "float64";
    case ncclInt32:
      return "int32";
    case ncclInt64:
      return "int64";
    default:
      return "?";
  }
}

size_t TypeBytes(ncclDataType_t type) {
  if (type == ncclBfloat16 || type == ncclFloat16) return 2;
  return type == ncclFloat32 || type == ncclInt32 ? 4 : 8;
}

// Records the call; an answer other than success is what it was told to fail with.
ncclResult_t Said(int rank, const std::string& function, const std::string& text = "") {
  Rank& at = The().ranks[rank];
  const std::string call = text.empty() ? function : function + " " + text;
  const bool repeats =
      function == "ncclCommGetAsyncError" && !at.calls.empty() && at.calls.back() == function;
  if (!repeats) at.calls.push_back(call);
  const auto failure = at.failures.find(function);
  if (failure == at.failures.end()) return ncclSuccess;
  const ncclResult_t result = failure->second;
  at.failures.erase(failure);
  return result;
}

// The answer of a call that goes on beside its caller.
ncclResult_t Begun(ncclComm_t communicator, const std::string& function) {
  communicator->hangs |= The().ranks[communicator->rank].hangs.contains(function);
  communicator->num_in_progress = The().num_in_progress;
  return ncclInProgress;
}

void Collect(Clique& clique) {
  std::vector<std::shared_ptr<Call>> calls;
  for (int rank = 0; rank < clique.size; ++rank) {
    auto& queue = clique.collectives[rank];
    if (queue.empty() || !queue.front()->Fits(*clique.collectives[0].front())) return;
    calls.push_back(queue.front());
  }
  const Call& first = *calls[0];
  const size_t num_bytes = first.count * TypeBytes(first.type);
  const auto copy = [](void* to, const void* from, size_t n) { std::memmove(to, from, n); };
  if (first.function == "ncclBroadcast") {
    const void* from = calls[static_cast<size_t>(first.peer)]->send;
    for (const auto& call : calls) copy(call->receive, from, num_bytes);
  } else if (first.function == "ncclAllGather") {
    std::vector<std::byte> all(num_bytes * calls.size());
    for (size_t i = 0; i < calls.size(); ++i) copy(&all[i * num_bytes], calls[i]->send, num_bytes);
    for (const auto& call : calls) copy(call->receive, all.data(), all.size());
  } else {
    const bool scatters = first.function == "ncclReduceScatter";
    const size_t count = first.count * (scatters ? calls.size() : 1);
    std::vector<std::byte> sum(count * TypeBytes(first.type));
    std::vector<const void*> inputs;
    for (const auto& call : calls) inputs.push_back(call->send);
    The().sum(first.type, sum.data(), inputs, count);
    for (size_t i = 0; i < calls.size(); ++i) {
      const bool reads = first.function != "ncclReduce" || static_cast<int>(i) == first.peer;
      if (reads) copy(calls[i]->receive, &sum[scatters ? i * num_bytes : 0], num_bytes);
    }
  }
  for (int rank = 0; rank < clique.size; ++rank) {
    clique.collectives[rank].front()->is_done = true;
    clique.collectives[rank].pop_front();
  }
}

void Deliver(Clique& clique) {
  for (auto& [pair, sends] : clique.sends) {
    auto& receives = clique.receives[pair];
    while (!sends.empty() && !receives.empty() && sends.front()->count == receives.front()->count) {
      std::memcpy(receives.front()->receive, sends.front()->send,
                  sends.front()->count * TypeBytes(sends.front()->type));
      sends.front()->is_done = receives.front()->is_done = true;
      sends.pop_front();
      receives.pop_front();
    }
  }
}

void Arrive(Work& work) {
  work.has_arrived = true;
  const int rank = work.communicator->rank;
  Clique& clique = *work.communicator->clique;
  for (const auto& call : work.calls) {
    if (call->function == "ncclSend") {
      clique.sends[{rank, call->peer}].push_back(call);
    } else if (call->function == "ncclRecv") {
      clique.receives[{call->peer, rank}].push_back(call);
    } else {
      clique.collectives[rank].push_back(call);
    }
  }
}

// Everything on every stream that can go on.
void GoOn() {
  bool moved = true;
  while (moved) {
    moved = false;
    for (const auto& stream : The().streams) {
      if (stream->work.empty()) continue;
      Work& work = stream->work.front();
      if (work.communicator != nullptr) {
        if (The().ranks[stream->rank].device_hangs) continue;
        if (!std::exchange(work.has_arrived, true)) {
          Arrive(work);
          moved = true;
        }
        const auto clique = work.communicator->clique;
        for (size_t before = work.calls.size() + 1; before > 0; --before) Collect(*clique);
        Deliver(*clique);
        if (!std::ranges::all_of(work.calls, [](const auto& call) { return call->is_done; })) {
          continue;
        }
      }
      stream->work.pop_front();
      ++stream->num_done;
      moved = true;
    }
  }
  The().went_on.notify_all();
}

ncclResult_t Enqueued(ncclComm_t communicator, cudaStream_t stream,
                      std::vector<std::shared_ptr<Call>> calls, const std::string& function) {
  stream->work.push_back({communicator, std::move(calls)});
  ++stream->num_enqueued;
  return Begun(communicator, function);
}

ncclResult_t Take(ncclComm_t communicator, cudaStream_t stream, Call call) {
  std::lock_guard lock(The().mutex);
  for (; num_unsaid_starts > 0; --num_unsaid_starts)
    (void)Said(communicator->rank, "ncclGroupStart");
  const bool has_root = call.function == "ncclBroadcast" || call.function == "ncclReduce";
  std::string text = std::to_string(call.count) + " " + TypeName(call.type);
  if (call.function == "ncclSend") text += " to " + std::to_string(call.peer);
  if (call.function == "ncclRecv") text += " from " + std::to_string(call.peer);
  if (has_root) text += " root " + std::to_string(call.peer);
  const std::string function = call.function;
  const ncclResult_t said = Said(communicator->rank, function, text);
  if (in_group) {
    group_communicator = communicator;
    group_stream = stream;
  }
  if (said != ncclSuccess) return said;
  auto shared = std::make_shared<Call>(std::move(call));
  if (!in_group) return Enqueued(communicator, stream, {std::move(shared)}, function);
  group_calls.push_back(std::move(shared));
  return ncclSuccess;
}

// The communicator's memory and calls are nobody's any more.
void Forget(ncclComm_t communicator) {
  Clique& clique = *communicator->clique;
  clique.collectives[communicator->rank].clear();
  for (auto& [pair, calls] : clique.sends) {
    if (pair.first == communicator->rank) calls.clear();
  }
  for (auto& [pair, calls] : clique.receives) {
    if (pair.second == communicator->rank) calls.clear();
  }
  for (const auto& stream : The().streams) {
    for (Work& work : stream->work) {
      if (work.communicator == communicator) work.communicator = nullptr;
    }
  }
  clique.members.erase(communicator->rank);
  The().communicators.erase(communicator);
  delete communicator;
}

}  // namespace

namespace troupe::nccl_stand_in {

void Reset(Sum sum) {
  std::lock_guard lock(The().mutex);
  The().sum = std::move(sum);
  The().version = NCCL_VERSION_CODE;
  The().num_devices = 8;
  The().num_in_progress = 0;
  The().ranks.clear();
  The().cliques.clear();
  The().streams.clear();
}

cudaStream_t NewStream(int rank) {
  std::lock_guard lock(The().mutex);
  The().streams.push_back(std::make_unique<CUstream_st>());
  The().streams.back()->rank = rank;
  return The().streams.back().get();
}

std::vector<std::string> CallsOf(int rank) {
  std::lock_guard lock(The().mutex);
  return The().ranks[rank].calls;
}

void SetVersion(int version) { The().version = version; }
void SetNumDevices(int count) { The().num_devices = count; }
void SetNumInProgress(int count) { The().num_in_progress = count; }

void FailNext(int rank, const std::string& function, ncclResult_t result) {
  std::lock_guard lock(The().mutex);
  The().ranks[rank].failures[function] = result;
}

void SetAsyncError(int rank, ncclResult_t result) {
  std::lock_guard lock(The().mutex);
  The().ranks[rank].error = result;
}

void HangIn(int rank, const std::string& function) {
  std::lock_guard lock(The().mutex);
  The().ranks[rank].hangs.insert(function);
}

void HangDevice(int rank) {
  std::lock_guard lock(The().mutex);
  The().ranks[rank].device_hangs = true;
}

int NumCommunicators() {
  std::lock_guard lock(The().mutex);
  return static_cast<int>(The().communicators.size());
}

}  // namespace troupe::nccl_stand_in

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = The().version;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSystemError:
      return "unhandled system error";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "internal error";
  }
}

const char* ncclGetLastError(ncclComm_t) { return "said by the stand-in"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard lock(The().mutex);
  const uint64_t number = ++The().num_ids;
  std::memset(id, 0, sizeof(*id));
  std::memcpy(id->internal, &number, sizeof(number));
  The().cliques[number] = std::make_shared<Clique>();
  return Said(0, "ncclGetUniqueId");
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  std::lock_guard lock(The().mutex);
  const ncclResult_t said = Said(rank, "ncclCommInitRankConfig",
                                 std::to_string(rank) + " of " + std::to_string(size) +
                                     (config->blocking == 0 ? " non-blocking" : ""));
  if (said != ncclSuccess) return said;
  uint64_t number;
  std::memcpy(&number, id.internal, sizeof(number));
  const auto clique = The().cliques.find(number);
  if (clique == The().cliques.end()) return ncclInvalidArgument;
  clique->second->size = size;
  *communicator = new ncclComm{.clique = clique->second, .rank = rank};
  clique->second->members[rank] = *communicator;
  The().communicators.insert(*communicator);
  return Begun(*communicator, "ncclCommInitRankConfig");
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  std::lock_guard lock(The().mutex);
  const ncclResult_t said = Said(communicator->rank, "ncclCommGetAsyncError");
  if (said != ncclSuccess) return said;
  const Clique& clique = *communicator->clique;
  if (communicator->is_joining && std::ssize(clique.members) == clique.size) {
    communicator->is_joining = false;
  }
  const bool is_busy = communicator->is_joining || communicator->hangs ||
                       std::exchange(communicator->num_in_progress,
                                     std::max(communicator->num_in_progress - 1, 0)) > 0;
  *state = is_busy ? ncclInProgress : ncclSuccess;
  const ncclResult_t error = The().ranks[communicator->rank].error;
  if (error != ncclSuccess) *state = error;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  std::lock_guard lock(The().mutex);
  const ncclResult_t said = Said(communicator->rank, "ncclCommFinalize");
  return said != ncclSuccess ? said : Begun(communicator, "ncclCommFinalize");
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  std::lock_guard lock(The().mutex);
  const ncclResult_t said = Said(communicator->rank, "ncclCommDestroy");
  Forget(communicator);
  return said;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  std::lock_guard lock(The().mutex);
  const ncclResult_t said = Said(communicator->rank, "ncclCommAbort");
  Forget(communicator);
  GoOn();
  return said;
}

ncclResult_t ncclGroupStart() {
  in_group = true;
  ++num_unsaid_starts;  // whose, the first call within it says
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  std::lock_guard lock(The().mutex);
  in_group = false;
  const auto communicator = std::exchange(group_communicator, nullptr);
  const auto calls = std::exchange(group_calls, {});
  if (communicator == nullptr) return ncclSuccess;
  const ncclResult_t said = Said(communicator->rank, "ncclGroupEnd");
  if (said != ncclSuccess) return said;
  return Enqueued(communicator, group_stream, calls, "ncclGroupEnd");
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t communicator, cudaStream_t stream) {
  return Take(communicator, stream, {"ncclAllReduce", send, receive, count, type});
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t, ncclComm_t communicator, cudaStream_t stream) {
  return Take(communicator, stream, {"ncclReduceScatter", send, receive, count, type});
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclComm_t communicator, cudaStream_t stream) {
  return Take(communicator, stream, {"ncclAllGather", send, receive, count, type});
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t communicator, cudaStream_t stream) {
  return Take(communicator, stream, {"ncclBroadcast", send, receive, count, type, root});
}

ncclResult_t ncclReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                        ncclRedOp_t, int root, ncclComm_t communicator, cudaStream_t stream) {
  return Take(communicator, stream, {"ncclReduce", send, receive, count, type, root});
}

ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  return Take(communicator, stream, {"ncclSend", send, nullptr, count, type, peer});
}

ncclResult_t ncclRecv(void* receive, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  return Take(communicator, stream, {"ncclRecv", nullptr, receive, count, type, peer});
}

const char* cudaGetErrorString(cudaError_t) { return "no CUDA-capable device is detected"; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = The().num_devices;
  return The().num_devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device) {
  return device < The().num_devices ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int num_bytes, int device) {
  if (device >= The().num_devices) return cudaErrorNoDevice;
  std::snprintf(id, static_cast<size_t>(num_bytes), "0000:%02x:00.0", device);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::unique_lock lock(The().mutex);
  (void)Said(stream->rank, "cudaStreamSynchronize");
  const uint64_t last = stream->num_enqueued;
  GoOn();
  The().went_on.wait(lock, [&] { return stream->num_done >= last; });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  std::lock_guard lock(The().mutex);
  (void)Said(stream->rank, "cudaEventRecord");
  *event = {stream, stream->num_enqueued};
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  std::lock_guard lock(The().mutex);
  GoOn();
  return event->stream->num_done >= event->behind ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

}  // extern "C"

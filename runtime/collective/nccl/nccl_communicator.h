// NcclCommunicator: one non-blocking communicator of NCCL at one member, and the CUDA stream that
// its operations are enqueued on. Knows no group, no task and no message.
//
//     new --Init--> alive --Finalize--> --Destroy--> ended
//                     |-----------------Abort------> ended
//
// Init, Enqueue and Finalize only begin: the next call follows when IsIdle says so. Destroy and
// Abort may block, so each runs on a thread of its own.
//
// Thread: the scheduler's. The library, and the stream until this has ended, outlive it.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/collective/nccl/nccl_bootstrap.h"
#include "runtime/collective/nccl/nccl_calls.h"
#include "runtime/collective/nccl/nccl_library.h"

namespace troupe {

class NcclCommunicator {
 public:
  // `device`: CUDA's number of the GPU in this process; the stream is one of it.
  NcclCommunicator(const NcclLibrary& library, int device, cudaStream_t stream);
  ~NcclCommunicator();  // aborts what has not ended, and waits until the device has left it
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  // What the other members are told of this one.
  Result<NcclMember> Member() const;
  // For one member to make, and all to begin with.
  Result<NcclId> NewId() const;

  Status Init(const NcclId& id, int size, int index);
  bool alive() const { return communicator_ != nullptr && !ending_; }
  // Whether what was begun last has come through. An error: it failed, or something on the device.
  Result<bool> IsIdle() const;
  // The calls of one operation, at least one; `element`: the name of a dtype ("bfloat16").
  Status Enqueue(std::span<const NcclCall> calls, std::string_view element);
  // An event behind all that is enqueued. It goes back with Passed, where that is true.
  Result<cudaEvent_t> Mark();
  Result<bool> Passed(cudaEvent_t event);
  Status Finalize();

  // Each once; `ended` is called on a thread of its own when nothing of the communicator is left:
  // after Abort the device touches no memory of its operations any more.
  void Destroy(std::function<void()> ended);
  void Abort(std::function<void()> ended);
  void WaitUntilEnded();  // blocks

 private:
  Status CallError(ncclResult_t result) const;  // OK too where the call has only begun
  Status CudaError(cudaError_t result) const;
  ncclResult_t Issue(const NcclCall& call, ncclDataType_t type) const;
  void End(std::function<void()> how, std::function<void()> ended);

  const NcclLibrary& library_;
  const int device_;
  const cudaStream_t stream_;
  ncclComm_t communicator_ = nullptr;
  std::vector<cudaEvent_t> events_{};  // all that were made
  std::vector<cudaEvent_t> free_events_{};
  bool ending_ = false;
  std::thread ending_thread_{};
};

}  // namespace troupe

// A library that stands in for NCCL and CUDA's runtime: it has their functions, as far as the
// backend calls them, for ranks of one process. It records the calls, adds on the host in the order
// of ranks, and fails or hangs where it is told to. Streams and events are its own: what is
// enqueued goes on when its stream has come to it and the other ranks are there, as on a device.
//
// The backend finds it by its path, as it would find NCCL; tests call these functions beside. Any
// thread.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace troupe::nccl_stand_in {

// Adds `count` elements of the inputs into out, in their order.
using Sum = std::function<void(ncclDataType_t type, void* out,
                               const std::vector<const void*>& inputs, size_t count)>;

// Forgets all that was recorded and told. No communicator is alive.
void Reset(Sum sum);
// A stream of the rank's device. Lives until Reset.
cudaStream_t NewStream(int rank);

// What the rank called since Reset, in order: "ncclAllReduce 12 float32". The queries of errors
// that follow each other are one, and those of events are none.
std::vector<std::string> CallsOf(int rank);

void SetVersion(int version);
void SetNumDevices(int count);
// All communicators answer ncclInProgress so often before they are done with a call.
void SetNumInProgress(int count);
// The rank's next call of this function returns `result`.
void FailNext(int rank, const std::string& function, ncclResult_t result);
// From now on the rank's communicators have this error.
void SetAsyncError(int rank, ncclResult_t result);
// The rank's communicators stay in progress from their next call of this function on.
void HangIn(int rank, const std::string& function);
// Nothing that is enqueued goes on on the rank's streams, until it is aborted.
void HangDevice(int rank);

int NumCommunicators();  // alive

}  // namespace troupe::nccl_stand_in

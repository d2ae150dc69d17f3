// NCCL and CUDA's runtime, loaded while the program runs: it is built where their headers are,
// links neither, and starts on machines that have none. A member of the table is the function of
// its name.
//
//     ASSIGN_OR_RETURN(const NcclLibrary nccl, NcclLibrary::Load({}));
//     nccl.ncclGetUniqueId(&id);
//
// The one header that brings NCCL's types. Thread: any.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <string>

#include "runtime/base/result.h"
#include "runtime/collective/nccl/nccl_agreement.h"

namespace troupe {

#define TROUPE_NCCL_FUNCTIONS(F) \
  F(ncclGetVersion)              \
  F(ncclGetErrorString)          \
  F(ncclGetLastError)            \
  F(ncclGetUniqueId)             \
  F(ncclCommInitRankConfig)      \
  F(ncclCommGetAsyncError)       \
  F(ncclCommFinalize)            \
  F(ncclCommDestroy)             \
  F(ncclCommAbort)               \
  F(ncclGroupStart)              \
  F(ncclGroupEnd)                \
  F(ncclAllReduce)               \
  F(ncclReduceScatter)           \
  F(ncclAllGather)               \
  F(ncclBroadcast)               \
  F(ncclReduce)                  \
  F(ncclSend)                    \
  F(ncclRecv)

#define TROUPE_CUDA_RUNTIME_FUNCTIONS(F) \
  F(cudaGetErrorString)                  \
  F(cudaGetDeviceCount)                  \
  F(cudaSetDevice)                       \
  F(cudaDeviceGetPCIBusId)               \
  F(cudaStreamSynchronize)               \
  F(cudaEventCreateWithFlags)            \
  F(cudaEventRecord)                     \
  F(cudaEventQuery)                      \
  F(cudaEventDestroy)

// Names or paths, as dlopen takes them.
struct NcclLibraryFiles {
  std::string nccl = "libnccl.so.2";
  std::string cuda_runtime;  // empty: of the major version that this was built with
};

struct NcclLibrary {
  // An error says which file is missing, which function it lacks, or how old it is: an NCCL older
  // than the headers of the build does not know their structures. What is loaded stays loaded.
  static Result<NcclLibrary> Load(NcclLibraryFiles files);

  NcclVersion version = 0;
#define TROUPE_POINTER(name) decltype(&::name) name = nullptr;
  TROUPE_NCCL_FUNCTIONS(TROUPE_POINTER)
  TROUPE_CUDA_RUNTIME_FUNCTIONS(TROUPE_POINTER)
#undef TROUPE_POINTER
};

}  // namespace troupe

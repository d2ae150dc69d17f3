#include "runtime/collective/nccl/nccl_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <utility>

namespace troupe {
namespace {

Result<void*> Open(const std::string& file) {
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle != nullptr) return handle;
  return MakeError(ErrorCode::kNotFound,
                   "NCCL: {}; install NCCL {} or later and CUDA {}, or give their paths", dlerror(),
                   NcclVersionText(NCCL_VERSION_CODE), CUDART_VERSION / 1000);
}

template <typename Function>
Status Find(void* handle, const std::string& file, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(handle, name));
  if (*function != nullptr) return {};
  return MakeError(ErrorCode::kNotFound, "NCCL: {} has no {}", file, name);
}

}  // namespace

Result<NcclLibrary> NcclLibrary::Load(NcclLibraryFiles files) {
  if (files.cuda_runtime.empty()) {
    files.cuda_runtime = fmt::format("libcudart.so.{}", CUDART_VERSION / 1000);
  }
  ASSIGN_OR_RETURN(void* cuda_runtime, Open(files.cuda_runtime));
  ASSIGN_OR_RETURN(void* nccl, Open(files.nccl));
  NcclLibrary library;
#define TROUPE_FIND_IN(handle, file, name) \
  RETURN_IF_ERROR(Find(handle, file, #name, &library.name));
#define TROUPE_FIND_NCCL(name) TROUPE_FIND_IN(nccl, files.nccl, name)
#define TROUPE_FIND_CUDA(name) TROUPE_FIND_IN(cuda_runtime, files.cuda_runtime, name)
  RETURN_IF_ERROR(Find(nccl, files.nccl, "ncclGetVersion", &library.ncclGetVersion));
  if (library.ncclGetVersion(&library.version) != ncclSuccess ||
      library.version < NCCL_VERSION_CODE) {
    return MakeError(ErrorCode::kNotFound,
                     "NCCL: {} is version {}, and {} or later is needed: that is what this program "
                     "was built with",
                     files.nccl, NcclVersionText(library.version),
                     NcclVersionText(NCCL_VERSION_CODE));
  }
  TROUPE_NCCL_FUNCTIONS(TROUPE_FIND_NCCL)
  TROUPE_CUDA_RUNTIME_FUNCTIONS(TROUPE_FIND_CUDA)
#undef TROUPE_FIND_CUDA
#undef TROUPE_FIND_NCCL
#undef TROUPE_FIND_IN
  return library;
}

}  // namespace troupe

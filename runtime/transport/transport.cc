#include "runtime/transport/transport.h"

namespace troupe {

std::string_view LaneName(Lane lane) {
  switch (lane) {
    case Lane::kInproc:
      return "inproc";
    case Lane::kSharedMemory:
      return "shared-memory";
    case Lane::kTcp:
      return "tcp";
    case Lane::kRdma:
      return "rdma";
    case Lane::kSimulated:
      return "simulated";
  }
  return "unknown";
}

}  // namespace troupe

#include "runtime/transport/inproc/inproc_transport.h"

#include "tests/runtime/transport/conformance.h"

namespace troupe {
namespace {

struct InprocPair {
  InprocPair() {
    CHECK(transports[0]->Connect(Rank(1), transports[1]->LocalAddress()).ok());
    CHECK(transports[1]->Connect(Rank(0), transports[0]->LocalAddress()).ok());
  }
  Transport& at(int rank) { return *transports[rank]; }
  void Kill(int rank) { network.Kill(Rank(rank)); }

  InprocNetwork network{};
  std::unique_ptr<Transport> transports[2] = {network.NewTransport(Rank(0)),
                                              network.NewTransport(Rank(1))};
};

INSTANTIATE_TYPED_TEST_SUITE_P(Inproc, TransportConformance, InprocPair);

}  // namespace
}  // namespace troupe

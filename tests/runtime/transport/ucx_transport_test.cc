#include "runtime/transport/ucx/ucx_transport.h"

#include <dirent.h>

#include <set>

#include "tests/runtime/transport/conformance.h"

namespace troupe {
namespace {

std::unique_ptr<Transport> NewTransport(Rank rank, MemoryLedger& ledger) {
  auto transport =
      UcxTransport::Create({.self = rank, .heartbeat_ms = 20, .silence_ms = 400}, ledger);
  CHECK(transport.ok(), "{}", transport.error().message);
  return *std::move(transport);
}

// Two transports of one process, each with a worker of its own.
struct UcxPair {
  UcxPair() {
    CHECK(transports[0]->Connect(Rank(1), transports[1]->LocalAddress()).ok());
    CHECK(transports[1]->Connect(Rank(0), transports[0]->LocalAddress()).ok());
  }
  Transport& at(int rank) { return *transports[rank]; }
  void Kill(int rank) { transports[rank]->Close(0); }

  MemoryLedger ledger{};
  std::unique_ptr<Transport> transports[2] = {NewTransport(Rank(0), ledger),
                                              NewTransport(Rank(1), ledger)};
};

INSTANTIATE_TYPED_TEST_SUITE_P(Ucx, TransportConformance, UcxPair);

TEST(UcxTransport, AnAddressThatIsNoneIsRefused) {
  MemoryLedger ledger;
  const auto transport = NewTransport(Rank(0), ledger);
  EXPECT_FALSE(transport->Connect(Rank(1), "").ok());
}

TEST(UcxTransport, RanksOfAHostShareMemory) {
  UcxPair pair;
  EXPECT_EQ(pair.at(0).LaneTo(Rank(1)), Lane::kSharedMemory)
      << dynamic_cast<UcxTransport&>(pair.at(0)).DeviceTo(Rank(1));
}

TEST(UcxTransport, LeavesNoSharedMemoryBehind) {
  const auto segments = [] {
    std::set<std::string> names;
    DIR* folder = ::opendir("/dev/shm");
    if (folder == nullptr) return names;
    while (const dirent* entry = ::readdir(folder)) names.insert(entry->d_name);
    ::closedir(folder);
    return names;
  };
  const auto before = segments();
  { UcxPair pair; }
  EXPECT_EQ(segments(), before);
}

}  // namespace
}  // namespace troupe

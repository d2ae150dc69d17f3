// Rank 1 of the two-process tests: answers every message with its payload, and every bulk with its
// checksum. Addresses are exchanged on descriptor 3, whose end ends the process.
#include <poll.h>
#include <xxhash.h>

#include <cstring>
#include <map>

#include "runtime/transport/ucx/ucx_transport.h"
#include "tests/runtime/transport/ucx_child.h"

namespace troupe {
namespace {

constexpr int kSocket = 3;
constexpr int kSlots = 4;
constexpr int64_t kSlotBytes = 4 << 20;

void Echo(Transport& transport, const Delivery& delivery, std::map<uint16_t, uint64_t>& last) {
  Envelope answer;
  answer.channel = delivery.envelope.channel;
  answer.flow_id = delivery.envelope.flow_id;
  // FIFO: one more than the last of its channel, or the answer says so.
  answer.step = delivery.envelope.sequence == ++last[answer.channel] ? 0 : -1;
  if (delivery.envelope.num_bulk == 0) {
    (void)transport.Send(Rank(0), answer, delivery.payload);
    return;
  }
  const uint64_t hash = XXH64(delivery.bulk.bytes().data(), delivery.bulk.bytes().size(), 0);
  (void)transport.Send(Rank(0), answer, std::as_bytes(std::span(&hash, 1)));
}

int Main() {
  MemoryLedger ledger;
  auto made =
      UcxTransport::Create({.self = Rank(1), .heartbeat_ms = 20, .silence_ms = 600'000}, ledger);
  CHECK(made.ok(), "{}", made.error().message);
  Transport& transport = **made;
  bool lost = false;
  std::map<uint16_t, uint64_t> last;
  transport.SetHandlers({.on_message = [&](Delivery d) { Echo(transport, d, last); },
                         .on_peer_down = [&](Rank, Error) { lost = true; },
                         .on_credit = {}});
  for (const uint16_t channel : {1, 2, 3}) {
    CHECK(transport.PostSlots(Rank(0), channel, kSlots, kSlotBytes).ok());
  }
  const std::string address = ReadAddress(kSocket);
  WriteAddress(kSocket, transport.LocalAddress());
  CHECK(transport.Connect(Rank(0), address).ok());
  pollfd waits[2] = {{transport.EventFd(), POLLIN, 0}, {kSocket, POLLIN, 0}};
  while (!lost) {
    if (transport.Progress() > 0 || !transport.Arm()) continue;
    poll(waits, 2, -1);
    if (waits[1].revents != 0) break;
  }
  return 0;
}

}  // namespace
}  // namespace troupe

int main() { return troupe::Main(); }

// Two hosts on one machine: each a network and an IPC namespace (UCX takes a host for another only
// where both differ), joined by a veth pair. Processes of one host share what `unshare --ipc` gives
// the first of them.
#pragma once

#include <unistd.h>

#include <string>

#include "tests/support/shell.h"

namespace troupe::testing {

// Names carry the process' number, so that two test runs do not meet.
struct TwoHosts {
  TwoHosts() {
    const auto made = Shell(
        "{ ip netns add " + a + " && ip netns add " + b + " && ip link add " + link_a +
        " type veth peer name " + link_b + " && ip link set " + link_a + " netns " + a +
        " && ip link set " + link_b + " netns " + b + " && ip -n " + a +
        " addr add 10.77.0.1/24 dev " + link_a + " && ip -n " + b + " addr add 10.77.0.2/24 dev " +
        link_b + " && for n in " + a + " " + b + "; do ip -n $n link set lo up; done && ip -n " +
        a + " link set " + link_a + " up && ip -n " + b + " link set " + link_b +
        " up && ip netns exec " + a + " unshare --ipc true; } 2>&1");
    ready = made.exit_code == 0;
    why = made.output;
  }
  TwoHosts(const TwoHosts&) = delete;
  TwoHosts& operator=(const TwoHosts&) = delete;
  ~TwoHosts() { Shell("ip netns del " + a + "; ip netns del " + b + " 2>/dev/null"); }

  int64_t BytesSent(const std::string& host, const std::string& link) const {
    return std::stoll("0" + Shell("ip netns exec " + host + " cat /sys/class/net/" + link +
                                  "/statistics/tx_bytes")
                                .output);
  }

  const std::string id = std::to_string(::getpid());
  const std::string a = "troupe-a-" + id;
  const std::string b = "troupe-b-" + id;
  const std::string link_a = "ta" + id;
  const std::string link_b = "tb" + id;
  bool ready = false;  // else `why` not
  std::string why{};
};

}  // namespace troupe::testing

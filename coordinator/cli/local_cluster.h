// LocalCluster: what `troupe run` starts when no coordinator is given: a coordinator on a free
// loopback port and a host agent, both children that end with it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "runtime/base/result.h"

namespace troupe {

class LocalCluster {
 public:
  // The daemons' own talk goes to `log_directory`.
  static Result<std::unique_ptr<LocalCluster>> Start(const std::string& state_directory,
                                                     const std::string& log_directory, int slots);
  // Asks both to end, waits, then kills.
  ~LocalCluster();
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  const std::string& address() const { return address_; }

 private:
  LocalCluster() = default;

  std::string address_{};
  pid_t coordinator_ = -1;
  pid_t agent_ = -1;
};

}  // namespace troupe

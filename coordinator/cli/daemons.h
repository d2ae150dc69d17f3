// The two daemons of the command line. Each runs until SIGINT or SIGTERM.
#pragma once

#include <string>

namespace troupe {

struct CoordinatorCommand {
  std::string listen = "127.0.0.1:7077";
  std::string state_directory{};
};
// Prints "troupe coordinator listening on HOST:PORT" on stdout when it takes calls. Returns the
// exit code.
int RunCoordinator(const CoordinatorCommand& command);

struct WorkerCommand {
  std::string join{};
  int slots = 1;
  std::string name{};
};
int RunWorker(const WorkerCommand& command);

}  // namespace troupe

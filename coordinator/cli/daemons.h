// The two daemons of the command line. Each runs until a signal of stop_signals.h: then its jobs
// stop with a checkpoint, those who follow them are told, and it ends; at a second one it ends at
// once.
#pragma once

#include <string>

namespace troupe {

struct CoordinatorCommand {
  std::string listen = "127.0.0.1:7077";
  std::string state_directory{};
  int host_silence_seconds = 30;
};
// Prints "troupe coordinator listening on HOST:PORT" on stdout when it takes calls. Returns the
// exit code.
int RunCoordinator(const CoordinatorCommand& command);

struct WorkerCommand {
  std::string join{};
  int slots = 1;
  std::string name{};
};
// SIGTSTP stops its ranks, then itself; SIGCONT continues all. Returns the exit code.
int RunWorker(const WorkerCommand& command);

// The path of troupe-rank: beside this program, or what TROUPE_RANK names.
std::string RankProgram();

// In this process' environment, which ranks inherit and their transport reads as it is loaded: what
// it would say of a lost peer is said in a sentence of ours. What is set already stays.
void SilenceTransportOfRanks();

}  // namespace troupe

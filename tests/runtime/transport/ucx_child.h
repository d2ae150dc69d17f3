// A peer in another process, for tests that kill and stop it: starts ucx_echo_rank as rank 1 and
// exchanges addresses with it over a socket pair.
#pragma once

#include <dirent.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#include "runtime/base/check.h"

namespace troupe {

inline void WriteAddress(int socket, const std::string& address) {
  const auto size = static_cast<uint32_t>(address.size());
  CHECK(write(socket, &size, sizeof(size)) == static_cast<ssize_t>(sizeof(size)));
  CHECK(write(socket, address.data(), size) == static_cast<ssize_t>(size));
}

inline std::string ReadAddress(int socket) {
  uint32_t size = 0;
  CHECK(recv(socket, &size, sizeof(size), MSG_WAITALL) == static_cast<ssize_t>(sizeof(size)));
  std::string address(size, '\0');
  CHECK(recv(socket, address.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size));
  return address;
}

// What is in shared memory machine-wide: POSIX names and System V segments.
inline std::set<std::string> SharedMemoryNames() {
  std::set<std::string> names;
  if (DIR* folder = opendir("/dev/shm")) {
    while (const dirent* entry = readdir(folder)) names.insert(entry->d_name);
    closedir(folder);
  }
  std::ifstream segments("/proc/sysvipc/shm");
  for (std::string line; std::getline(segments, line);) names.insert(line.substr(0, 21));
  return names;
}

// What was not there `before` and stays. Any process that opens UCX has a name there for a moment,
// so only what is still there after two minutes counts.
inline std::set<std::string> LeftSince(const std::set<std::string>& before) {
  std::set<std::string> left;
  for (int look = 0; look < 1200; ++look) {
    if (look > 0) usleep(100'000);
    const auto now = SharedMemoryNames();
    std::set<std::string> fresh;
    for (const auto& name : now) {
      if (!before.contains(name) && (look == 0 || left.contains(name))) fresh.insert(name);
    }
    left = std::move(fresh);
    if (left.empty()) break;
  }
  return left;
}

class UcxChild {
 public:
  // `program`: ucx_echo_rank. `transports`: the child's UCX_TLS, or null for the defaults.
  UcxChild(const char* program, const char* transports) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    socket_ = pair[0];
    const std::string descriptor = std::to_string(pair[1]);
    pid_ = fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      dup2(pair[1], 3);  // not close-on-exec
      if (transports != nullptr) setenv("UCX_TLS", transports, 1);
      execl(program, "ucx_echo_rank", static_cast<char*>(nullptr));
      _exit(127);
    }
    close(pair[1]);
  }
  UcxChild(const UcxChild&) = delete;
  UcxChild& operator=(const UcxChild&) = delete;
  ~UcxChild() {
    Signal(SIGKILL);
    close(socket_);
  }

  std::string Exchange(const std::string& address) {
    WriteAddress(socket_, address);
    return ReadAddress(socket_);
  }
  void Signal(int signal) {
    if (pid_ <= 0) return;
    kill(pid_, signal);
    if (signal != SIGKILL) return;
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  int pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int socket_ = -1;
};

}  // namespace troupe

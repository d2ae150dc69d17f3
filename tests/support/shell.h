// Runs a command line as a user would, for tests of whole programs.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <string>

namespace troupe::testing {

struct ShellResult {
  int exit_code = -1;    // 128 + signal where one ended it
  std::string output{};  // stdout; "2>&1" in the command adds stderr
};

inline ShellResult Shell(const std::string& command) {
  ShellResult result;
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return result;
  char chunk[4096];
  while (const size_t got = std::fread(chunk, 1, sizeof(chunk), pipe)) {
    result.output.append(chunk, got);
  }
  const int status = ::pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace troupe::testing

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

// Shell: waits until `file` has a line that matches, or the process has ended that should write it.
inline std::string AwaitLine(const std::string& pattern, const std::string& file,
                             const std::string& process) {
  return "until grep -q '" + pattern + "' " + file + " 2>/dev/null || ! kill -0 " + process +
         " 2>/dev/null; do sleep 0.05; done\n";
}

// Shell: waits for two minutes at most until the processes have ended (zombies have), and says
// "alive" and which have not.
inline std::string AwaitEnd(const std::string& processes) {
  return "for look in $(seq 2400); do alive=\n"
         "  for p in " +
         processes + R"(; do
    case $(ps -o stat= -p $p) in Z*|'') ;; *) alive="$alive $p" ;; esac
  done
  [ -z "$alive" ] && break; sleep 0.05
done; [ -z "$alive" ] || echo "alive$alive"
)";
}

}  // namespace troupe::testing

// PyTorch as a benchmark's peer: a python3 that runs a script of this folder.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <nlohmann/json.hpp>

#include "runtime/base/check.h"

namespace troupe {

// What `./run bench` found.
struct TorchPython {
  std::string path{};      // TROUPE_BENCH_PYTHON
  std::string why_none{};  // empty where there is one
};
inline TorchPython FindTorch() {
  const char* python = std::getenv("TROUPE_BENCH_PYTHON");
  const char* why = std::getenv("TROUPE_BENCH_NO_PYTHON");
  if (python != nullptr) return {.path = python};
  return {.why_none = why != nullptr ? why : "TROUPE_BENCH_PYTHON names no python3"};
}

// A python that answers one line with one line, all JSON. Ends with the object.
class TorchProcess {
 public:
  // `script`: of this folder. What torch.compile makes stays in `cache_folder`.
  TorchProcess(const std::string& python, const std::string& script,
               const std::string& cache_folder) {
    int to_child[2];
    int from_child[2];
    CHECK(pipe2(to_child, O_CLOEXEC) == 0 && pipe2(from_child, O_CLOEXEC) == 0);
    pid_ = fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      dup2(to_child[0], 0);
      dup2(from_child[1], 1);
      dup2(open("/dev/null", O_WRONLY), 2);
      setenv("OMP_NUM_THREADS", "1", 1);
      setenv("TORCHINDUCTOR_CACHE_DIR", cache_folder.c_str(), 1);
      setenv("TORCHINDUCTOR_COMPILE_THREADS", "1", 1);
      const std::string path = TROUPE_SOURCE_DIR "/tests/benchmark/" + script;
      execl(python.c_str(), python.c_str(), path.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    close(to_child[0]);
    close(from_child[1]);
    to_ = fdopen(to_child[1], "w");
    from_ = fdopen(from_child[0], "r");
  }
  TorchProcess(const TorchProcess&) = delete;
  TorchProcess& operator=(const TorchProcess&) = delete;
  ~TorchProcess() {
    fclose(to_);
    fclose(from_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  nlohmann::json Ask(const std::string& line) {
    std::fprintf(to_, "%s\n", line.c_str());
    std::fflush(to_);
    char* answer = nullptr;
    size_t capacity = 0;
    const ssize_t size = getline(&answer, &capacity, from_);
    nlohmann::json parsed =
        nlohmann::json::parse(std::string(answer, size > 0 ? static_cast<size_t>(size) : 0),
                              nullptr, /*allow_exceptions=*/false);
    std::free(answer);
    if (!parsed.is_object()) return {{"failed", "python3 ended"}};
    return parsed;
  }

 private:
  pid_t pid_ = -1;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

}  // namespace troupe

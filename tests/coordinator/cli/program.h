// The program `troupe` as a user runs it, in a folder of its own, with fake ranks. Whatever it
// starts runs from that folder's copies, so a test finds what is left by its path.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/patience.h"
#include "tests/support/temporary_folder.h"

namespace troupe::testing {

inline std::string Slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct ProcessInfo {
  pid_t pid = 0;
  pid_t parent = 0;
  std::vector<std::string> arguments{};
};

// A started program. Killed, if it still runs, and reaped with the object.
class Program {
 public:
  Program(std::vector<std::string> words, const std::vector<std::string>& environment,
          const std::string& folder, std::string name)
      : out_(folder + "/" + name + ".out"), err_(folder + "/" + name + ".err") {
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    CHECK(pid_ >= 0);
    if (pid_ != 0) return;
    (void)!::chdir(folder.c_str());
    for (const auto& variable : environment) ::putenv(const_cast<char*>(variable.c_str()));
    ::dup2(::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
    ::dup2(::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
    ::execv(argv[0], argv.data());
    ::_exit(126);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  std::string out() const { return Slurp(out_); }
  std::string err() const { return Slurp(err_); }
  pid_t pid() const { return pid_; }
  void Signal(int signal) const { ::kill(pid_, signal); }

  bool ended() const {
    siginfo_t end{};
    return pid_ <= 0 ||
           (::waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            end.si_pid == pid_);
  }

  // The exit code, 128 + the signal that ended it, or -1: it still runs.
  int Wait() {
    int status = 0;
    if (!Eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; })) return -1;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  // False where it ends without.
  bool Says(const std::string& text) const {
    bool said = false;
    (void)Eventually([&] {
      const bool last_look = ended();
      said = (out() + err()).find(text) != std::string::npos;
      return said || last_look;
    });
    return said;
  }

 private:
  const std::string out_;
  const std::string err_;
  pid_t pid_ = -1;
};

class TroupeTest : public ::testing::Test {
 protected:
  TroupeTest() {
    namespace fs = std::filesystem;
    fs::create_directory(folder_ / "bin");
    fs::copy_file(TROUPE_PROGRAM, folder_ / "bin/troupe");
    fs::copy_file(FAKE_RANK, folder_ / "bin/fake_rank");
    std::string text;
    for (int i = 0; i < 400; ++i) text += "a pipeline of worker actors " + std::to_string(i) + "\n";
    folder_.Write("text.txt", text);
    folder_.Write("job.yaml", R"(
name: small
model: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 4,
        num_key_value_heads: 2, vocab_size: 256, max_position_embeddings: 64}
data: {train: text.txt}
parallelism: {pp: 4}
batch: {micro_batch_size: 2, global_batch_size: 8, seq_len: 32}
optimizer: {lr: 1.0e-3}
train: {steps: 6}
)");
  }
  ~TroupeTest() override {
    EXPECT_TRUE(Eventually([&] { return Running().empty(); })) << "processes are left";
    for (const auto& process : Running()) ::kill(process.pid, SIGKILL);
  }

  // Starts `troupe` with these words.
  Program Troupe(std::vector<std::string> words, std::vector<std::string> environment = {}) {
    words.insert(words.begin(), folder_ / "bin/troupe");
    environment.push_back("TROUPE_RANK=" + (folder_ / "bin/fake_rank"));
    return Program(std::move(words), environment, folder_.path(),
                   "program-" + std::to_string(++started_));
  }
  // A job that would run for minutes.
  Program LongRun(std::vector<std::string> environment = {}) {
    return Troupe({"run", "job.yaml", "--run-dir", "run", "--set", "train.steps=100000"},
                  std::move(environment));
  }

  // Every living process that runs from this folder.
  std::vector<ProcessInfo> Running() const {
    std::vector<ProcessInfo> found;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const auto program = std::filesystem::read_symlink(entry.path() / "exe", ignored).string();
      if (program.empty() || !program.starts_with(folder_.path())) continue;
      ProcessInfo process{.pid = static_cast<pid_t>(std::stol(name)),
                          .parent = ParentOf(entry.path())};
      std::ifstream words(entry.path() / "cmdline", std::ios::binary);
      for (std::string word; std::getline(words, word, '\0');) process.arguments.push_back(word);
      found.push_back(std::move(process));
    }
    return found;
  }
  // Those whose first argument is this: "worker", "coordinator", or "--control-fd" for ranks.
  std::vector<pid_t> RunningAs(const std::string& argument) const {
    std::vector<pid_t> pids;
    for (const auto& process : Running()) {
      if (process.arguments.size() > 1 && process.arguments[1] == argument) {
        pids.push_back(process.pid);
      }
    }
    return pids;
  }

  // Steps in the folder's run "run" so far.
  size_t StepsOfRun() const {
    const std::string metrics = Slurp(folder_ / "run/metrics.jsonl");
    return static_cast<size_t>(std::ranges::count(metrics, '\n'));
  }

  TemporaryFolder folder_;

 private:
  // Of a folder in /proc; 0 where the process has gone.
  static pid_t ParentOf(const std::filesystem::path& process) {
    const std::string stat = Slurp(process / "stat");  // "PID (NAME) STATE PARENT …"
    const size_t name_end = stat.rfind(") ");
    return name_end == std::string::npos ? 0 : std::atoi(stat.c_str() + name_end + 4);
  }

  int started_ = 0;
};

}  // namespace troupe::testing

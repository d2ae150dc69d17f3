// Streams, disks and folders that fail: what was asked for and cannot be printed is exit code 1
// with the reason, and a run goes on without its readers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "runtime/base/digest.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/safetensors.h"
#include "tests/coordinator/cli/program.h"

namespace troupe {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::Program;
using testing::Slurp;

class StreamsTest : public testing::TroupeTest {
 protected:
  // A shell's line, in the test's folder; "bin/troupe" is the program.
  Program Shell(const std::string& line) {
    return Program({"/bin/bash", "-c", line}, {"TROUPE_RANK=" + (folder_ / "bin/fake_rank")},
                   folder_.path(), "shell-" + std::to_string(++shells_));
  }
  // A run's folder with one committed checkpoint, which has a tensor.
  void MakeCheckpoint(const std::string& run) {
    FileSystem& files = SystemFiles();
    const std::string checkpoints = folder_ / run + "/checkpoints";
    CHECK(files.CreateDirectories(checkpoints).ok());
    const std::string name = "tensors-00001-of-00001.safetensors";
    const std::string partial = *BeginCheckpoint(files, checkpoints, 5);
    auto writer =
        *SafetensorsWriter::Create(files, JoinPath(partial, name), {{.name = "w", .shape = {2}}});
    CHECK(writer.Append(BytesOf("weights!")).ok() && writer.Finish().ok());
    CheckpointManifest manifest;
    manifest.step = 5;
    manifest.tensors["w"] =
        WholeTensor(name, TensorDtype::kF32, {2}, DigestOf(BytesOf("weights!")));
    manifest.files[name] = {writer.num_bytes(), writer.digest()};
    CHECK(CommitCheckpoint(files, checkpoints, manifest).ok());
  }
  std::string StateOfRun(const std::string& folder) {
    return nlohmann::json::parse(Slurp(folder_ / folder + "/result.json"))["state"];
  }

 private:
  int shells_ = 0;
};

TEST_F(StreamsTest, WhatCannotBePrintedIsAnError) {
  MakeCheckpoint("run");
  Program coordinator = Troupe({"coordinator", "--listen", "127.0.0.1:0", "--state", "state"});
  ASSERT_TRUE(coordinator.Says("\n")) << coordinator.err();
  const std::string greeting = coordinator.out();
  std::string address = greeting.substr(greeting.rfind(' ') + 1);
  address.pop_back();  // the end of the line
  Program worker = Troupe({"worker", "--join", address, "--slots", "4"});
  Program ended = Troupe({"submit", "job.yaml", "--coordinator", address, "--run-dir", "ended"});
  ASSERT_EQ(ended.Wait(), 0) << ended.err();
  folder_.Write("ended/logs/rank-0001.log", "a line\n");
  const std::string of_job = " 1 --coordinator " + address;
  for (const std::string& words :
       std::vector<std::string>{"plan job.yaml",
                                "plan job.yaml -o json",
                                "schedule zb-v --stages 2 --microbatches 4",
                                "schedule zb-v --stages 32 --microbatches 256 -o csv",
                                "schedule --list",
                                "--help",
                                "run --help",
                                "--version",
                                "validate job.yaml -o json",
                                "validate job.yaml -o jsonl",
                                "ckpt list run",
                                "ckpt list run -o json",
                                "ckpt show run",
                                "ckpt show run -o jsonl",
                                "ckpt verify run",
                                "ckpt verify run -o json",
                                "completion bash",
                                "ps -o json --coordinator " + address,
                                "status" + of_job,
                                "cancel" + of_job,
                                "attach -o json" + of_job,
                                "attach -o jsonl" + of_job,
                                "logs" + of_job}) {
    SCOPED_TRACE(words);
    const bool follows = words.starts_with("attach");
    const std::string lost = follows ? "stdout takes no more: " : "stdout cannot be written: ";
    Program full = Shell("bin/troupe " + words + " >/dev/full");
    EXPECT_EQ(full.Wait(), 1);
    EXPECT_THAT(full.err(), HasSubstr(lost + "No space left on device"));
    Program closed = Shell("bin/troupe " + words + " >&-");
    EXPECT_EQ(closed.Wait(), 1);
    EXPECT_THAT(closed.err(), HasSubstr(lost + "Bad file descriptor"));
    Program left = Shell("bin/troupe " + words + " | true; exit ${PIPESTATUS[0]}");
    EXPECT_THAT(left.Wait(), AnyOf(0, 1)) << "by who was faster";
  }
}

TEST_F(StreamsTest, OneSetTakesSeveralOverrides) {
  Program good =
      Troupe({"validate", "job.yaml", "--set", "train.steps=10", "name=x", "-o", "json"});
  EXPECT_EQ(good.Wait(), 0) << good.err();
  Program bad = Troupe({"validate", "--set", "train.steps=0", "optimizer.lr=-1", "job.yaml"});
  EXPECT_EQ(bad.Wait(), 2);
  EXPECT_THAT(bad.err(), HasSubstr("--set train.steps=0: "));
  EXPECT_THAT(bad.err(), HasSubstr("--set optimizer.lr=-1: "));
}

TEST_F(StreamsTest, WhatCannotBeSaidIsNoError) {
  for (const std::string stderr_to : {"2>/dev/full", "2>&-"}) {
    Program plan = Shell("bin/troupe plan job.yaml " + stderr_to);
    EXPECT_EQ(plan.Wait(), 0);
    Program bad = Shell("bin/troupe validate job.yaml --set train.steps=0 " + stderr_to);
    EXPECT_EQ(bad.Wait(), 2);
    Program run = Shell("bin/troupe run job.yaml --run-dir run -o jsonl " + stderr_to);
    EXPECT_EQ(run.Wait(), 0);
    const std::string out = run.out();
    EXPECT_EQ(std::ranges::count(out, '\n'), 7) << "six steps and the result, nothing else";
    EXPECT_EQ(StateOfRun("run"), "SUCCEEDED");
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(StreamsTest, ARunGoesOnWithoutItsReader) {
  const std::string run = "bin/troupe run job.yaml --set train.steps=300 -o jsonl --run-dir ";
  // Twice what a pipe holds (64 KiB): what is left when `head` goes, however late, finds no place.
  Program head = Shell(run + "a --set train.steps=1500 | head -1; exit ${PIPESTATUS[0]}");
  EXPECT_EQ(head.Wait(), 1) << "not all that was asked for was printed";
  EXPECT_THAT(head.err(), HasSubstr("stdout takes no more: Broken pipe: the job goes on"));
  EXPECT_EQ(StateOfRun("a"), "SUCCEEDED");
  EXPECT_GT(std::filesystem::file_size(folder_ / "a/metrics.jsonl"), 2u << 16);
  Program full = Shell(run + "b >/dev/full");
  EXPECT_EQ(full.Wait(), 1);
  EXPECT_EQ(StateOfRun("b"), "SUCCEEDED");
  Program none = Shell(run + "c 0<&- >&- 2>&-");
  EXPECT_EQ(none.Wait(), 1);
  EXPECT_EQ(StateOfRun("c"), "SUCCEEDED");
  Program talk = Shell("bin/troupe run job.yaml --set train.steps=300 --run-dir d 2>&1 | head -1");
  EXPECT_EQ(talk.Wait(), 0);
  EXPECT_EQ(StateOfRun("d"), "SUCCEEDED");
}

TEST_F(StreamsTest, AFolderThatWasRemovedIsASentence) {
  for (const std::string words : {"validate job.yaml", "plan job.yaml", "run job.yaml"}) {
    Program gone = Shell("mkdir gone; t=$PWD/bin/troupe; cd gone; rmdir ../gone; $t " + words);
    EXPECT_EQ(gone.Wait(), 2) << gone.err();
    EXPECT_THAT(gone.err(), HasSubstr("the working directory cannot be told"));
  }
  // Nothing in this needs one.
  Program absolute = Shell(
      "mkdir gone; j=$PWD/job.yaml; t=$PWD/bin/troupe; d=$PWD/run; cd gone; "
      "rmdir ../gone; $t validate $j && $t run $j --run-dir $d");
  EXPECT_EQ(absolute.Wait(), 0) << absolute.err();
}

TEST_F(StreamsTest, AFifoInAFilesPlaceStopsNothing) {
  for (const std::string name :
       {"events.jsonl", "metrics.jsonl", "logs/coordinator.log", "logs/agent.log",
        "job.yaml.partial", "logs/rank-0001.log", "tb", "result.json.partial"}) {
    std::filesystem::create_directories(folder_ / "run/logs");
    ASSERT_EQ(::mkfifo((folder_ / "run/" + name).c_str(), 0644), 0);
    Program run = Shell("bin/troupe run job.yaml --run-dir run");
    EXPECT_THAT(run.Wait(), AnyOf(0, 1, 2)) << name << "\n" << run.err();
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(StreamsTest, AFileAtItsAllowedSizeIsASentence) {
  Program run = Shell(
      "(ulimit -f 1; exec bin/troupe run job.yaml --run-dir run) 2>&1 | cat; "
      "exit ${PIPESTATUS[0]}");
  EXPECT_EQ(run.Wait(), 1) << run.out();
  EXPECT_THAT(run.out(), HasSubstr("File too large: raise the limit on a file's size (ulimit -f)"));
}

TEST_F(StreamsTest, AMachineThatGivesNoThreadsIsASentence) {
  Program run = Shell("LD_PRELOAD=" NO_THREADS " exec bin/troupe run job.yaml --run-dir run");
  EXPECT_EQ(run.Wait(), 1) << run.err();
  EXPECT_THAT(run.err(), HasSubstr("no thread for the control service: "));
}

TEST_F(StreamsTest, ALimitThatNoProgramOfOursCanLiveWithIsASentence) {
  struct Limited {
    const char* limit;
    const char* sentence;
  };
  for (const char* command :
       {"run job.yaml --run-dir run", "ps --coordinator 127.0.0.1:1", "submit job.yaml"}) {
    for (const Limited& with :
         {Limited{"-v 60000", " of address space, ulimit -v leaves it 58.6 MiB: raise it"},
          Limited{"-n 12", " descriptors, ulimit -n leaves it 12: raise it"}}) {
      Program limited = Shell(std::string("ulimit ") + with.limit + "; exec bin/troupe " + command);
      EXPECT_EQ(limited.Wait(), 1) << command << with.limit << limited.err();
      EXPECT_THAT(limited.err(), HasSubstr(with.sentence)) << command;
    }
  }
}

}  // namespace
}  // namespace troupe

// What a run leaves in shared memory, however it ends: nothing. Each run has an IPC namespace and a
// /dev/shm of its own, so that whatever is there is its.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/shell.h"
#include "tests/support/small_job.h"

namespace troupe {
namespace {

using ::testing::ContainsRegex;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

// `script` where shared memory is empty and `size` is room; names and System V segments that are
// still there at the last of `looks`, 50 ms apart, are its last lines, below "left:".
testing::ShellResult Alone(const testing::TemporaryFolder& folder, const std::string& script,
                           const std::string& size = "50%", int looks = 2400) {
  folder.Write("script", "mount -t tmpfs -o size=" + size + " tmpfs /dev/shm || exit 99\ncd " +
                             folder.path() + "\n" + script + "\nfor i in $(seq " +
                             std::to_string(looks) + R"sh(); do
  left=$(ls -A /dev/shm; tail -n +2 /proc/sysvipc/shm); [ -z "$left" ] && break; sleep 0.05
done
echo "left:"; [ -z "$left" ] || echo "$left"
)sh");
  return testing::Shell("unshare --ipc --mount sh " + folder.path() + "/script 2>&1");
}

TEST(SharedMemory, NothingIsLeftHoweverARunEnds) {
  const struct {
    std::string then;  // with $run, its $agent and one $rank, once the job steps
    std::string says;
    std::string steps = "100000";
  } cases[] = {
      {":", "code 0\n", "400"},       {"kill -INT $run", "code 130\n"},
      {"kill -9 $rank", "code 5\n"},  {"kill -9 $(pgrep -P $agent)", "code 5\n"},
      {"kill -9 $agent", "code 5\n"}, {"kill -9 $run", "code 137\n"},
  };
  for (const auto& c : cases) {
    const testing::TemporaryFolder folder;
    testing::WriteSmallJob(folder);
    const auto made = Alone(folder, ":");
    if (made.exit_code != 0) GTEST_SKIP() << "no IPC namespace here: " << made.output;
    ASSERT_EQ(made.output, "left:\n");
    const auto run =
        Alone(folder,
              TROUPE_BINARY_DIR "/bin/troupe run job.yaml --set train.steps=" + c.steps +
                  R"sh( --run-dir a >out 2>&1 &
run=$!
)sh" + testing::AwaitLine("^step ", "out", "$run") +
                  R"sh(agent=$(pgrep -P $run -f 'troupe worker'); rank=$(pgrep -P $agent | head -1)
echo "mapped $(grep -cE '/memfd:ucx_shm_posix' /proc/$rank/maps)"
)sh" + c.then + R"sh(
wait $run; echo "code $?"
)sh");
    EXPECT_THAT(run.output, HasSubstr(c.says)) << c.then;
    if (c.then != ":") {  // that run may have ended before anyone looked
      EXPECT_THAT(run.output, ContainsRegex("mapped [1-9]"))
          << "this looks at memory that no rank shares";
    }
    EXPECT_THAT(run.output, EndsWith("left:\n")) << c.then;
  }
}

// UCX's files and the slots lie in memory without a name, which no mount bounds.
TEST(SharedMemory, ItsFolderMayBeFull) {
  const testing::TemporaryFolder folder;
  testing::WriteSmallJob(folder);
  const auto made = Alone(folder, ":");
  if (made.exit_code != 0) GTEST_SKIP() << "no IPC namespace here: " << made.output;
  const auto run = Alone(folder,
                         TROUPE_BINARY_DIR
                         "/bin/troupe run job.yaml --run-dir a >out 2>&1; "
                         "echo code $?; grep -h lanes a/events.jsonl",
                         "4k");
  EXPECT_THAT(run.output, HasSubstr("code 0\n"));
  EXPECT_THAT(run.output, HasSubstr("shared-memory"));
  EXPECT_THAT(run.output, Not(HasSubstr("tcp")));
  EXPECT_THAT(run.output, EndsWith("left:\n"));
}

// Killed at any moment of its start, a rank is named by its own number.
TEST(SharedMemory, ARankKilledWhileItStartsIsNamedAndLeavesNothing) {
  const testing::TemporaryFolder folder;
  testing::WriteSmallJob(folder);
  const auto made = Alone(folder, ":");
  if (made.exit_code != 0) GTEST_SKIP() << "no IPC namespace here: " << made.output;
  const auto runs =
      Alone(folder, R"sh(for wait in 0 1 2 3 4 5 6 7; do
  rm -rf a; )sh" TROUPE_BINARY_DIR
                    R"sh(/bin/troupe run job.yaml --set train.steps=100000 --run-dir a >out 2>&1 &
  run=$!; ranks=
  while [ -z "$ranks" ] && kill -0 $run; do
    agent=$(pgrep -P $run -f 'troupe worker') && ranks=$(pgrep -P $agent)
  done
  sleep 0.0$wait; rank=$(pgrep -P $agent | tail -1); kill -9 $rank
  wait $run; code=$?; named=no
  victim="rank [0-9] \(host [^,)]*(, pid $rank)?\)"
  grep -qE "^failed: $victim was killed by signal 9" out && named=yes
  echo "code $code named $named"; [ $named = yes ] || cat out
done
)sh");
  std::string all;
  for (int i = 0; i < 8; ++i) all += "code 5 named yes\n";
  EXPECT_THAT(runs.output, HasSubstr(all));
  EXPECT_THAT(runs.output, EndsWith("left:\n"));
}

// The check above sees what is left.
TEST(SharedMemory, WhatIsLeftIsSeen) {
  const testing::TemporaryFolder folder;
  const auto made = Alone(folder, ":");
  if (made.exit_code != 0) GTEST_SKIP() << "no IPC namespace here: " << made.output;
  EXPECT_THAT(Alone(folder, "echo >/dev/shm/a_name", "50%", 1).output, EndsWith("left:\na_name\n"));
  const auto segment = Alone(folder, "ipcmk --shmem 4096 >/dev/null", "50%", 1);
  EXPECT_THAT(segment.output, ContainsRegex("left:\n.* 4096 .*\n$")) << segment.output;
}

}  // namespace
}  // namespace troupe

// Two hosts on one machine: coordinator and an agent in one, an agent in the other.
#include "tests/support/two_hosts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/support/shell.h"
#include "tests/support/small_job.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

constexpr char kProgram[] = TROUPE_BINARY_DIR "/bin/troupe";

TEST(TwoHosts, TrainBitEqualToOneOverTheirNetwork) {
  testing::TwoHosts hosts;
  if (!hosts.ready) GTEST_SKIP() << "no network namespaces here: " << hosts.why;
  testing::TemporaryFolder folder;
  testing::WriteSmallJob(folder);
  const auto one = testing::Shell("cd " + folder.path() + " && " + kProgram +
                                  " run job.yaml -o jsonl --run-dir one 2>/dev/null");
  ASSERT_EQ(one.exit_code, 0) << one.output;
  const int64_t sent_before =
      hosts.BytesSent(hosts.a, hosts.link_a) + hosts.BytesSent(hosts.b, hosts.link_b);
  // `exec` throughout: the numbers that are killed at the end are the programs' own.
  const std::string in_a = "UCX_NET_DEVICES=" + hosts.link_a + " ip netns exec " + hosts.a;
  const std::string in_b = "UCX_NET_DEVICES=" + hosts.link_b + " ip netns exec " + hosts.b;
  const std::string join = " worker --join 10.77.0.1:7077 --slots 2 --name ";
  const auto two = testing::Shell(
      "cd " + folder.path() + " && { " + in_a + " " + kProgram +
      " coordinator --listen 10.77.0.1:7077 --state state >coordinator.out 2>&1 & c=$!; " +
      testing::AwaitLine("listening", "coordinator.out", "$c") + in_a + " unshare --ipc " +
      kProgram + join + "a >a.out 2>&1 & wa=$!; " + in_b + " unshare --ipc " + kProgram + join +
      "b >b.out 2>&1 & wb=$!; " + in_a + " timeout 120 " + kProgram +
      " submit job.yaml --coordinator 10.77.0.1:7077 --run-dir two -o jsonl 2>talk.out; "
      "echo code $?; kill $wa $wb $c; wait; cat talk.out a.out b.out; }");
  EXPECT_THAT(two.output, HasSubstr("code 0\n")) << two.output;
  EXPECT_EQ(testing::StepsOf(two.output), testing::StepsOf(one.output)) << two.output;
  EXPECT_EQ(testing::StepsOf(two.output).size(), 6u);

  // Ranks 0 and 1 fill the host that joined first, 2 and 3 the other.
  std::ifstream file(folder / "two/events.jsonl");
  std::stringstream events;
  events << file.rdbuf();
  for (const char* lanes : {R"("rank":0,"lanes":{"1":"shared-memory","2":"tcp","3":"tcp"})",
                            R"("rank":1,"lanes":{"0":"shared-memory","2":"tcp","3":"tcp"})",
                            R"("rank":2,"lanes":{"0":"tcp","1":"tcp","3":"shared-memory"})",
                            R"("rank":3,"lanes":{"0":"tcp","1":"tcp","2":"shared-memory"})"}) {
    EXPECT_THAT(events.str(), HasSubstr(lanes));
  }
  // Over TCP an output keeps its buffer until it is sent, and no rank has more than were predicted.
  std::ifstream memory_file(folder / "two/memory.json");
  const auto memory = nlohmann::json::parse(memory_file);
  ASSERT_EQ(memory["ranks"].size(), 4u);
  for (const auto& rank : memory["ranks"]) {
    const auto& comm = rank["tags"]["comm"];
    EXPECT_GT(comm["peak_bytes"], 0);
    EXPECT_LE(comm["peak_bytes"], comm["predicted_bytes"]) << rank.dump();
  }
  // 64 tokens of 32 float32 channels, 4 microbatches, 6 steps, one border, both ways.
  const int64_t crossing = int64_t{64} * 32 * 4 * 4 * 6 * 2;
  const int64_t sent =
      hosts.BytesSent(hosts.a, hosts.link_a) + hosts.BytesSent(hosts.b, hosts.link_b);
  EXPECT_GE(sent - sent_before, crossing);
}

// The second host sees another file under the same path.
TEST(TwoHosts, WithOtherDataUnderOnePathAreRefusedBeforeTheFirstStep) {
  const auto mounts = testing::Shell("unshare --mount true 2>&1");
  if (mounts.exit_code != 0) GTEST_SKIP() << "no mount namespaces here: " << mounts.output;
  testing::TemporaryFolder folder;
  testing::WriteSmallJob(folder);
  const std::string program = kProgram;
  const auto refused = testing::Shell(
      "cd " + folder.path() + " && { " + "tr a-z A-Z <text.txt >other.txt; " + program +
      " coordinator --listen 127.0.0.1:0 --state state >c.out 2>&1 & c=$!; "
      "for i in $(seq 1200); do grep -q listening c.out && break; sleep 0.1; done; "
      "at=$(sed 's/.* //' c.out); " +
      program + " worker --join $at --slots 2 --name alpha >a.out 2>&1 & a=$!; " +
      "unshare --mount sh -c \"mount --bind other.txt text.txt && exec " + program +
      " worker --join $at --slots 2 --name beta\" >b.out 2>&1 & b=$!; "
      "for i in $(seq 1200); do " +
      program +
      " ps --coordinator $at 2>&1 | grep -c '^host' | grep -q 2 && break; sleep 0.1; done; " +
      program +
      " submit job.yaml --coordinator $at --run-dir run 2>&1; echo code $?; "
      "kill $a $b $c; wait; cat a.out b.out; }");
  EXPECT_THAT(refused.output, HasSubstr("code 2\n")) << refused.output;
  EXPECT_THAT(refused.output, HasSubstr("has other bytes than on host"));
}

}  // namespace
}  // namespace troupe

#include "coordinator/rank_end.h"

#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

namespace troupe {
namespace {

proto::RankExited Exited(int signal, const std::vector<std::string>& lines) {
  proto::RankExited exited;
  exited.set_signal(signal);
  exited.set_exit_code(signal == 0 ? 7 : 0);
  for (const std::string& line : lines) exited.add_last_lines(line);
  return exited;
}

TEST(RankEndTest, ABacktraceIsNoCause) {
  const RankEnd end = EndInWords(Exited(
      SIGSEGV,
      {"step 25 done", "[host:7:0:7] Caught signal 11 (Segmentation fault)",
       "==== backtrace (tid:      7) ====",
       " 0  /lib/libucs.so.0(ucs_handle_error+0x2e4) [0x7f0c5d2]",
       " 1  /lib/libc.so.6(+0x42520) [0x7f0c5d1]", "=================================", ""}));
  EXPECT_EQ(end.how, "was killed by signal 11 (SIGSEGV)");
  EXPECT_EQ(end.why, "[host:7:0:7] Caught signal 11 (Segmentation fault)");
}

TEST(RankEndTest, LinesWithoutLettersTellNothing) {
  EXPECT_EQ(EndInWords(Exited(SIGSEGV, {"=======", "---", "12 34"})).why, "");
  EXPECT_EQ(EndInWords(
                Exited(SIGABRT, {"terminate called", "  what():  it is so", "#0  0x7f in main ()"}))
                .why,
            "  what():  it is so");
  EXPECT_EQ(EndInWords(Exited(0, {"the last words", "***"})).why, "the last words");
  EXPECT_EQ(EndInWords(Exited(0, {})).how, "exited with 7");
}

TEST(RankEndTest, AHeadlineIsUtf8) {
  EXPECT_EQ(LastTellingLine(Exited(0, {"caf\xc3\xa9 \xff\xfe end"})), "caf\xc3\xa9 ?? end");
}

TEST(RankEndTest, AKillHasSomebodyWhoSentIt) {
  proto::RankExited exited = Exited(SIGKILL, {"some line"});
  EXPECT_EQ(EndInWords(exited).why, "by somebody else, or by the kernel where memory was short");
  exited.set_oom_kills(0);
  EXPECT_EQ(EndInWords(exited).why, "by somebody else: the kernel killed nobody for memory");
  exited.set_oom_kills(2);
  EXPECT_EQ(EndInWords(exited).why,
            "by the kernel: memory was short here (its cgroup counts 2 killed since this rank's "
            "start)");
  exited.set_cause("host agent a heard nothing from the coordinator for 5 s");
  EXPECT_EQ(EndInWords(exited).how, "was killed by its host agent");
  EXPECT_EQ(EndInWords(exited).why, "host agent a heard nothing from the coordinator for 5 s");
}

}  // namespace
}  // namespace troupe

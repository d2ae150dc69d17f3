#include "coordinator/report/trace_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_folder.h"

namespace troupe::testing {
namespace {

proto::Span Span(const char* name, const char* category, int64_t start_ns, int64_t end_ns) {
  proto::Span span;
  span.set_name(name);
  span.set_category(category);
  span.set_start_ns(start_ns);
  span.set_end_ns(end_ns);
  span.set_microbatch(2);
  span.set_step(1);
  return span;
}

nlohmann::json ReadJson(const std::string& path) {
  return nlohmann::json::parse(*SystemFiles().ReadFile(path, 1 << 20), nullptr, false);
}

TEST(TraceFileTest, ArrowsJoinSenderAndReceiver) {
  const TemporaryFolder folder;
  auto trace = TraceFile::Create(SystemFiles(), folder / "t.json");
  ASSERT_TRUE(trace.ok());
  (*trace)->NameRank(0, "rank 0 (pid 7)");
  proto::Span send = Span("send activation", "send", 1000, 2000);
  send.set_flow_out(9);
  proto::Span receive = Span("receive activation", "receive", 3000, 4000);
  receive.set_flow_in(9);
  (*trace)->Add(0, Span("Forward", "compute", 0, 1000));
  (*trace)->Add(0, send);
  ASSERT_TRUE((*trace)->Flush().ok());
  (*trace)->Add(1, receive);
  ASSERT_TRUE((*trace)->Finish().ok());

  const auto json = ReadJson(folder / "t.json");
  ASSERT_TRUE(json.is_object());
  int starts = 0;
  int ends = 0;
  bool forward = false;
  for (const auto& event : json["traceEvents"]) {
    if (event["ph"] == "s") starts += event["id"] == 9 && event["pid"] == 0 ? 1 : 0;
    if (event["ph"] == "f") ends += event["id"] == 9 && event["pid"] == 1 ? 1 : 0;
    forward = forward || (event["ph"] == "X" && event["name"] == "Forward 2");
  }
  EXPECT_EQ(starts, 1);
  EXPECT_EQ(ends, 1);
  EXPECT_TRUE(forward) << json.dump(1);
}

TEST(TraceFileTest, AFullFileCountsWhatItLeavesOutAndStaysValid) {
  const TemporaryFolder folder;
  auto trace = TraceFile::Create(SystemFiles(), folder / "t.json");
  ASSERT_TRUE(trace.ok());
  const std::string long_name(1 << 20, 'n');
  for (int i = 0; i < 100; ++i) {
    (*trace)->Add(0, Span(long_name.c_str(), "send", i, i + 1));
    ASSERT_TRUE((*trace)->Flush().ok());
  }
  EXPECT_GT((*trace)->spans_left_out(), 30);
  ASSERT_TRUE((*trace)->Finish().ok());
  EXPECT_LT(*SystemFiles().FileBytes(folder / "t.json"), TraceFile::kBytesMax + (2 << 20));
}

TEST(TraceFileTest, AFullDiskIsAnError) {
  const TemporaryFolder folder;
  FaultyFileSystem files({.full_after_bytes = 10});
  auto trace = TraceFile::Create(files, folder / "t.json");
  ASSERT_TRUE(trace.ok());
  (*trace)->Add(0, Span("Forward", "compute", 0, 1));
  const Status flushed = (*trace)->Flush();
  ASSERT_FALSE(flushed.ok());
  EXPECT_EQ(flushed.error().code, ErrorCode::kOutOfSpace);
}

}  // namespace
}  // namespace troupe::testing

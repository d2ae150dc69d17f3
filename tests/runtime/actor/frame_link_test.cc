#include "runtime/actor/frame_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <optional>

namespace troupe {
namespace {

class FrameLinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    agent_ = fds[0];
    link_ = std::make_unique<FrameLink>(
        scheduler_, fds[1],
        FrameLink::Handlers{.on_frame = [this](std::string_view frame) -> Status {
                              if (frame == "bad") {
                                return MakeError(ErrorCode::kCorrupt, "no message");
                              }
                              frames_.emplace_back(frame);
                              return {};
                            },
                            .on_closed = [this](Error e) { closed_ = std::move(e); }});
  }
  void TearDown() override {
    link_.reset();
    if (agent_ >= 0) ::close(agent_);
  }
  void Write(const std::string& bytes) {
    ASSERT_EQ(::send(agent_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  static std::string Frame(const std::string& body) {
    std::string frame;
    for (int i = 0; i < 4; ++i) frame.push_back(static_cast<char>(body.size() >> (8 * i) & 0xff));
    return frame + body;
  }
  Scheduler scheduler_;
  int agent_ = -1;
  std::unique_ptr<FrameLink> link_;
  std::vector<std::string> frames_;
  std::optional<Error> closed_;
};

TEST_F(FrameLinkTest, TakesFramesWhereverTheBytesAreCut) {
  const std::string bytes = Frame("first") + Frame("") + Frame("third");
  for (const char byte : bytes) {
    Write(std::string(1, byte));
    scheduler_.RunUntilIdle();
  }
  EXPECT_THAT(frames_, ::testing::ElementsAre("first", "", "third"));
  EXPECT_FALSE(closed_.has_value());
}

TEST_F(FrameLinkTest, AHostileLengthClosesTheLink) {
  Write("\xff\xff\xff\xff");
  scheduler_.RunUntilIdle();
  ASSERT_TRUE(closed_.has_value());
  EXPECT_EQ(closed_->code, ErrorCode::kCorrupt);
}

TEST_F(FrameLinkTest, WhatTheHandlerRefusesClosesTheLink) {
  Write(Frame("bad") + Frame("after"));
  scheduler_.RunUntilIdle();
  ASSERT_TRUE(closed_.has_value());
  EXPECT_EQ(closed_->code, ErrorCode::kCorrupt);
}

TEST_F(FrameLinkTest, ThePeersEndIsReportedOnce) {
  ::close(std::exchange(agent_, -1));
  scheduler_.RunUntilIdle();
  ASSERT_TRUE(closed_.has_value());
  EXPECT_EQ(closed_->code, ErrorCode::kPeerDown);
}

TEST_F(FrameLinkTest, TelemetryIsDroppedWhileNobodyReadsTheRestIsKept) {
  const std::string telemetry(1 << 20, 't');
  for (int i = 0; i < 20; ++i) link_->SendTelemetry(telemetry);
  EXPECT_GT(link_->dropped(), 0);
  link_->Send("the last word");
  std::string received;
  char chunk[65536];
  for (int idle = 0; idle < 50;) {
    const ssize_t got = ::recv(agent_, chunk, sizeof(chunk), MSG_DONTWAIT);
    if (got > 0) {
      received.append(chunk, static_cast<size_t>(got));
      idle = 0;
    } else {
      link_->Drain(1);
      ++idle;
    }
  }
  const std::string end = Frame("the last word");
  ASSERT_GT(received.size(), end.size());
  EXPECT_EQ(received.substr(received.size() - end.size()), end);
}

}  // namespace
}  // namespace troupe

#include "actors/control_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <optional>

namespace troupe {
namespace {

class ControlLinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    agent_ = fds[0];
    link_ = std::make_unique<ControlLink>(
        scheduler_, fds[1],
        ControlLink::Handlers{.on_order = [this](proto::ToRank o) { orders_.push_back(o); },
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
  static std::string StartOf(int rank) {
    proto::ToRank order;
    order.mutable_start()->set_rank(rank);
    return order.SerializeAsString();
  }

  Scheduler scheduler_;
  int agent_ = -1;
  std::unique_ptr<ControlLink> link_;
  std::vector<proto::ToRank> orders_;
  std::optional<Error> closed_;
};

TEST_F(ControlLinkTest, TakesOrdersWhereverTheBytesAreCut) {
  const std::string bytes = Frame(StartOf(3)) + Frame(StartOf(4));
  for (const char byte : bytes) {
    Write(std::string(1, byte));
    scheduler_.RunUntilIdle();
  }
  ASSERT_EQ(orders_.size(), 2u);
  EXPECT_EQ(orders_[1].start().rank(), 4);
  EXPECT_FALSE(closed_.has_value());
}

TEST_F(ControlLinkTest, AHostileLengthClosesTheLink) {
  Write("\xff\xff\xff\xff");
  scheduler_.RunUntilIdle();
  ASSERT_TRUE(closed_.has_value());
  EXPECT_EQ(closed_->code, ErrorCode::kCorrupt);
}

TEST_F(ControlLinkTest, WhatDoesNotParseClosesTheLink) {
  Write(Frame("\xff\xff\xff"));
  scheduler_.RunUntilIdle();
  ASSERT_TRUE(closed_.has_value());
  EXPECT_EQ(closed_->code, ErrorCode::kCorrupt);
}

TEST_F(ControlLinkTest, TheAgentsEndIsReportedOnce) {
  ::close(std::exchange(agent_, -1));
  scheduler_.RunUntilIdle();
  ASSERT_TRUE(closed_.has_value());
  EXPECT_EQ(closed_->code, ErrorCode::kPeerDown);
}

TEST_F(ControlLinkTest, TelemetryIsDroppedWhileNobodyReadsTheRestIsKept) {
  proto::FromRank telemetry;
  telemetry.mutable_happening()->set_text(std::string(1 << 20, 't'));
  for (int i = 0; i < 20; ++i) link_->SendTelemetry(telemetry);
  EXPECT_GT(link_->dropped(), 0);
  proto::FromRank last;
  last.mutable_finished()->set_last_step(7);
  link_->Send(last);
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
  const std::string end = Frame(last.SerializeAsString());
  ASSERT_GT(received.size(), end.size());
  EXPECT_EQ(received.substr(received.size() - end.size()), end);
}

}  // namespace
}  // namespace troupe

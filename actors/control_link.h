// ControlLink: a rank's end of the socket pair to its host agent. Frames are a u32 little-endian
// length and a protobuf message: orders (ToRank) come, news (FromRank) go.
//
// Thread: the scheduler's.
//   L1. An order is at most kFrameBytesMax long; a longer one, or one that does not parse, closes
//       the link with kCorrupt.
//   L2. News keep their order. While the agent does not read, they are kept up to
//       kBacklogBytesMax; beyond it telemetry (SendTelemetry) is dropped and counted, the rest is
//       kept.
//   L3. on_closed is called once: with kPeerDown when the agent has gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "proto/worker.pb.h"
#include "runtime/actor/scheduler.h"
#include "runtime/base/result.h"

namespace troupe {

class ControlLink {
 public:
  static constexpr uint32_t kFrameBytesMax = 16u << 20;
  static constexpr size_t kBacklogBytesMax = size_t{8} << 20;

  struct Handlers {
    std::function<void(proto::ToRank)> on_order{};
    std::function<void(Error)> on_closed{};
  };

  // Takes the descriptor over.
  ControlLink(Scheduler& scheduler, int fd, Handlers handlers);
  ~ControlLink();
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  void Send(const proto::FromRank& news);
  void SendTelemetry(const proto::FromRank& news);
  // Blocks until everything is written, at most `timeout_ms`: for the last words of a process.
  void Drain(int timeout_ms);

  int64_t dropped() const { return dropped_; }

 private:
  int Progress();
  void Write();
  bool TakeFrames();
  void Close(Error cause);

  Scheduler& scheduler_;
  int fd_;
  Handlers handlers_;
  PollerId poller_;
  std::string incoming_;
  std::string outgoing_;
  size_t written_ = 0;  // of outgoing_
  bool retry_armed_ = false;
  int64_t dropped_ = 0;
  bool closed_ = false;
};

}  // namespace troupe

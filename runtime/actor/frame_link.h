// FrameLink: one end of the socket pair between a host agent and a rank. Frames are a u32
// little-endian length and that many bytes (a protobuf message of proto/worker.proto).
//
// Thread: the scheduler's.
//   L1. A frame is at most kFrameBytesMax long; a longer one closes the link with kCorrupt.
//   L2. Frames keep their order. While the peer does not read, they are kept up to
//       kBacklogBytesMax; beyond it telemetry (SendTelemetry) is dropped and counted, the rest is
//       kept.
//   L3. on_closed is called once, with kPeerDown when the peer has gone; no frame comes after it.
//       Neither handler may destroy the link.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "runtime/actor/scheduler.h"
#include "runtime/base/result.h"

namespace troupe {

class FrameLink {
 public:
  static constexpr uint32_t kFrameBytesMax = 16u << 20;
  static constexpr size_t kBacklogBytesMax = size_t{8} << 20;
  static constexpr size_t kTurnBytesMax = size_t{1} << 20;  // more than a socket holds

  struct Handlers {
    // An error closes the link with it.
    std::function<Status(std::string_view frame)> on_frame{};
    std::function<void(Error)> on_closed{};
  };

  // Takes the descriptor over.
  FrameLink(Scheduler& scheduler, int fd, Handlers handlers);
  ~FrameLink();
  FrameLink(const FrameLink&) = delete;
  FrameLink& operator=(const FrameLink&) = delete;

  void Send(std::string_view frame);
  void SendTelemetry(std::string_view frame);
  // Handles what has arrived, up to kTurnBytesMax; the scheduler calls it, and whoever wants the
  // last words of a peer that has exited.
  int Progress();
  // Ends the link from this side; no handler is called.
  void Close();
  // Blocks until everything is written, at most `timeout_ms`: for the last words of a process.
  void Drain(int timeout_ms);

  bool closed() const { return closed_; }
  int64_t dropped() const { return dropped_; }

 private:
  void Write();
  bool TakeFrames();
  void Fail(Error cause);

  Scheduler& scheduler_;
  int fd_;
  Handlers handlers_;
  PollerId poller_;
  std::string incoming_;
  std::string outgoing_;
  size_t written_ = 0;  // of outgoing_
  TimerId retry_{};
  int64_t dropped_ = 0;
  bool closed_ = false;
};

}  // namespace troupe

// troupe-rank: what a device runs: one rank (rank_root.h) between the control socket of its host
// agent, real transports and a stream of its own; or, with --collectives-bench, a worker that
// measures collectives (collectives_bench_rank.h).
//
//   M1. The end of the control socket ends the process: no rank outlives its agent.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "actors/collectives_bench_rank.h"
#include "actors/rank_load.h"
#include "actors/rank_reports.h"
#include "actors/rank_root.h"
#include "runtime/actor/frame_link.h"
#include "runtime/base/process_limits.h"
#include "runtime/base/talk.h"
#include "runtime/transport/inproc/inproc_transport.h"
#include "runtime/transport/ucx/ucx_transport.h"

namespace troupe {
namespace {

constexpr int kLastWordsMs = 2000;

// A rank alone has 25 descriptors, and every peer adds one or two; UCX' shared memory has files of
// 4 to 8 MiB. Memory is the plan's to judge.
ProcessNeeds NeedsOf(int world_size) {
  constexpr int64_t kSharedFileBytes = int64_t{8} << 20;
  return {.descriptors = 30 + 2 * int64_t{world_size},
          .file_bytes = world_size > 1 ? kSharedFileBytes : 0};
}

class RankProgram {
 public:
  RankProgram(Scheduler& scheduler, int control_fd)
      : scheduler_(scheduler),
        link_(scheduler, control_fd,
              {.on_frame = [this](std::string_view frame) { return OnFrame(frame); },
               .on_closed = [this](const Error&) { scheduler_.Stop(); }}),  // M1
        root_(Seams()) {}

 private:
  RankSeams Seams() {
    RankSeams seams{.scheduler = scheduler_, .files = SystemFiles()};
    seams.new_transport = [this](const TransportNeeds& needs) { return NewTransport(needs); };
    seams.new_stream = [this] { return NewStream("compute"); };
    seams.new_disk_stream = [this] { return NewStream("disk"); };
    seams.measure = [this](const proto::JobSpec& spec, proto::Hello& hello) {
      return MeasureDevice(SystemFiles(), spec, scheduler_.clock(), hello);
    };
    seams.say = [this](const proto::FromRank& news) { link_.Send(news.SerializeAsString()); };
    seams.say_telemetry = [this](const proto::FromRank& news) {
      link_.SendTelemetry(news.SerializeAsString());
    };
    seams.leave = [this] {
      link_.Drain(kLastWordsMs);
      scheduler_.Stop();
    };
    return seams;
  }

  Result<std::unique_ptr<Stream>> NewStream(std::string name) {
    auto stream = std::make_unique<ThreadStream>(scheduler_, std::move(name));
    RETURN_IF_ERROR(stream->started());
    return std::unique_ptr<Stream>(std::move(stream));
  }

  Result<std::unique_ptr<Transport>> NewTransport(const TransportNeeds& needs) {
    RETURN_IF_ERROR(CheckProcessLimits("a rank", NeedsOf(needs.world_size)));
    if (needs.world_size == 1) return network_.NewTransport(needs.self);
    UcxTransportOptions options{.self = needs.self, .silence_ms = needs.silence_ms};
    options.warn = [warn = needs.warn](const std::string& text) {
      Talk("{}\n", text);
      warn(text);
    };
    return UcxTransport::Create(options, needs.ledger);
  }

  Status OnFrame(std::string_view frame) {
    proto::ToRank order;
    if (!order.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
      return MakeError(ErrorCode::kCorrupt, "an order of {} bytes does not parse", frame.size());
    }
    root_.Take(std::move(order));
    return {};
  }

  Scheduler& scheduler_;
  FrameLink link_;
  InprocNetwork network_{};
  RankRoot root_;
};

int Main(int argc, char** argv) {
  const bool measures = argc == 5 && std::strcmp(argv[1], "--collectives-bench") == 0;
  if ((argc != 3 && !measures) || std::strcmp(argv[argc - 2], "--control-fd") != 0) {
    Talk("troupe-rank is started by a host agent: troupe worker --join HOST:PORT\n");
    return ExitCode(ErrorCode::kInvalidSpec);
  }
  const int control_fd = std::atoi(argv[argc - 1]);
  if (measures) return RunCollectivesBenchRank(Rank(std::atoi(argv[2])), control_fd);
  SayWhereMemoryRunsOut();
  Scheduler scheduler({.trace_handlers = false});  // nobody is told of them
  RankProgram program(scheduler, control_fd);
  scheduler.Run();
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }

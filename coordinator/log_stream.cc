#include "coordinator/log_stream.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "coordinator/ops/read_logs.h"
#include "coordinator/rpc_status.h"

namespace troupe {
namespace {

// Each look lists a folder and opens its files, on the one thread of all streams: the more there
// are, the more seldom.
constexpr int kLookAgainMs = 200;
constexpr int kLookAgainMsPerStream = 10;

// Lives until gRPC has let it go and nothing that was posted for it is left.
class LogStream : public grpc::ServerWriteReactor<proto::LogLines>,
                  public std::enable_shared_from_this<LogStream> {
 public:
  LogStream(State& state, Seams seams, Stream& disk, LogStreamCount count,
            const proto::ReadLogsRequest& request)
      : state_(state), seams_(seams), disk_(disk), count_(count), request_(request) {}

  void Begin() {
    self_ = shared_from_this();
    if (count_.now.fetch_add(1) >= count_.max) {
      return FinishOnce(ToRpc(MakeError(
          ErrorCode::kResourceExhausted,
          "{} clients read logs already: look into the run directory's logs/", count_.max)));
    }
    seams_.scheduler.Post([self = self_] { self->Look(); });
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return FinishOnce(grpc::Status::CANCELLED);
    seams_.scheduler.Post([self = shared_from_this()] { self->Look(); });
  }
  void OnCancel() override { FinishOnce(grpc::Status::CANCELLED); }
  void OnDone() override {
    count_.now.fetch_sub(1);
    seams_.scheduler.Post([self = std::move(self_)] {});
  }

 private:
  // On the loop: does the job live, and what has been printed meanwhile?
  void Look() {
    if (finished()) return;
    const auto logs = FindLogs(state_, request_);
    if (!logs.ok()) return FinishOnce(ToRpc(logs.error()));
    if (!reader_) {
      const std::optional<int32_t> rank =
          request_.has_rank() ? std::optional(request_.rank()) : std::nullopt;
      reader_.emplace(logs->folder, rank);
    }
    using Read = Result<std::optional<proto::LogLines>>;
    auto read = std::make_shared<Read>(std::optional<proto::LogLines>());
    const bool last = logs->complete || !request_.follow();
    disk_.Launch([self = shared_from_this(), read, last] { *read = self->reader_->Next(last); },
                 [self = shared_from_this(), read, last](const WorkTime&) {
                   self->Tell(std::move(*read), last);
                 });
  }
  void Tell(Result<std::optional<proto::LogLines>> read, bool last) {
    if (!read.ok()) return FinishOnce(ToRpc(read.error()));
    if (!read->has_value()) {
      if (last) return FinishOnce(grpc::Status::OK);
      const int again_ms = std::max(kLookAgainMs, kLookAgainMsPerStream * count_.now.load());
      seams_.scheduler.After(again_ms, [self = shared_from_this()] { self->Look(); });
      return;
    }
    const std::lock_guard lock(mutex_);
    lines_ = *std::move(*read);
    if (!finished_) StartWrite(&lines_);
  }
  bool finished() {
    const std::lock_guard lock(mutex_);
    return finished_;
  }
  void FinishOnce(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(finished_, true)) Finish(status);
  }

  State& state_;
  const Seams seams_;
  Stream& disk_;
  const LogStreamCount count_;
  const proto::ReadLogsRequest request_;
  std::optional<LogReader> reader_{};  // the disk's while it reads, else the loop's
  std::shared_ptr<LogStream> self_{};  // until OnDone
  std::mutex mutex_;
  bool finished_ = false;  // then gRPC may let the call go at any time: no new write
  proto::LogLines lines_{};
};

}  // namespace

grpc::ServerWriteReactor<proto::LogLines>* NewLogStream(State& state, Seams seams, Stream& disk,
                                                        LogStreamCount count,
                                                        const proto::ReadLogsRequest& request) {
  const auto stream = std::make_shared<LogStream>(state, seams, disk, count, request);
  stream->Begin();
  return stream.get();
}

}  // namespace troupe

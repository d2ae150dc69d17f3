#include "coordinator/log_stream.h"

#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "coordinator/ops/read_logs.h"
#include "coordinator/rpc_status.h"

namespace troupe {
namespace {

constexpr int kLookAgainMs = 200;

// Lives until gRPC has let it go and nothing that was posted for it is left.
class LogStream : public grpc::ServerWriteReactor<proto::LogLines>,
                  public std::enable_shared_from_this<LogStream> {
 public:
  LogStream(State& state, Seams seams, Stream& disk, const proto::ReadLogsRequest& request)
      : state_(state), seams_(seams), disk_(disk), request_(request) {}

  void Begin() {
    self_ = shared_from_this();
    seams_.scheduler.Post([self = self_] { self->Look(); });
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return FinishOnce(grpc::Status::CANCELLED);
    seams_.scheduler.Post([self = shared_from_this()] { self->Look(); });
  }
  void OnCancel() override { FinishOnce(grpc::Status::CANCELLED); }
  void OnDone() override {
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
      seams_.scheduler.After(kLookAgainMs, [self = shared_from_this()] { self->Look(); });
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
  const proto::ReadLogsRequest request_;
  std::optional<LogReader> reader_{};  // the disk's while it reads, else the loop's
  std::shared_ptr<LogStream> self_{};  // until OnDone
  std::mutex mutex_;
  bool finished_ = false;  // then gRPC may let the call go at any time: no new write
  proto::LogLines lines_{};
};

}  // namespace

grpc::ServerWriteReactor<proto::LogLines>* NewLogStream(State& state, Seams seams, Stream& disk,
                                                        const proto::ReadLogsRequest& request) {
  const auto stream = std::make_shared<LogStream>(state, seams, disk, request);
  stream->Begin();
  return stream.get();
}

}  // namespace troupe

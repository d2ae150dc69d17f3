#include "actors/model/kv_round.h"

#include "actors/plan/sequence_layout.h"
#include "runtime/base/check.h"

namespace troupe {

KvRound::KvRound(KvRing& ring, const KvHop& hop, DType dtype, int64_t rows, int64_t columns)
    : ring_(ring), of_all_(hop), dtype_(dtype), rows_(rows), columns_(columns) {}

KvHop KvRound::Expected(int hop) const {
  KvHop expected = of_all_;
  expected.hop = hop;
  expected.origin = OriginAfter(ring_.num_ranks(), ring_.index(), hop);
  return expected;
}

void KvRound::Exchange(ConstTensorView block) {
  const int hop = ++last_;
  LetUntil(hop - 2);
  arrival_.emplace();
  departure_.emplace();
  const int64_t num_bytes = rows_ * columns_ * DTypeBytes(dtype_);
  CHECK(block.num_bytes() == num_bytes && block.is_dense(), "a block of {} bytes, not of {}",
        block.num_bytes(), num_bytes);
  ring_.Expect(Expected(hop), num_bytes, *arrival_);
  // The next rank counts the same block one hop further.
  KvHop sent = Expected(hop - 1);
  sent.hop = hop;
  ring_.Send(sent, {static_cast<const std::byte*>(block.data()), static_cast<size_t>(num_bytes)},
             *departure_);
}

// Both have ended when it returns: the ring refers to neither any more.
Task<Result<TensorView>> KvRound::Here() {
  const bool waits = !arrival_->here.happened() || !departure_->gone.happened();
  const int64_t before_ns = waits ? ring_.clock().NowNs() : 0;
  co_await departure_->gone;
  co_await arrival_->here;
  idle_ns_[static_cast<size_t>(last_ % 2)] = waits ? ring_.clock().NowNs() - before_ns : 0;
  CO_RETURN_IF_ERROR(departure_->status);
  CO_RETURN_IF_ERROR(arrival_->status);
  co_return TensorView(arrival_->block.data(), dtype_, {rows_, columns_});
}

void KvRound::LetUntil(int hop) {
  while (let_ < hop) {
    ++let_;
    ring_.Let(Expected(let_), idle_ns_[static_cast<size_t>(let_ % 2)]);
  }
}

}  // namespace troupe

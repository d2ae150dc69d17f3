#include "runtime/collective/lent_memory.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "runtime/base/random.h"

namespace troupe {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr auto kFirstMark = static_cast<uint32_t>(sizeof(uint64_t));  // behind the number
constexpr auto kMarkEnd = static_cast<uint32_t>(kPageBytes);

std::atomic_ref<uint8_t> MarkIn(const SharedRegion& page, uint32_t mark) {
  return std::atomic_ref(reinterpret_cast<uint8_t&>(page.bytes()[mark]));
}

uint64_t NumberIn(const SharedRegion& page) {
  uint64_t number;
  std::memcpy(&number, page.bytes().data(), sizeof(number));
  return number;
}

}  // namespace

LentMemory::LentMemory(RankRouter& router, uint32_t actor_index, const MemoryLedger* lends,
                       int64_t min_bytes, MemoryLedger& ledger)
    : router_(router),
      actor_index_(actor_index),
      lends_(lends),
      min_bytes_(min_bytes),
      ledger_(ledger),
      num_marks_(kFirstMark) {}

std::optional<uint32_t> LentMemory::NewMark() {
  if (lends_ == nullptr || num_marks_ == kMarkEnd) return std::nullopt;
  return num_marks_++;
}

RemoteRef<LendingOffer, LendingAnswer> LentMemory::DoorOf(Rank rank) const {
  return router_.Remote<LendingOffer, LendingAnswer>(rank, actor_index_);
}

bool LentMemory::MakePage() {
  if (!page_.empty()) return true;
  auto made = SharedRegion::Create(kPageBytes, &ledger_);
  if (!made.ok()) return false;
  page_ = *std::move(made);
  number_ = SystemRandom().NextU64();
  std::memcpy(page_.bytes().data(), &number_, sizeof(number_));
  return true;
}

LentMemory::Reading LentMemory::Ask(Rank reader) {
  const Lane lane = router_.transport().LaneTo(reader);
  if (lane != Lane::kSharedMemory && lane != Lane::kInproc) return Reading::kNo;
  if (!MakePage()) return Reading::kNo;
  const LendingOffer offer{.number = number_,
                           .rank = router_.self().value,
                           .process_id = static_cast<int32_t>(getpid()),
                           .descriptor = page_.descriptor()};
  return DoorOf(reader).Send(offer).ok() ? Reading::kAsked : Reading::kNo;
}

std::optional<LentPlace> LentMemory::Lend(Rank reader, std::span<const std::byte> bytes,
                                          uint32_t mark) {
  if (lends_ == nullptr || std::ssize(bytes) < std::max<int64_t>(min_bytes_, 1)) {
    return std::nullopt;
  }
  const auto place = lends_->SharedAt(bytes);
  if (!place) return std::nullopt;
  Peer& peer = peers_[reader];
  if (peer.reads == Reading::kUnasked) peer.reads = Ask(reader);
  if (peer.reads != Reading::kYes) return std::nullopt;
  lent_bytes_ += std::ssize(bytes);
  return LentPlace{.buffer = place->buffer,
                   .buffer_bytes = place->buffer_bytes,
                   .offset = place->offset,
                   .num_bytes = std::ssize(bytes),
                   .descriptor = place->descriptor,
                   .mark = mark};
}

void LentMemory::Withdraw(uint32_t mark) {
  if (page_.empty()) return;
  MarkIn(page_, mark).store(1, std::memory_order_relaxed);
  // Before whatever is written there next. The CPU (x86-64) keeps stores in order, and loads below.
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

bool LentMemory::IsWithdrawn(Rank lender, uint32_t mark) const {
  const auto peer = peers_.find(lender);
  if (peer == peers_.end() || peer->second.page.empty()) return true;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // after what was read
  return MarkIn(peer->second.page, mark).load(std::memory_order_relaxed) != 0;
}

Result<LentMemory::Borrowed> LentMemory::Borrow(Rank lender, const LentPlace& place) {
  const auto peer = peers_.find(lender);
  const bool fits = peer != peers_.end() && !peer->second.page.empty() && place.num_bytes > 0 &&
                    place.offset >= 0 && place.buffer_bytes >= place.num_bytes &&
                    place.offset <= place.buffer_bytes - place.num_bytes &&
                    place.mark >= kFirstMark && place.mark < kMarkEnd;
  if (!fits) {
    return MakeError(ErrorCode::kCorrupt, "rank {} lends {} bytes at {} of a buffer of {}", lender,
                     place.num_bytes, place.offset, place.buffer_bytes);
  }
  const auto key = std::pair(lender, place.buffer);
  auto known = mapped_.find(key);
  if (known == mapped_.end()) {
    ASSIGN_OR_RETURN(SharedRegion memory,
                     SharedRegion::Map(peer->second.process_id, place.descriptor,
                                       place.buffer_bytes, SharedAccess::kRead));
    if (mapped_.size() >= kMaxMapped) {  // B1
      mapped_.erase(std::ranges::min_element(
          mapped_, {}, [](const auto& mapped) { return mapped.second.last_use; }));
    }
    known = mapped_.emplace(key, Mapped{std::make_shared<SharedRegion>(std::move(memory))}).first;
  }
  known->second.last_use = ++num_borrowed_;
  const auto whole = known->second.memory->bytes();
  if (std::ssize(whole) != place.buffer_bytes) {  // B2
    return MakeError(ErrorCode::kCorrupt, "rank {} lends a buffer of {} bytes that has {}", lender,
                     place.buffer_bytes, whole.size());
  }
  return Borrowed{
      whole.subspan(static_cast<size_t>(place.offset), static_cast<size_t>(place.num_bytes)),
      known->second.memory};
}

void LentMemory::Take(const LendingOffer& offer) {
  const Rank lender(offer.rank);
  const auto known = peers_.find(lender);
  if (known != peers_.end() && !known->second.page.empty()) return;  // it asks once
  auto page =
      SharedRegion::Map(offer.process_id, offer.descriptor, kPageBytes, SharedAccess::kRead);
  const bool reads = page.ok() && NumberIn(*page) == offer.number;
  if (reads) {
    Peer& peer = peers_[lender];
    peer.page = *std::move(page);
    peer.process_id = offer.process_id;
  }
  // A lender that cannot be told is lost, or will be said to be.
  (void)DoorOf(lender).Send(LendingAnswer{
      .number = offer.number, .rank = router_.self().value, .reads = static_cast<uint32_t>(reads)});
}

void LentMemory::Take(const LendingAnswer& answer) {
  const auto peer = peers_.find(Rank(answer.rank));
  if (peer == peers_.end() || peer->second.reads != Reading::kAsked) return;
  if (answer.number != number_) return;
  peer->second.reads = answer.reads != 0 ? Reading::kYes : Reading::kNo;
}

void LentMemory::Forget(Rank lost) {
  if (const auto peer = peers_.find(lost); peer != peers_.end()) peer->second.reads = Reading::kNo;
  std::erase_if(mapped_, [lost](const auto& mapped) { return mapped.first.first == lost; });
}

}  // namespace troupe

#include "runtime/trace/span.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace troupe {
namespace {

struct NameTable {
  std::mutex mutex;
  std::deque<std::string> names{""};  // id 0: no name
  std::unordered_map<std::string_view, uint32_t> ids;
};
// Never destroyed: threads may still write spans while statics go.
NameTable& Names() {
  static auto& table = *new NameTable;
  return table;
}

struct RingTable {
  std::mutex mutex;
  std::vector<std::shared_ptr<TraceRing>> rings;
};
RingTable& Rings() {
  static auto& table = *new RingTable;
  return table;
}

}  // namespace

uint32_t InternTraceName(std::string_view name) {
  if (name.empty()) return 0;
  NameTable& table = Names();
  std::lock_guard lock(table.mutex);
  const auto found = table.ids.find(name);
  if (found != table.ids.end()) return found->second;
  const auto id = static_cast<uint32_t>(table.names.size());
  table.ids.emplace(table.names.emplace_back(name), id);
  return id;
}

std::string TraceName(uint32_t id) {
  NameTable& table = Names();
  std::lock_guard lock(table.mutex);
  return id < table.names.size() ? table.names[id] : "";
}

uint32_t NewFlowId(Rank rank) {
  static std::atomic<uint32_t> next{1};
  constexpr uint32_t kCounterMask = (1u << 24) - 1;
  uint32_t count;
  do {
    count = next.fetch_add(1, std::memory_order_relaxed) & kCounterMask;
  } while (count == 0);
  return static_cast<uint32_t>(rank.value) << 24 | count;
}

std::string_view SpanCategoryName(SpanCategory category) {
  switch (category) {
    case SpanCategory::kHandler:
      return "handler";
    case SpanCategory::kCompute:
      return "compute";
    case SpanCategory::kSend:
      return "send";
    case SpanCategory::kReceive:
      return "receive";
    case SpanCategory::kWait:
      return "wait";
    case SpanCategory::kStep:
      return "step";
    case SpanCategory::kIo:
      return "io";
  }
  return "?";
}

int64_t TraceRing::Drain(const std::function<void(const SpanRecord&)>& sink) {
  const uint64_t end = written_.load(std::memory_order_acquire);
  uint64_t index = drained_;
  int64_t lost = 0;
  while (index < end) {
    if (end - index > kCapacity) {
      lost += static_cast<int64_t>(end - kCapacity - index);
      index = end - kCapacity;
    }
    const auto& slot = slots_[index % kCapacity].words;
    std::array<uint64_t, kWords> words;
    for (size_t i = 0; i < kWords; ++i) words[i] = slot[i].load(std::memory_order_acquire);
    // The writer may be at work on record number `written`, which takes the slot of the one
    // kCapacity before it: then what was read may be torn.
    if (written_.load(std::memory_order_acquire) >= index + kCapacity) {
      ++lost;
    } else {
      SpanRecord record;
      std::memcpy(static_cast<void*>(&record), words.data(), sizeof(record));
      sink(record);
    }
    ++index;
  }
  drained_ = end;
  return lost;
}

TraceRing& ThreadTraceRing() {
  static thread_local TraceRing* const ring = [] {
    auto fresh = std::make_shared<TraceRing>();
    RingTable& table = Rings();
    std::lock_guard lock(table.mutex);
    table.rings.push_back(fresh);
    return fresh.get();
  }();
  return *ring;
}

DrainResult DrainTrace(const std::function<void(const SpanRecord&)>& sink) {
  RingTable& table = Rings();
  std::vector<std::shared_ptr<TraceRing>> rings;
  {
    std::lock_guard lock(table.mutex);
    rings = table.rings;
  }
  DrainResult result;
  for (const auto& ring : rings) {
    result.lost += ring->Drain([&](const SpanRecord& record) {
      ++result.records;
      sink(record);
    });
  }
  return result;
}

}  // namespace troupe

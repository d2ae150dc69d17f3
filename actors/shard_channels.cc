#include "actors/shard_channels.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace troupe {

ShardChannels::ShardChannels(RankRouter& router, Options options)
    : router_(router), options_(std::move(options)) {
  for (const Rank peer : options_.peers) queues_.try_emplace(peer);
}

Status ShardChannels::Open() {
  Transport& transport = router_.transport();
  for (const Rank peer : options_.peers) {
    RETURN_IF_ERROR(transport.PostSlots(peer, kShardChannel, options_.slots, options_.slot_bytes));
    transport.SetCredits(peer, kShardChannel, options_.slots);
  }
  return {};
}

void ShardChannels::Send(const ShardRef& to, const ShardBlock& block,
                         std::span<const std::byte> run, bool counted) {
  Queue& queue = queues_.at(to.rank());
  queue.push_back({to, block, run, counted});
  Flush(queue);
}

bool ShardChannels::Sends(const ShardRef& to) const {
  return std::ranges::any_of(queues_.at(to.rank()),
                             [&to](const Run& run) { return run.to.index() == to.index(); });
}

void ShardChannels::OnCredit(Rank peer) {
  const auto queue = queues_.find(peer);
  if (queue != queues_.end()) Flush(queue->second);
}

void ShardChannels::OnPeerDown(Rank peer) {
  const auto queue = queues_.find(peer);
  if (queue != queues_.end()) queue->second.clear();
}

void ShardChannels::Flush(Queue& queue) {
  while (!queue.empty()) {
    Run& run = queue.front();
    const auto rest = run.bytes.subspan(static_cast<size_t>(run.next.first_byte));
    const auto block = rest.first(std::min(rest.size(), static_cast<size_t>(options_.slot_bytes)));
    // Whose memory it is knows when it may change (RowSource::Publish): nobody asks when it has
    // been read.
    const Status sent = run.to.SendBulk(run.next, block, [] {},
                                        {.channel = kShardChannel, .stage = run.next.stage});
    if (!sent.ok()) {
      if (sent.error().code == ErrorCode::kResourceExhausted) return;  // C1
      CHECK(sent.error().code == ErrorCode::kPeerDown, "{}", sent.error().message);
      return queue.clear();  // the router says so soon
    }
    Count(run, block.size());
    run.next.first_byte += std::ssize(block);
    if (block.size() == rest.size()) queue.pop_front();
  }
}

void ShardChannels::Count(const Run& run, size_t block_bytes) {
  if (!run.counted) return;
  const auto num_bytes = static_cast<int64_t>(block_bytes);
  sent_bytes_ += num_bytes;
  if (run.next.first_byte + num_bytes == std::ssize(run.bytes)) ++num_runs_;
}

}  // namespace troupe

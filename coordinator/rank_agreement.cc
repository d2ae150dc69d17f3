#include "coordinator/rank_agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "coordinator/report/memory_fit.h"
#include "runtime/base/bytes_in_words.h"
#include "runtime/format/content_identity.h"

namespace troupe {
namespace {

std::string Words(int64_t num_bytes) { return BytesInWords(static_cast<double>(num_bytes)); }

constexpr int64_t kBytesMax = int64_t{1} << 48;  // of a rank: a sum of them does not overflow

struct HostRoom {
  int num_ranks = 0;
  int64_t needed_bytes = 0;
  int64_t host_bytes = 0;
  bool known = true;
};

ContentIdentity IdentityOf(const proto::Content& content) {
  return {.num_bytes = content.num_bytes(), .digest = content.digest()};
}

template <typename Has, typename Get>
Status CheckOne(std::span<const RankWords> ranks, std::string_view key, const std::string& path,
                Has has, Get get) {
  const RankWords* first = nullptr;
  for (const RankWords& rank : ranks) {
    if (!has(*rank.ready)) continue;
    if (first == nullptr) first = &rank;
    const ContentIdentity there = IdentityOf(get(*first->ready));
    const ContentIdentity here = IdentityOf(get(*rank.ready));
    if (here == there) continue;
    return MakeError(
        ErrorCode::kInvalidSpec,
        "{} = {} on host {} has other bytes than on host {} ({}): give every host the same", key,
        path, rank.host, first->host,
        here.num_bytes == there.num_bytes
            ? fmt::format("{} on both", here.num_bytes)
            : fmt::format("{} instead of {}", here.num_bytes, there.num_bytes));
  }
  return {};
}

}  // namespace

Status CheckRoomOnHosts(std::span<const RankWords> ranks) {
  std::map<std::string, HostRoom> rooms;
  for (const RankWords& rank : ranks) {
    HostRoom& room = rooms[rank.host];
    ++room.num_ranks;
    room.needed_bytes +=
        std::clamp<int64_t>(rank.hello->predicted_bytes(), 0, kBytesMax) + kRankProcessBytes;
    room.host_bytes = std::max(room.host_bytes, rank.hello->memory_bytes());
    room.known = room.known && rank.hello->predicted_bytes() > 0;
  }
  for (const auto& [host, room] : rooms) {
    if (!room.known || room.host_bytes <= 0 || room.needed_bytes <= room.host_bytes) continue;
    return MakeError(
        ErrorCode::kInfeasible,
        "the job does not fit host {}: its {} rank{} need{} {}, it has {}: give it fewer slots "
        "(troupe worker --slots), take more hosts with a larger parallelism.pp, or lower "
        "batch.micro_batch_size",
        host, room.num_ranks, room.num_ranks == 1 ? "" : "s", room.num_ranks == 1 ? "s" : "",
        Words(room.needed_bytes), Words(room.host_bytes));
  }
  return {};
}

Status CheckSameContent(std::span<const RankWords> ranks, const proto::JobSpec& spec) {
  RETURN_IF_ERROR(CheckOne(
      ranks, "data.train", spec.data().train(), [](const auto& r) { return r.has_data(); },
      [](const auto& r) { return r.data(); }));
  return CheckOne(
      ranks, "model.init_from", spec.model().init_from(),
      [](const auto& r) { return r.has_init_from(); }, [](const auto& r) { return r.init_from(); });
}

}  // namespace troupe

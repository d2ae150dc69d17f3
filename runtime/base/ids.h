// Ids are types: a Rank is never a StageId, and neither is an int by accident.
#pragma once

#include <fmt/format.h>

#include <compare>
#include <cstdint>
#include <functional>

namespace troupe {

template <typename Tag, typename Representation = int32_t>
struct Id {
  Representation value = 0;

  constexpr Id() = default;
  constexpr explicit Id(Representation v) : value(v) {}
  constexpr auto operator<=>(const Id&) const = default;
  constexpr Id Next() const { return Id(static_cast<Representation>(value + 1)); }
};

using Rank = Id<struct RankTag>;                // index of a worker in the job's world
using StageId = Id<struct StageTag>;            // global stage index, 0 holds the embedding
using MicrobatchId = Id<struct MicrobatchTag>;  // index within the step, from 0
using JobId = Id<struct JobTag, uint64_t>;      // assigned by the coordinator
using Epoch = Id<struct EpochTag, uint64_t>;    // version of a job's membership
using Incarnation = Id<struct IncarnationTag, uint32_t>;  // version of one actor

}  // namespace troupe

template <typename Tag, typename Representation>
struct std::hash<troupe::Id<Tag, Representation>> {
  size_t operator()(troupe::Id<Tag, Representation> id) const {
    return std::hash<Representation>()(id.value);
  }
};

template <typename Tag, typename Representation>
struct fmt::formatter<troupe::Id<Tag, Representation>> : fmt::formatter<Representation> {
  auto format(troupe::Id<Tag, Representation> id, format_context& context) const {
    return fmt::formatter<Representation>::format(id.value, context);
  }
};

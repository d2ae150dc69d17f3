// HeadExchange: rows of all heads at this rank's positions, against whole sequences of this rank's
// heads (Ulysses). Rank i of N has positions [i c, (i + 1) c) of each sequence, so what goes to a
// member is packed as it needs it: one all-to-all for each sequence.
//
// Thread: the compute stream's; awaits the group of the pass along cp.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "actors/model/sequence_attention.h"

namespace troupe {

// What a member gets of a row, one run behind the other.
struct ColumnRun {
  int64_t first = 0;
  int64_t width = 0;
};
using MemberColumns = std::vector<std::vector<ColumnRun>>;  // of each member; all as wide

class HeadExchange {
 public:
  // `sum`: in master, as wide as the rows; needed where members get the same columns, and what
  // comes back is added up.
  HeadExchange(const UnitSite& site, MemberColumns columns, std::optional<TensorSlot> sum = {});

  int64_t width() const { return width_; }  // w, of a member

  // rows (T, …) of the microbatch's tokens here; heads (N T, w): sequences one behind the other.
  Task<Status> ToHeads(const Pass& pass, GroupPurpose purpose, ConstTensorView rows,
                       TensorView heads) const;
  Task<Status> ToTokens(const Pass& pass, GroupPurpose purpose, ConstTensorView heads,
                        TensorView rows) const;

 private:
  // Of one sequence, to or from a member: (c, w).
  TensorView Packed(const Pass& pass, size_t member) const;
  // All members' of a sequence.
  Elements Exchanged(const Pass& pass) const;
  Task<Status> Send(const Pass& pass, GroupPurpose purpose, ConstElements input,
                    Elements output) const;

  const MemberColumns columns_;
  int64_t num_sequences_;
  int64_t local_len_;  // c
  int64_t width_ = 0;
  DType dtype_;
  std::vector<int64_t> counts_;  // elements to and from each member
  TensorSlot exchanged_;
  std::optional<TensorSlot> sum_;
};

}  // namespace troupe

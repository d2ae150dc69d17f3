#include "actors/model/head_exchange.h"

#include <utility>

#include "kernels/elementwise.h"

namespace troupe {

HeadExchange::HeadExchange(const UnitSite& site, MemberColumns columns,
                           std::optional<TensorSlot> sum)
    : columns_(std::move(columns)),
      num_sequences_(site.batch.micro_batch_size),
      local_len_(site.batch.local_seq_len()),
      dtype_(site.dtype),
      exchanged_(site.Workspace("exchanged")),
      sum_(sum) {
  for (const ColumnRun& run : columns_.front()) width_ += run.width;
  counts_.assign(columns_.size(), local_len_ * width_);
}

TensorView HeadExchange::Packed(const Pass& pass, size_t member) const {
  const TensorView all = exchanged_.In(pass.workspace);
  const int64_t first_byte =
      static_cast<int64_t>(member) * local_len_ * width_ * DTypeBytes(dtype_);
  return {static_cast<std::byte*>(all.data()) + first_byte, dtype_, {local_len_, width_}};
}

Elements HeadExchange::Exchanged(const Pass& pass) const {
  return {static_cast<uint8_t>(dtype_), Packed(pass, 0).data(),
          std::ssize(columns_) * local_len_ * width_};
}

Task<Status> HeadExchange::Send(const Pass& pass, GroupPurpose purpose, ConstElements input,
                                Elements output) const {
  co_return co_await pass.groups[Axis::kCp]->AllToAll(input, counts_, output, counts_, purpose);
}

Task<Status> HeadExchange::ToHeads(const Pass& pass, GroupPurpose purpose, ConstTensorView rows,
                                   TensorView heads) const {
  const int64_t seq_len = std::ssize(columns_) * local_len_;
  for (int64_t sequence = 0; sequence < num_sequences_; ++sequence) {
    const ConstTensorView of_sequence = rows.Rows(sequence * local_len_, local_len_);
    for (size_t member = 0; member < columns_.size(); ++member) {
      const TensorView packed = Packed(pass, member);
      int64_t column = 0;
      for (const ColumnRun& run : columns_[member]) {
        Cast(pass.exec, packed.Columns(column, run.width),
             of_sequence.Columns(run.first, run.width));
        column += run.width;
      }
    }
    CO_RETURN_IF_ERROR(co_await Send(pass, purpose, Exchanged(pass),
                                     ElementsOf(heads.Rows(sequence * seq_len, seq_len))));
  }
  co_return Status{};
}

Task<Status> HeadExchange::ToTokens(const Pass& pass, GroupPurpose purpose, ConstTensorView heads,
                                    TensorView rows) const {
  const int64_t seq_len = std::ssize(columns_) * local_len_;
  TensorView to = rows;
  if (sum_) {
    to = sum_->In(pass.workspace);
    FillZero(pass.exec, to);
  }
  for (int64_t sequence = 0; sequence < num_sequences_; ++sequence) {
    CO_RETURN_IF_ERROR(co_await Send(
        pass, purpose, ElementsOf(heads.Rows(sequence * seq_len, seq_len)), Exchanged(pass)));
    const TensorView of_sequence = to.Rows(sequence * local_len_, local_len_);
    for (size_t member = 0; member < columns_.size(); ++member) {
      const TensorView packed = Packed(pass, member);
      int64_t column = 0;
      for (const ColumnRun& run : columns_[member]) {
        const TensorView here = of_sequence.Columns(run.first, run.width);
        const TensorView came = packed.Columns(column, run.width);
        if (sum_) {
          Accumulate(pass.exec, here, came);
        } else {
          Cast(pass.exec, here, came);
        }
        column += run.width;
      }
    }
  }
  if (sum_) Cast(pass.exec, rows, to);
  co_return Status{};
}

}  // namespace troupe

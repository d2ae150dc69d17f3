// MicrobatchGradients: the gradients of a stage where each microbatch's are computed apart, because
// the ranks add them up every microbatch, or because the step's sum is narrower than what is
// computed. The pieces of a unit that are complete at one moment (GradientPiece), a portion, are
// computed from zero in a bucket and rounded to the sum's dtype; the members' buckets are added up,
// piece by piece; and what this rank keeps of each piece is added to the step's sum.
//
//     bucket:   free --Open--> open --the portion is computed: Close--> closed
//                ^                                                        |
//                '---Add of each of its pieces (after the members' sum)---'
//
// Thread: the compute stream's.
//   B1. A gradient has one place: the open bucket of its portion and microbatch.
//   B2. Of each piece, microbatches are added in ascending order. In groups, as GradientSum does; a
//       group of one microbatch needs no second buffer.
//   B3. A rank that shares parameters out keeps its owner's run of every row and no more; of what
//       persists, and where the ranks add up once a step, everything.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "actors/model/gradient_sum.h"
#include "actors/model/stage_parameters.h"
#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/gradient_piece.h"

namespace troupe {

class MicrobatchGradients final : public Gradients {
 public:
  struct Options {
    DType dtype = DType::kFloat32;      // of what is computed: float32 or float64
    DType sum_dtype = DType::kFloat32;  // of what is added and kept: that, or bfloat16
    int32_t num_microbatches = 1;       // of this rank
    int32_t groups = 1;
    GradReduce reduce = GradReduce::kMicrobatch;
    bool halves = false;  // the schedule runs BackwardInput and BackwardWeight apart
    ShardPlace shards{};
    bool lent = false;  // ranks of this host read in place what is added up: buckets, or the sum
  };
  // Of a tied weight with both uses here the second one's gradients lie behind the parameters'.
  MicrobatchGradients(const Options& options, const StageParameters& parameters,
                      const ParameterTable& table, const StageLayout& layout, MemoryLedger& ledger);

  struct Bucket {
    struct Part {
      TensorView gradients{};             // the piece's, when the bucket is closed
      std::span<const int64_t> counts{};  // of the owners' runs; none where they are added whole
    };
    int portion = -1;
    int32_t microbatch = -1;
    std::vector<Part> parts{};  // of each piece
    size_t num_added = 0;
    Buffer memory{};
  };

  // The pieces of the unit that are complete at that moment; nothing where it has none.
  std::optional<int> PortionOf(int unit, GradientMoment moment) const;
  void Open(const Exec& exec, int portion, int32_t microbatch);
  std::shared_ptr<Bucket> Close(const Exec& exec, int portion, int32_t microbatch);
  // What is kept of the part has the sum over the members. After the last part the bucket is free.
  void Add(const Exec& exec, const std::shared_ptr<Bucket>& bucket, size_t part);

  int AddAccumulator(int64_t first_element, int64_t num_elements) override;
  TensorView Target(const Exec& exec, int accumulator, int32_t microbatch) override;
  void Finish(const Exec& exec) override;
  void Reset(const Exec& exec) override;
  TensorView Sum(int64_t first_element, int64_t num_elements) const override;

 private:
  // A run of elements of a piece, and where it lies in the sum or among the stage's gradients.
  struct Run {
    int64_t in_piece = 0;
    int64_t elsewhere = 0;
    int64_t num_elements = 0;
  };
  struct Piece {
    GradientPiece plan{};
    std::vector<Run> parameters{};  // elsewhere: among the stage's gradients
    std::vector<Run> kept{};        // elsewhere: in the sum
    std::vector<int64_t> counts{};  // of the owners; empty where nothing is shared out
    int64_t in_bucket = 0;          // its first element's place
    int32_t next_microbatch = 0;
  };
  struct Portion {
    int unit = 0;
    GradientMoment moment{};
    std::vector<size_t> pieces{};
    int64_t num_elements = 0;
  };
  // What is kept of a use of a row of parameters: a run of the stage's gradients.
  struct KeptRun {
    int64_t first_element = 0;  // among the stage's gradients
    int64_t num_elements = 0;
    int64_t in_sum = 0;
  };
  struct Accumulator {
    int portion = 0;
    int64_t in_bucket = 0;
    int64_t num_elements = 0;
  };

  // Only the owner's runs are kept.
  bool keeps_shards() const {
    return options_.shards.num_owners > 1 && options_.reduce == GradReduce::kMicrobatch;
  }
  void Keep(const ShardRow& row, int64_t first_element);
  void AddPiece(const StageParameters& parameters, GradientPiece plan, std::vector<int64_t> counts);
  // Behind the pieces that the unit has at that moment already.
  void JoinPortion(size_t piece);
  // -1: not this rank's.
  int64_t PlaceInSum(int64_t first_element, int64_t num_elements) const;
  TensorView In(const Buffer& sum, int64_t first, int64_t num_elements) const;
  // As it is computed.
  TensorView InBucket(const Bucket& bucket, int64_t first, int64_t num_elements) const;
  Bucket* Find(int portion, int32_t microbatch) const;
  std::shared_ptr<Bucket> NewBucket();

  const Options options_;
  const int32_t group_size_;
  MemoryLedger& ledger_;
  std::vector<KeptRun> kept_{};
  std::vector<Piece> pieces_{};
  std::vector<Portion> portions_{};
  std::vector<Accumulator> accumulators_{};
  Buffer total_{};
  Buffer group_{};               // at work, where it has several microbatches
  int64_t bucket_elements_ = 0;  // of the largest portion
  std::vector<std::shared_ptr<Bucket>> open_{};
  std::vector<std::shared_ptr<Bucket>> free_{};
};

}  // namespace troupe

// MicrobatchGradients: the gradients of a stage where they are reduced every microbatch. Each piece
// of a microbatch (GradientPiece) is computed from zero in a bucket, the members' buckets are added
// up, and what this rank keeps of the sum is added to the step's.
//
//     bucket:   free --Open--> open --the piece is computed: Close--> closed
//                ^                                                      |
//                '---Add (after the members' sum)-----------------------'
//
// Thread: the compute stream's.
//   B1. A gradient has one place: the open bucket of its piece and microbatch.
//   B2. Of each piece, microbatches are added in ascending order. In groups, as GradientSum does; a
//       group of one microbatch needs no second buffer.
//   B3. A rank that shares parameters out keeps its owner's run of every row and no more.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "actors/model/gradient_sum.h"
#include "actors/model/stage_parameters.h"
#include "actors/plan/gradient_piece.h"

namespace troupe {

class MicrobatchGradients final : public Gradients {
 public:
  struct Options {
    DType dtype = DType::kFloat32;  // float32 or float64
    int32_t num_microbatches = 1;   // of this rank
    int32_t groups = 1;
    bool halves = false;  // the schedule runs BackwardInput and BackwardWeight apart
    ShardPlace shards{};  // keeps its runs of the rows; everything where it is the only owner
    bool lent = false;    // ranks of this host read buckets in place
  };
  // Of a tied weight with both uses here the second one's gradients lie behind the parameters'.
  MicrobatchGradients(const Options& options, const StageParameters& parameters,
                      const ParameterTable& table, const StageLayout& layout, MemoryLedger& ledger);

  struct Bucket {
    int piece = -1;
    int32_t microbatch = -1;
    Buffer memory{};
    TensorView all{};                   // the piece's elements
    TensorView own{};                   // what this rank keeps of them: all, or a run
    std::span<const int64_t> counts{};  // of the owners' runs, in their order
  };

  // The unit's piece that is complete at that moment; nothing where it has none.
  std::optional<int> PieceOf(int unit, GradientMoment moment) const;
  void Open(const Exec& exec, int piece, int32_t microbatch);
  std::unique_ptr<Bucket> Close(int piece, int32_t microbatch);
  // `own` has the sum over the members.
  void Add(const Exec& exec, std::unique_ptr<Bucket> bucket);

  int AddAccumulator(int64_t first_element, int64_t num_elements) override;
  TensorView Target(const Exec& exec, int accumulator, int32_t microbatch) override;
  void Finish(const Exec& exec) override;
  void Reset(const Exec& exec) override;
  TensorView Sum(int64_t first_element, int64_t num_elements) const override;

 private:
  // A run of elements in a bucket, and where it lies in the sum or among the stage's gradients.
  struct Run {
    int64_t in_bucket = 0;
    int64_t elsewhere = 0;
    int64_t num_elements = 0;
  };
  struct Piece {
    GradientPiece plan{};
    std::vector<Run> parameters{};  // elsewhere: among the stage's gradients
    std::vector<Run> kept{};        // elsewhere: in the sum
    std::vector<int64_t> counts{};  // of the owners; empty where nothing is shared out
    int64_t own_first = 0;          // of what is kept, in the bucket
    int64_t own_count = 0;
    int32_t next_microbatch = 0;
  };
  // What is kept of a use of a row of parameters: a run of the stage's gradients.
  struct KeptRun {
    int64_t first_element = 0;  // among the stage's gradients
    int64_t num_elements = 0;
    int64_t in_sum = 0;
  };
  struct Accumulator {
    int piece = 0;
    int64_t in_bucket = 0;
    int64_t num_elements = 0;
  };

  void Keep(int64_t first_element, int64_t num_elements);
  void AddPiece(const StageParameters& parameters, GradientPiece plan, std::vector<int64_t> counts);
  bool is_sharded() const { return options_.shards.num_owners > 1; }
  // -1: not this rank's.
  int64_t PlaceInSum(int64_t first_element, int64_t num_elements) const;
  TensorView In(const Buffer& buffer, int64_t first, int64_t num_elements) const;
  std::unique_ptr<Bucket> NewBucket();

  const Options options_;
  const int32_t group_size_;
  MemoryLedger& ledger_;
  std::vector<KeptRun> kept_{};
  std::vector<Piece> pieces_{};
  std::vector<Accumulator> accumulators_{};
  Buffer total_{};
  Buffer group_{};               // at work, where it has several microbatches
  int64_t bucket_elements_ = 0;  // of the largest piece
  std::vector<std::unique_ptr<Bucket>> open_{};
  std::vector<std::unique_ptr<Bucket>> free_{};
};

}  // namespace troupe

// UnitResidency: which units of a stage have their weights here, where each is gathered from shards
// for the passes that read it and dropped after them (ZeRO-3). Its units are numbered by their
// position on the stage.
//
//     absent --Gather--> gathering --all rows came, Have--> in use
//       ^                                                    |
//       |<--Release: nobody uses or keeps it-----------------|
//       '<--Release of a pass that ends its keeping, or      |
//           EndKeeping: nobody uses or keeps it---- kept <--Release
//
// Thread: the compute stream's.
//   U1. A unit is there from the end of its Have to its Release.
//   U2. What is gathered is what this pass, or one after it whose order is certain, will Have:
//       nothing is gathered in vain.
//   U3. One pass at a time: the order in which a stage's passes run is the list's.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "actors/model/row_source.h"
#include "actors/model/unit_weights.h"
#include "kernels/exec.h"
#include "runtime/actor/task.h"

namespace troupe {

class UnitResidency {
 public:
  struct Unit {
    UnitWeights* weights = nullptr;
    std::vector<int> rows{};  // of StageParameters::rows: its own parameters'
    int also = -1;            // the position of a unit whose parameter it reads (a tied weight)
  };
  // The parameters and what the units point to outlive it.
  UnitResidency(std::vector<Unit> units, const StageParameters& parameters);

  // Before the first Gather; outlives it.
  void Meet(RowSource& source) { source_ = &source; }

  // Begins to gather those that are absent, in this order.
  Task<void> Gather(std::span<const int> positions, WeightPass pass);
  // Waits until the weights of the unit, which Gather has begun, are here, ready for products.
  Task<Status> Have(const Exec& exec, int position);

  enum class After : uint8_t {
    kDrop,     // the unit goes, if nobody keeps it
    kKeep,     // it stays for the backward of the same microbatch
    kKeptDrop  // that backward was this pass
  };
  void Release(int position, After after);
  // Of a unit that a Forward kept and whose weights its backward does not read.
  void EndKeeping(int position);

  // Gathers all units; each stays until EndKeepingAll, whatever passes do in between. That waits
  // for what is still on its way, and comes when no pass waits for it.
  Task<void> KeepAll(WeightPass pass);
  Task<Status> EndKeepingAll();

  int64_t num_gathers() const { return num_gathers_; }  // of rows, since the start

 private:
  struct Residence {
    Unit unit{};
    std::vector<std::unique_ptr<RowArrival>> arrivals{};  // while gathering
    int users = 0;
    int keepers = 0;
  };
  struct Wanted {
    int row = 0;
    std::span<std::byte> whole{};
    RowArrival* arrival = nullptr;
  };
  Residence& At(int position) { return units_[static_cast<size_t>(position)]; }
  // Makes room and says what must be asked for.
  void Begin(int position, const WeightPass& pass, std::vector<Wanted>& wanted);
  Task<Status> Arrive(const Exec& exec, int position);
  void Let(int position, After after);
  void EndOneKeeping(int position);
  static void DropIfUnused(Residence& of);

  const StageParameters& parameters_;
  std::vector<Residence> units_{};
  RowSource* source_ = nullptr;
  int64_t num_gathers_ = 0;
};

}  // namespace troupe

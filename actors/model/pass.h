// One pass of a microbatch through a unit: the memory that it works on and what the microbatch says
// beside its activations. Made by StageModel for each call; the views are valid for its length,
// waits in its middle included.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "actors/model/kv_ring.h"
#include "actors/plan/mesh.h"
#include "kernels/exec.h"
#include "kernels/tensor_view.h"

namespace troupe {

class Group;

// The groups of a rank along the axes of the mesh: null along an axis that it has to itself. They
// outlive the model.
class AxisGroups {
 public:
  Group* operator[](Axis axis) const { return groups_[static_cast<size_t>(axis)]; }
  void Set(Axis axis, Group* group) { groups_[static_cast<size_t>(axis)] = group; }

 private:
  std::array<Group*, kNumAxes> groups_{};
};

struct Pass {
  Exec exec{};
  AxisGroups groups{};
  int32_t microbatch = -1;  // of the stage's, from 0; -1: one that is not trained on
  int32_t number = -1;      // the same, as actions number it
  int64_t step = -1;
  KvRing* ring = nullptr;          // where blocks go round (ContextMethod::kRing)
  AttentionWork* work = nullptr;   // counts; null: nobody asks
  std::byte* stash = nullptr;      // the microbatch's, by StashLayout
  std::byte* workspace = nullptr;  // of this pass alone, by WorkspaceLayout
  std::byte* shared = nullptr;     // of all passes: constants, by WorkspaceLayout
  // Both halves of backward run in this pass: what lies between them is in the workspace, and
  // SwiGLU's output, which the input half has at hand, serves the weight half.
  bool whole = false;
  // Of the microbatch (Microbatch), in the stash: (T) int32, where a unit of the stage reads them.
  ConstTensorView tokens{};
  ConstTensorView labels{};
  ConstTensorView positions{};
  ConstTensorView document_starts{};  // where sequences pack documents
};

}  // namespace troupe

// One pass of a microbatch through a unit: the memory that it works on and what the microbatch says
// beside its activations. Made by StageModel for each call; the views are valid for its length.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/exec.h"
#include "kernels/tensor_view.h"

namespace troupe {

struct Pass {
  Exec exec{};
  int32_t microbatch = -1;         // -1: one that is not trained on
  std::byte* stash = nullptr;      // the microbatch's, by StashLayout
  std::byte* workspace = nullptr;  // by WorkspaceLayout
  // Both halves of backward run in this pass: what lies between them is in the workspace, and
  // SwiGLU's output, which the input half has at hand, serves the weight half.
  bool whole = false;
  ConstTensorView tokens{};     // (T) int32, where the stage has the embedding
  ConstTensorView labels{};     // (T) int32, where it has the head
  ConstTensorView positions{};  // (T) int32, each token's in its sequence
};

}  // namespace troupe

// Floating-point operations of the model, per token. Multiply and add count as two; attention's
// causal half is not discounted; the input embedding costs nothing (PaLM's and nanoGPT's
// convention: 6 N + 12 L a d s). Pure.
#pragma once

#include <cstdint>

#include "actors/plan/layer_spec.h"

namespace troupe {

// One unit on sequences of `seq_len` tokens. A chunked product's gradients run in Forward, while a
// chunk's result is there; cross-entropy is not counted.
TokenFlops UnitFlops(const LayerSpec& unit, int64_t seq_len);
TokenFlops ModelFlops(const ModelSpec& model, int64_t seq_len);

}  // namespace troupe

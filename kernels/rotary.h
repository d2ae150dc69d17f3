// Rotary position embedding (Su et al. 2021) in Hugging Face's half-split layout: channel i of a
// head turns together with channel i + D/2. T tokens, H heads, D head size, P positions.
#pragma once

#include "kernels/exec.h"

namespace troupe {

// Llama 3 frequency scaling: HF's rope_scaling with rope_type "llama3".
struct Llama3RotaryScaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_position_embeddings = 8192.0;
};

struct RotaryConfig {
  int64_t head_dim = 0;
  double theta = 10000.0;
  bool has_llama3_scaling = false;
  Llama3RotaryScaling llama3;
};

// Angular frequency of channel pair `index` in radians a position, index < head_dim / 2.
double RotaryFrequency(const RotaryConfig& config, int64_t index);

// table (P, D): cosines of position p in the first D/2 columns, sines in the rest. Angles are
// float64, rounded once to the table's dtype (float32 or float64).
void BuildRotaryTable(TensorView table, const RotaryConfig& config);

// Turns x (T, H, D) in place by the angles of positions (T) int32. Rows of x may be strided, so
// that queries and keys can be column blocks of one matrix.
void RotaryForward(const Exec& exec, TensorView x, ConstTensorView positions,
                   ConstTensorView table);

// The transpose, which is the inverse turn: gradients of the output become those of the input.
void RotaryBackward(const Exec& exec, TensorView dx, ConstTensorView positions,
                    ConstTensorView table);

}  // namespace troupe

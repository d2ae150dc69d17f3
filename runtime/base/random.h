// Counter-based randomness: a value depends only on its key and its counter, never on who asks or
// in which order, so initial values and data order do not depend on the layout.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11), Philox4x32-10.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace troupe {

// Four 32-bit words of Philox4x32-10 for (key, counter).
std::array<uint32_t, 4> Philox(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0);

// 64-bit key from a seed and a name; equal on every machine.
uint64_t RandomKey(uint64_t seed, std::string_view name);

// Uniform in [0, 1) with 53 bits.
double UniformAt(uint64_t key, uint64_t counter);

// Standard normal for element `counter` (Box-Muller over one Philox block). The same bits on every
// machine with the same libm.
double NormalAt(uint64_t key, uint64_t counter);

// A permutation of 0..size-1 by (key): Fisher-Yates driven by Philox.
std::vector<int64_t> Permutation(uint64_t key, int64_t size);

// Randomness as a seam, for what is not keyed (ids, jitter).
class RandomSource {
 public:
  virtual ~RandomSource() = default;
  virtual uint64_t NextU64() = 0;
};
RandomSource& SystemRandom();

}  // namespace troupe

#include "runtime/base/random.h"

#include <xxhash.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <random>
#include <utility>

#include "runtime/base/check.h"

namespace troupe {

std::array<uint32_t, 4> Philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;
  constexpr uint32_t kWeyl1 = 0xBB67AE85;
  std::array<uint32_t, 4> x = {
      static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
      static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiplier0 * x[0];
    const uint64_t p1 = kMultiplier1 * x[2];
    x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return x;
}

uint64_t RandomKey(uint64_t seed, std::string_view name) {
  return XXH3_64bits_withSeed(name.data(), name.size(), seed);
}

double UniformAt(uint64_t key, uint64_t counter) {
  const auto x = Philox(key, counter);
  const uint64_t bits = (uint64_t{x[0]} << 32 | x[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

double NormalAt(uint64_t key, uint64_t counter) {
  const auto x = Philox(key, counter);
  const uint64_t a = (uint64_t{x[0]} << 32 | x[1]) >> 11;
  const uint64_t b = (uint64_t{x[2]} << 32 | x[3]) >> 11;
  const double u = (static_cast<double>(a) + 1.0) * 0x1.0p-53;  // (0, 1]: log is finite
  const double v = static_cast<double>(b) * 0x1.0p-53;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

std::vector<int64_t> Permutation(uint64_t key, int64_t size) {
  CHECK(size >= 0);
  std::vector<int64_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = size - 1; i > 0; --i) {
    const auto x = Philox(key, static_cast<uint64_t>(i));
    // Multiply-shift: bias below 2^-40 for any file that fits a disk.
    const unsigned __int128 wide =
        static_cast<unsigned __int128>(uint64_t{x[0]} << 32 | x[1]) * static_cast<uint64_t>(i + 1);
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(wide >> 64)]);
  }
  return order;
}

namespace {
class MachineRandom : public RandomSource {
 public:
  uint64_t NextU64() override { return uint64_t{device_()} << 32 | device_(); }

 private:
  std::random_device device_;
};
}  // namespace

RandomSource& SystemRandom() {
  thread_local MachineRandom source;
  return source;
}

}  // namespace troupe

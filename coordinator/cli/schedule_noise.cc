#include "coordinator/cli/schedule_noise.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "actors/schedule/action.h"

namespace troupe {
namespace {

// "0.03,5" for --hiccup RATE,SIZE.
Result<std::array<double, 2>> TwoNumbers(const std::string& text, std::string_view flag,
                                         std::string_view form) {
  std::array<double, 2> numbers{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto [read, code] = std::from_chars(at, end, numbers[i]);
    const bool last = i + 1 == numbers.size();
    if (code != std::errc() || (last ? read != end : read == end || *read != ',')) {
      return MakeError(ErrorCode::kInvalidSpec, "--{} {}: give two numbers, {}", flag, text, form);
    }
    at = read + 1;
  }
  return numbers;
}

}  // namespace

Result<Noise> NoiseOf(const NoiseOptions& options) {
  Noise noise{.sigma = options.jitter, .seed = options.seed};
  if (!(noise.sigma >= 0 && noise.sigma <= 2)) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "--jitter {}: use 0 to 2 (deviation of the logarithm of every time)",
                     options.jitter);
  }
  if (!options.hiccup.empty()) {
    ASSIGN_OR_RETURN(const auto numbers, TwoNumbers(options.hiccup, "hiccup", "RATE,SIZE"));
    if (!(numbers[0] >= 0 && numbers[0] <= 1 && numbers[1] >= 0 && numbers[1] <= 1000)) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "--hiccup {}: use a rate from 0 to 1 and a size from 0 to 1000 Forwards",
                       options.hiccup);
    }
    noise.hiccup_rate = numbers[0];
    noise.hiccup_size = numbers[1];
  }
  if (!options.straggler.empty()) {
    ASSIGN_OR_RETURN(const auto numbers, TwoNumbers(options.straggler, "straggler", "RANK,FACTOR"));
    if (!(numbers[0] >= 0 && numbers[0] < kRanksMax && std::floor(numbers[0]) == numbers[0] &&
          numbers[1] > 0 && numbers[1] <= 1000)) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "--straggler {}: use a rank and a factor above 0 and up to 1000",
                       options.straggler);
    }
    noise.straggler_rank = static_cast<int>(numbers[0]);
    noise.straggler_factor = numbers[1];
  }
  return noise;
}

Status CheckStraggler(const Noise& noise, const NoiseOptions& options, const Schedule& schedule) {
  if (noise.straggler_rank < schedule.num_ranks) return {};
  return MakeError(ErrorCode::kInvalidSpec, "--straggler {}: schedule {} has ranks 0 to {}",
                   options.straggler, schedule.name, schedule.num_ranks - 1);
}

double LongestBy(const Noise& noise) {
  return std::exp(4 * noise.sigma) * (1 + noise.hiccup_size) *
         std::max(1.0, noise.straggler_factor);
}

}  // namespace troupe

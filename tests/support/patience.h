// How tests wait: for an observable fact, and however busy the machine is.
#pragma once

#include <chrono>
#include <thread>

namespace troupe::testing {

// Long enough for anything that comes at all, and less than any suite may take.
inline constexpr std::chrono::seconds kPatience{120};

// Whether `done()` comes true.
template <typename Done>
bool Eventually(Done done) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// The same for what this thread itself must drive: `drive()` between two looks.
template <typename Done, typename Drive>
bool DrivenUntil(Done done, Drive drive) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    drive();
  }
  return true;
}

}  // namespace troupe::testing

// Clock: the only source of time. Actors, agents and the coordinator get one by reference, so the
// simulator can run them on virtual time.
#pragma once

#include <cstdint>

namespace troupe {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds of a steady clock with an arbitrary start; never goes back.
  virtual int64_t NowNs() const = 0;
  // Microseconds since the Unix epoch, for what people read.
  virtual int64_t WallUs() const = 0;
  // CPU nanoseconds that the calling thread has used.
  virtual int64_t ThreadCpuNs() const = 0;
};

// The machine's clocks. Thread-safe; lives for the whole process.
Clock& SystemClock();

}  // namespace troupe

// How a rank's process ended, in words: for the headline of its job. Pure.
#pragma once

#include <string>

#include "proto/control.pb.h"

namespace troupe {

struct RankEnd {
  std::string how{};  // "exited with 1", "was killed by signal 9 (SIGKILL)"
  std::string why{};  // as far as it is known; may be empty
};
RankEnd EndInWords(const proto::RankExited& exited);

// The newest line that tells something: neither a frame nor a frame's border of a backtrace, and
// with letters. Empty: there is none. Of other bytes than UTF-8 a '?' is left.
std::string LastTellingLine(const proto::RankExited& exited);

}  // namespace troupe

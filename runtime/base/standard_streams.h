// The standard streams of a program: stdout is data, stderr is talk (talk.h). A reader that goes
// away, a full disk or a closed stream is an Error here, never a signal and never an exception.
// Any thread; what two threads write at once may mix.
#pragma once

#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

// The first call of every main. Descriptors 0 to 2 that are closed are taken, so that no socket or
// file gets their number; writing to them stays an error. SIGPIPE and SIGXFSZ are ignored, here and
// in the programs that this one starts: they are EPIPE and EFBIG of the call that meets them.
void SecureStandardStreams();

// Writes `bytes` whole. Waits for a descriptor that takes nothing, no longer than `patience_ms` at
// a time (negative: for ever); an error is kIo or kOutOfSpace and does not name the stream.
Status WriteWhole(int fd, std::string_view bytes, int patience_ms = -1);

// What a command was asked to print, on stdout.
Status PrintData(std::string_view text);

}  // namespace troupe

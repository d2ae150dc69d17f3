// UCX's shared memory without names. UCX makes a file in /dev/shm and takes its name away at once;
// a rank that is killed in between would leave it there for ever, and a /dev/shm that is too small
// (64 MiB in many containers) or missing would leave a host without shared memory. The two calls of
// the C library that UCX makes for it, shm_open and shm_unlink, are this program's own: they give
// UCX's segments, and nothing else, an anonymous file.
#pragma once

namespace troupe {

// Links the above into the program.
void UseNamelessMemory();

}  // namespace troupe

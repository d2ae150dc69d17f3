// Threads as Results: where the machine gives no more of them, std::thread throws.
#pragma once

#include <functional>
#include <string_view>
#include <thread>

#include "runtime/base/result.h"

namespace troupe {

// `name` completes "no thread for …". The thread is the caller's to join.
Result<std::thread> StartThread(std::string_view name, std::function<void()> body);

// An error where the machine does not give `count` threads more. For libraries that make theirs
// without asking and wait for ever where they cannot: gRPC.
Status CheckThreads(int count);

}  // namespace troupe

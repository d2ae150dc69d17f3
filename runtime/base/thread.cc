#include "runtime/base/thread.h"

#include <future>
#include <system_error>
#include <utility>
#include <vector>

namespace troupe {

Result<std::thread> StartThread(std::string_view name, std::function<void()> body) {
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error& error) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "no thread for {}: {}: allow more processes (ulimit -u) or memory", name,
                     error.code().message());
  }
}

Status CheckThreads(int count) {
  std::promise<void> all_tried;
  const std::shared_future<void> tried = all_tried.get_future().share();
  std::vector<std::thread> threads;
  Status status;
  for (int i = 0; i < count && status.ok(); ++i) {
    auto thread = StartThread("the control service", [tried] { tried.wait(); });
    if (thread.ok()) {
      threads.push_back(*std::move(thread));
    } else {
      status = std::move(thread).error();
    }
  }
  all_tried.set_value();
  for (std::thread& thread : threads) thread.join();
  return status;
}

}  // namespace troupe

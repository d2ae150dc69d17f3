#include "runtime/base/thread.h"

#include <system_error>
#include <utility>

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

}  // namespace troupe

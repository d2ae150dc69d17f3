#include "runtime/base/process_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "runtime/base/bytes_in_words.h"

namespace troupe {
namespace {

std::string_view last_words;

// What the limit lets a process have; -1: as much as it likes.
int64_t LimitOf(decltype(RLIMIT_NOFILE) resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return -1;
  return static_cast<int64_t>(limit.rlim_cur);
}

Status CheckBytes(std::string_view who, std::string_view what, std::string_view flag,
                  decltype(RLIMIT_NOFILE) resource, int64_t needed) {
  const int64_t limit = LimitOf(resource);
  if (limit < 0 || limit >= needed) return {};
  return MakeError(ErrorCode::kResourceExhausted,
                   "{} needs {} {}, ulimit {} leaves it {}: raise it", who,
                   BytesInWords(static_cast<double>(needed)), what, flag,
                   BytesInWords(static_cast<double>(limit)));
}

}  // namespace

Status CheckProcessLimits(std::string_view who, const ProcessNeeds& needs) {
  rlimit descriptors{};
  if (::getrlimit(RLIMIT_NOFILE, &descriptors) == 0 &&
      descriptors.rlim_cur < static_cast<rlim_t>(needs.descriptors)) {
    descriptors.rlim_cur = descriptors.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &descriptors);
  }
  if (const int64_t limit = LimitOf(RLIMIT_NOFILE); limit >= 0 && limit < needs.descriptors) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "{} needs {} descriptors, ulimit -n leaves it {}: raise it", who,
                     needs.descriptors, limit);
  }
  RETURN_IF_ERROR(CheckBytes(who, "of address space", "-v", RLIMIT_AS, needs.address_bytes));
  return CheckBytes(who, "in a file or shared memory", "-f", RLIMIT_FSIZE, needs.file_bytes);
}

void SayWhereMemoryRunsOut(std::string_view words) {
  last_words = words;
  std::set_terminate([] {
    try {
      if (std::current_exception()) std::rethrow_exception(std::current_exception());
    } catch (const std::bad_alloc&) {
      // Without memory of its own.
      [[maybe_unused]] const ssize_t said =
          ::write(STDERR_FILENO, last_words.data(), last_words.size());
      ::_exit(1);
    } catch (...) {
    }
    std::abort();
  });
}

}  // namespace troupe

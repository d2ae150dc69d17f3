#include "coordinator/cli/answer.h"

#include "runtime/base/standard_streams.h"
#include "runtime/base/talk.h"

namespace troupe {

int Fail(const Error& error) {
  Talk("{}\n", error.message);
  return ExitCode(error.code);
}

int PrintAnswer(std::string_view text) {
  const Status printed = PrintData(text);
  return printed.ok() ? 0 : Fail(printed.error());
}

}  // namespace troupe

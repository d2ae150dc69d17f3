// `troupe bench collectives`: operations among workers of this host, timed and checked.
#pragma once

#include <CLI/App.hpp>

#include "coordinator/cli/collectives_table.h"
#include "coordinator/report/job_report.h"

namespace troupe {

// The words of the command; both outlive the parsing.
void AddCollectivesFlags(CLI::App* verb, CollectivesRequest& request);

// Prints rows as they are measured. Returns the process' exit code: 1 where an element was wrong, 2
// where the request is, 3 where memory is short, 5 where a worker was lost, 130 after a signal.
int BenchCollectives(const CollectivesRequest& request, OutputFormat output);

}  // namespace troupe

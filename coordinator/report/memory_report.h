// Measured memory beside predicted, by tag and rank, for people and as JSON. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "proto/worker.pb.h"

namespace troupe {

// rank → what it last said; its peaks are since its start.
using MemoryReports = std::map<int32_t, proto::MemoryReport>;

// "449/449 KiB": both in the unit of the larger.
std::string BytesOfPredicted(int64_t measured, int64_t predicted);

// A table of "measured/predicted" peaks with the rest of the resident memory in the last column.
// Of many ranks the eight that need most, and how many are left out. Empty for no reports.
std::string MemoryText(const MemoryReports& reports);

// memory.json: per rank every tag's predicted, peak and current bytes, and resident and other bytes
// at the last report. Empty for no reports.
std::string MemoryJson(const MemoryReports& reports);

// [{"rank":0,"predicted":{"params":…,"total":…},"peak":{…},"current":{…}}, …] in bytes by tag, at
// the last report; the total of peaks is that of the tags', each at its own time. One line.
std::string MemoryRowsJson(const MemoryReports& reports);

}  // namespace troupe

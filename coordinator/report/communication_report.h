// What ranks send in a training step, predicted and measured, for people and as JSON. Pure.
#pragma once

#include <map>
#include <string>

#include "actors/plan/job_plan.h"
#include "proto/worker.pb.h"

namespace troupe {

// rank → what it said at its end.
using CommunicationReports = std::map<int32_t, proto::CommunicationReport>;

// Tables of bytes by axis and operation; of many ranks the eight that send most, and how many are
// left out. Empty where nobody sends anything. The plan's: "768 KiB in 8" messages or operations.
// The run's: "measured/predicted" bytes.
std::string PlannedCommunicationText(const JobPlan& plan);
std::string CommunicationText(const CommunicationReports& reports);

// [{"rank":0,"axis":"pp","operation":"activation","predicted":{"count":8,"bytes":65536},
// "measured":{…}}, …] of one training step. measured: the mean of the steps that the rank finished,
// an integer where they divide; null before the first. A ring's hops have predicted.bytes_per_hop,
// too. One line.
std::string CommunicationRowsJson(const CommunicationReports& reports);

}  // namespace troupe

// What the attention of each rank took in a training step, where ranks share sequences (cp):
// visible pairs of query and key, predicted and measured, how evenly they lie, and how much of the
// time that blocks were under way was hidden behind computation. For people and as JSON. Pure.
#pragma once

#include <string>

#include "coordinator/report/communication_report.h"

namespace troupe {

// How evenly pairs lie over ranks: an equal share of them over the critical path (CriticalPath,
// actors/plan/context_balance.h) of all phases, and where several groups share sequences of their
// own the sums of both. 1 where no rank waits for another.
struct AttentionBalance {
  double predicted = 1;
  double measured = 1;  // of the steps that all finished; 1 before the first
};
// Of the groups all of whose ranks have said theirs.
AttentionBalance AttentionBalanceOf(const CommunicationReports& reports);

// A table of "measured/predicted" pairs by rank and phase, of many ranks the eight that do most,
// and the balance; where ranks saw fewer pairs than predicted, that this is the most, as sequences
// pack documents. Empty where no sequence is shared.
std::string AttentionText(const CommunicationReports& reports);

// {"method":"ring","balance":{"predicted":1.0,"measured":1.0},
// "work":[{"rank":0,"phase":"forward","hop":0,"predicted":{"pairs":80},"measured":{"pairs":80}},…],
// "hops":[{"rank":0,"under_way_seconds":0.5,"idle_seconds":0.01,"hidden":0.98},…]}: work of one
// step, its measured mean null before the first; hops of a ring, of all steps, `hidden` null where
// none came. Empty where no sequence is shared. One line.
std::string AttentionJson(const CommunicationReports& reports);

}  // namespace troupe

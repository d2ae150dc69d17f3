#include "runtime/base/talk.h"

#include <atomic>

#include "runtime/base/standard_streams.h"

namespace troupe {
namespace {

std::atomic<int> patience{-1};
std::atomic<int64_t> lost{0};

}  // namespace

void Say(int fd, std::string_view text, int patience_ms) {
  if (!WriteWhole(fd, text, patience_ms).ok()) ++lost;
}

void SetTalkPatience(int patience_ms) { patience = patience_ms; }
int TalkPatience() { return patience; }
int64_t TalkLost() { return lost; }

}  // namespace troupe

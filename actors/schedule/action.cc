#include "actors/schedule/action.h"

#include <array>
#include <charconv>

namespace troupe {
namespace {

struct KindSpelling {
  ActionKind kind;
  std::string_view letters;
  std::string_view name;
};

constexpr std::array<KindSpelling, kNumActionKinds> kSpellings = {{
    {ActionKind::kForward, "F", "Forward"},
    {ActionKind::kBackwardInput, "I", "BackwardInput"},
    {ActionKind::kBackwardWeight, "W", "BackwardWeight"},
    {ActionKind::kBackward, "B", "Backward"},
    {ActionKind::kSendForward, "SEND_F", "SendForward"},
    {ActionKind::kRecvForward, "RECV_F", "RecvForward"},
    {ActionKind::kSendBackward, "SEND_B", "SendBackward"},
    {ActionKind::kRecvBackward, "RECV_B", "RecvBackward"},
    {ActionKind::kWaitSendForward, "WAIT_SEND_F", "WaitSendForward"},
    {ActionKind::kWaitSendBackward, "WAIT_SEND_B", "WaitSendBackward"},
    {ActionKind::kUnshard, "UNSHARD", "Unshard"},
    {ActionKind::kReshard, "RESHARD", "Reshard"},
    {ActionKind::kReduceGrad, "REDUCE_GRAD", "ReduceGrad"},
    {ActionKind::kWaitReduceGrad, "WAIT_REDUCE_GRAD", "WaitReduceGrad"},
}};

// Takes a decimal number off the front of `text`; false without a digit or beyond `limit`.
bool TakeNumber(std::string_view& text, int limit, int& number) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc() || text.front() == '-' || number > limit) {
    return false;
  }
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

bool IsTypeCharacter(char c) { return (c >= 'A' && c <= 'Z') || c == '_'; }

// Takes "/PARTof PARTS" (without the space) off the front of `text`.
bool TakePart(std::string_view& text, Action& action) {
  constexpr int kMostParts = 255;
  int part = 0;
  int num_parts = 0;
  text.remove_prefix(1);
  if (!TakeNumber(text, kMostParts, part) || !text.starts_with("of")) {
    return false;
  }
  text.remove_prefix(2);
  if (!TakeNumber(text, kMostParts, num_parts) || part < 1 || part > num_parts) {
    return false;
  }
  action.part = static_cast<uint8_t>(part - 1);
  action.num_parts = static_cast<uint8_t>(num_parts);
  return true;
}

}  // namespace

bool IsCompute(ActionKind kind) { return kind <= ActionKind::kBackward; }

bool IsCommunication(ActionKind kind) {
  return (kind >= ActionKind::kSendForward && kind <= ActionKind::kWaitSendBackward) ||
         kind == ActionKind::kWaitReduceGrad;
}

bool HasMicrobatch(ActionKind kind) { return kind < ActionKind::kUnshard; }

std::string_view KindLetters(ActionKind kind) {
  return kSpellings[static_cast<size_t>(kind)].letters;
}

std::string_view KindName(ActionKind kind) { return kSpellings[static_cast<size_t>(kind)].name; }

std::string ToString(const Action& action) {
  std::string text = fmt::format("{}{}", action.stage, KindLetters(action.kind));
  if (HasMicrobatch(action.kind)) {
    text += fmt::format("{}", action.microbatch);
  }
  if (action.num_parts > 1) {
    text += fmt::format("/{}of{}", action.part + 1, action.num_parts);
  }
  return text;
}

Result<Action> ParseAction(std::string_view text) {
  constexpr int kMostStages = 1 << 20;
  constexpr int kMostMicrobatches = 1 << 20;
  const std::string_view whole = text;
  const auto refuse = [whole](std::string_view why) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "action '{}': {}; write stage, type, microbatch as in 2F3, 0B1, 1UNSHARD or "
                     "3W5/1of4",
                     whole, why);
  };
  Action action;
  if (text.empty() || !TakeNumber(text, kMostStages, action.stage.value)) {
    return refuse("no stage number in front");
  }
  size_t type_end = 0;
  while (type_end < text.size() && IsTypeCharacter(text[type_end])) {
    ++type_end;
  }
  const std::string_view type = text.substr(0, type_end);
  text.remove_prefix(type_end);
  const KindSpelling* found = nullptr;
  for (const KindSpelling& spelling : kSpellings) {
    found = spelling.letters == type ? &spelling : found;
  }
  if (found == nullptr) {
    return refuse(type == "BW"
                      ? "BW is the full backward of an older dialect, now B (its B is now I)"
                      : fmt::format("unknown type '{}'", type));
  }
  action.kind = found->kind;
  if (HasMicrobatch(action.kind) &&
      (text.empty() || !TakeNumber(text, kMostMicrobatches, action.microbatch.value))) {
    return refuse("no microbatch number at the end");
  }
  if (text.starts_with('/') &&
      (action.kind != ActionKind::kBackwardWeight || !TakePart(text, action))) {
    return refuse("a part is for W alone and counts from 1, as in 3W5/1of4");
  }
  if (!text.empty()) {
    return refuse(fmt::format("'{}' follows the action", text));
  }
  return action;
}

}  // namespace troupe

#include "actors/schedule/action.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

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

constexpr std::string_view kDigits = "0123456789";
constexpr std::string_view kGrammar =
    "write stage, type, microbatch as in 2F3, 0B1, 1UNSHARD or 3W5/1of4";

const KindSpelling* FindSpelling(std::string_view letters) {
  const auto* const found = std::ranges::find(kSpellings, letters, &KindSpelling::letters);
  return found == kSpellings.end() ? nullptr : found;
}

// Takes one action's text apart from the front.
class ActionReader {
 public:
  explicit ActionReader(std::string_view text) : whole_(text), rest_(text) {}

  Result<Action> Read() {
    Action action;
    if (!AtDigit()) return Refuse("no stage number in front", kGrammar);
    RETURN_IF_ERROR(TakeNumber("stage", 0, kStagesMax - 1, action.stage.value));
    ASSIGN_OR_RETURN(action.kind, TakeKind());
    action.of_microbatch = action.kind == ActionKind::kReduceGrad && AtDigit();
    if (HasMicrobatch(action)) {
      if (!AtDigit()) return Refuse("no microbatch number at the end", kGrammar);
      RETURN_IF_ERROR(TakeNumber("microbatch", 0, kMicrobatchesMax - 1, action.microbatch.value));
    } else if (AtDigit()) {
      return Refuse(fmt::format("{} is of a whole stage", KindLetters(action.kind)),
                    "leave the microbatch out");
    }
    if (rest_.starts_with('/')) RETURN_IF_ERROR(TakePart(action));
    if (!rest_.empty()) return Refuse(fmt::format("'{}' follows the action", rest_), kGrammar);
    return action;
  }

 private:
  bool AtDigit() const { return !rest_.empty() && kDigits.find(rest_.front()) != kDigits.npos; }

  Result<ActionKind> TakeKind() {
    constexpr std::string_view kTypeCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    const size_t end = std::min(rest_.find_first_not_of(kTypeCharacters), rest_.size());
    const std::string_view type = rest_.substr(0, end);
    rest_.remove_prefix(end);
    if (const KindSpelling* found = FindSpelling(type)) return found->kind;
    if (type == "BW") {
      return Refuse("BW is the full backward of an older dialect, now B (its B is now I)",
                    kGrammar);
    }
    return Refuse(type.empty() ? "no type in capitals after the stage"
                               : fmt::format("unknown type '{}'", type),
                  kGrammar);
  }

  // The number in front, which starts with a digit.
  Status TakeNumber(std::string_view noun, int least, int most, int& number) {
    const auto [end, code] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    if (code != std::errc() || number > most) {
      return Refuse(fmt::format("its {} number is too large", noun),
                    fmt::format("use {} to {}", least, most));
    }
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return {};
  }

  // "/1of4"
  Status TakePart(Action& action) {
    constexpr int kPartsMax = std::numeric_limits<uint8_t>::max();
    const auto refuse = [this] {
      return Refuse("a part is for W alone and counts from 1", "write it as in 3W5/1of4");
    };
    if (action.kind != ActionKind::kBackwardWeight) return refuse();
    int part = 0;
    int num_parts = 0;
    rest_.remove_prefix(1);
    if (!AtDigit()) return refuse();
    RETURN_IF_ERROR(TakeNumber("part", 1, kPartsMax, part));
    if (!rest_.starts_with("of")) return refuse();
    rest_.remove_prefix(2);
    if (!AtDigit()) return refuse();
    RETURN_IF_ERROR(TakeNumber("part", 1, kPartsMax, num_parts));
    if (part < 1 || part > num_parts) return refuse();
    action.part = static_cast<uint8_t>(part - 1);
    action.num_parts = static_cast<uint8_t>(num_parts);
    return {};
  }

  Error Refuse(std::string_view why, std::string_view remedy) const {
    return MakeError(ErrorCode::kInvalidSpec, "action '{}': {}; {}", whole_, why, remedy);
  }

  std::string_view whole_;
  std::string_view rest_;
};

}  // namespace

bool IsCompute(ActionKind kind) { return kind <= ActionKind::kBackward; }

bool ReadsWeights(ActionKind kind) {
  return IsCompute(kind) && kind != ActionKind::kBackwardWeight;
}

bool IsCommunication(ActionKind kind) {
  return kind >= ActionKind::kSendForward && kind <= ActionKind::kWaitSendBackward;
}

bool IsCollective(ActionKind kind) { return kind >= ActionKind::kUnshard; }

bool HasMicrobatch(const Action& action) {
  return !IsCollective(action.kind) || action.of_microbatch;
}

std::string_view KindLetters(ActionKind kind) {
  return kSpellings[static_cast<size_t>(kind)].letters;
}

std::string_view KindName(ActionKind kind) { return kSpellings[static_cast<size_t>(kind)].name; }

std::string ToString(const Action& action) {
  std::string text = fmt::format("{}{}", action.stage, KindLetters(action.kind));
  if (HasMicrobatch(action)) {
    text += fmt::format("{}", action.microbatch);
  }
  if (action.num_parts > 1) {
    text += fmt::format("/{}of{}", action.part + 1, action.num_parts);
  }
  return text;
}

Result<Action> ParseAction(std::string_view text) { return ActionReader(text).Read(); }

}  // namespace troupe

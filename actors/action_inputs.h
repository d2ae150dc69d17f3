// ActionInputs: what the actions of a rank's stages read: activations and gradients that other
// ranks sent, each in its slot, and outputs that one stage of the rank hands to another. Thread:
// the executor's, which owns it.
//
//   N1. An input is kept from its arrival until the action that reads it has ended (LetGo).
//   N2. One of a round that has not started is kept like any other; the posted slots bound how
//   many.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "actors/schedule/schedule.h"
#include "runtime/memory/buffer.h"
#include "runtime/transport/envelope.h"
#include "runtime/transport/transport.h"

namespace troupe {

// Of one dtype, shape and size, wherever in their bulk they lie.
bool SameTensor(const TensorDescriptor& a, const TensorDescriptor& b);

class ActionInputs {
 public:
  struct Key {
    int64_t round = 0;
    InputKind kind = InputKind::kActivation;
    StageId stage{};  // that reads it
    MicrobatchId microbatch{};
    int input = 0;  // which of the action's (Transfer)
    auto operator<=>(const Key&) const = default;
  };

  static Key KeyOf(int64_t round, const Transfer& transfer) {
    return {round, transfer.kind, transfer.to_stage, transfer.microbatch, transfer.input};
  }

  // False where it is there already; nothing changes then.
  [[nodiscard]] bool Keep(const Key& key, Bulk slot);
  void HandOver(const Key& key, Buffer output);
  // The input's bytes, until LetGo. It is here.
  std::span<const std::byte> Read(const Key& key) const;
  void LetGo(const Key& key);
  // What other ranks have sent for the round so far.
  std::vector<Key> ArrivedFor(int64_t round) const;

 private:
  std::map<Key, Bulk> slots_{};
  std::map<Key, Buffer> handed_over_{};
};

}  // namespace troupe

#include "actors/action_inputs.h"

#include <algorithm>
#include <utility>

namespace troupe {

bool SameTensor(const TensorDescriptor& a, const TensorDescriptor& b) {
  return a.dtype == b.dtype && a.rank == b.rank && std::ranges::equal(a.shape, b.shape) &&
         a.num_bytes == b.num_bytes;
}

bool ActionInputs::Keep(const Key& key, Bulk slot) {
  return slots_.try_emplace(key, std::move(slot)).second;
}

void ActionInputs::HandOver(const Key& key, Buffer output) {
  handed_over_.emplace(key, std::move(output));
}

std::span<const std::byte> ActionInputs::Read(const Key& key) const {
  if (const auto slot = slots_.find(key); slot != slots_.end()) return slot->second.bytes();
  return handed_over_.at(key).bytes();
}

void ActionInputs::LetGo(const Key& key) {
  if (slots_.erase(key) == 0) handed_over_.erase(key);
}

std::vector<ActionInputs::Key> ActionInputs::ArrivedFor(int64_t round) const {
  std::vector<Key> keys;
  for (const auto& [key, slot] : slots_) {
    if (key.round == round) keys.push_back(key);
  }
  return keys;
}

}  // namespace troupe

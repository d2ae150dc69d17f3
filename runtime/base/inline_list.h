// InlineList: up to N plain values in their order, without an allocation; what is not there is not
// written either.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "runtime/base/check.h"

namespace troupe {

template <typename T, size_t N>
class InlineList {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  using value_type = T;
  using iterator = T*;
  using const_iterator = const T*;

  // CHECKs that there is room.
  void push_back(const T& value) {
    CHECK(size_ < N, "a list of at most {} values is full", N);
    new (end()) T(value);
    ++size_;
  }
  void erase(T* at) {
    CHECK(at >= begin() && at < end(), "nothing to erase there");
    for (T* next = at + 1; next != end(); ++at, ++next) *at = *next;
    --size_;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& back() {
    CHECK(size_ > 0, "an empty list has no last value");
    return end()[-1];
  }
  const T& front() const {
    CHECK(size_ > 0, "an empty list has no first value");
    return *begin();
  }
  T* begin() { return std::launder(reinterpret_cast<T*>(values_)); }
  T* end() { return begin() + size_; }
  const T* begin() const { return std::launder(reinterpret_cast<const T*>(values_)); }
  const T* end() const { return begin() + size_; }

 private:
  alignas(T) std::byte values_[N * sizeof(T)];  // NOLINT(modernize-avoid-c-arrays)
  uint32_t size_ = 0;
};

}  // namespace troupe

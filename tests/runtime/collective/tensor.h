// What tests of groups reduce and move: elements of any dtype, and the sum that is expected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/base/random.h"
#include "runtime/memory/buffer.h"
#include "tests/runtime/collective/element_types.h"

namespace troupe {

namespace testing {

// Where tensors lie while shared_tensors is true: in shared buffers of this ledger.
inline bool shared_tensors = false;
inline MemoryLedger& TensorLedger() {
  static MemoryLedger ledger;
  return ledger;
}

}  // namespace testing

// Elements of one dtype, one byte off any alignment: on the heap, or shared.
class Tensor {
 public:
  Tensor(DType dtype, int64_t count) : dtype_(dtype), count_(count) {
    const int64_t num_bytes = count * DTypeBytes(dtype) + 1;
    if (testing::shared_tensors) {
      shared_ = Buffer::Shared(testing::TensorLedger(), MemoryTag::kComm, num_bytes);
    } else {
      private_.resize(static_cast<size_t>(num_bytes));
    }
  }
  Tensor(const Tensor& other) : Tensor(other.dtype_, other.count_) {
    std::memcpy(data(), other.data(), other.Bytes().size());
  }
  Tensor(Tensor&&) = default;
  Tensor& operator=(Tensor&&) = default;
  ~Tensor() = default;
  // Values whose sum depends on the order of its terms.
  static Tensor Random(DType dtype, int64_t count, uint64_t seed) {
    Tensor tensor(dtype, count);
    const uint64_t key = RandomKey(seed, "tensor");
    for (int64_t i = 0; i < count; ++i) {
      const auto draw = static_cast<uint64_t>(i);
      const auto value = static_cast<float>((UniformAt(key, 2 * draw) - 0.5) *
                                            (UniformAt(key, 2 * draw + 1) < 0.5 ? 3000 : 1));
      switch (dtype) {
        case DType::kFloat32:
          tensor.Put(i, value);
          break;
        case DType::kBFloat16:
          tensor.Put(i, bfloat16(value));
          break;
        case DType::kFloat16:
          tensor.Put(i, float16(value));
          break;
        case DType::kInt32:
          tensor.Put(i, static_cast<int32_t>(value * 1e6f));
          break;
        default:
          tensor.Put(i, static_cast<int64_t>(value * 1e15f));
      }
    }
    return tensor;
  }

  std::byte* data() { return (shared_.empty() ? private_.data() : shared_.data()) + 1; }
  const std::byte* data() const { return (shared_.empty() ? private_.data() : shared_.data()) + 1; }
  int64_t count() const { return count_; }
  Elements elements() { return Part(0, count_); }
  Elements Part(int64_t first, int64_t count) {
    return {static_cast<uint8_t>(dtype_), data() + first * DTypeBytes(dtype_), count};
  }
  // The elements [first, first + count) as bytes.
  std::string Bytes(int64_t first, int64_t count) const {
    const auto* from = reinterpret_cast<const char*>(data()) + first * DTypeBytes(dtype_);
    return {from, static_cast<size_t>(count * DTypeBytes(dtype_))};
  }
  std::string Bytes() const { return Bytes(0, count_); }

 private:
  template <typename T>
  void Put(int64_t index, T value) {
    std::memcpy(data() + index * int64_t{sizeof(T)}, &value, sizeof(T));
  }
  DType dtype_;
  int64_t count_;
  std::vector<std::byte> private_{};
  Buffer shared_{};
};

// The serial sum: member `first` + the one after it + …, all round.
inline std::string SerialSum(DType dtype, const std::vector<Tensor>& members, size_t first = 0) {
  std::vector<const void*> inputs;
  for (size_t i = 0; i < members.size(); ++i) {
    inputs.push_back(members[(first + i) % members.size()].data());
  }
  Tensor sum(dtype, members[0].count());
  OrderedSumOf(dtype)(sum.data(), inputs.data(), static_cast<int>(inputs.size()), sum.count());
  return sum.Bytes();
}

// The same of one run of the elements.
inline std::string SerialSum(DType dtype, const std::vector<Tensor>& members, size_t first,
                             ElementRun run) {
  const auto item = static_cast<size_t>(DTypeBytes(dtype));
  return SerialSum(dtype, members, first)
      .substr(static_cast<size_t>(run.first) * item, static_cast<size_t>(run.count) * item);
}

// What groups of such an algorithm leave of parts, in their order: along a ring a part's sum begins
// at the member after its owner.
inline std::string SumOfParts(SumAlgorithm sums, DType dtype, const std::vector<Tensor>& members,
                              const std::vector<ElementRun>& parts) {
  std::string sum;
  for (size_t owner = 0; owner < parts.size(); ++owner) {
    const size_t first = sums == SumAlgorithm::kRing ? owner + 1 : 0;
    sum += SerialSum(dtype, members, first, parts[owner]);
  }
  return sum;
}

// Of an all-reduce.
inline std::string SumOfAll(SumAlgorithm sums, DType dtype, const std::vector<Tensor>& members) {
  const auto size = static_cast<int>(members.size());
  return SumOfParts(sums, dtype, members, DivideRing(members[0].count(), size).summed);
}

// One for each member.
inline std::vector<Tensor> RandomOnes(DType dtype, int64_t count, int size) {
  std::vector<Tensor> tensors;
  for (int i = 0; i < size; ++i) {
    tensors.push_back(Tensor::Random(dtype, count, static_cast<uint64_t>(count * 31 + i)));
  }
  return tensors;
}

}  // namespace troupe

#include "runtime/format/widen.h"

#include <algorithm>
#include <bit>
#include <vector>

namespace troupe {
namespace {

float BFloat16ToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

template <typename Convert>
Status WidenEach(const StoredTensor& stored, int64_t first_element, std::span<float> out,
                 Convert convert) {
  constexpr size_t kChunkElements = size_t{1} << 19;
  std::vector<uint16_t> chunk;
  for (size_t done = 0; done < out.size(); done += chunk.size()) {
    chunk.resize(std::min(kChunkElements, out.size() - done));
    const int64_t begin = 2 * (first_element + static_cast<int64_t>(done));
    RETURN_IF_ERROR(stored.Read(begin, std::as_writable_bytes(std::span(chunk))));
    std::ranges::transform(chunk, out.data() + done, convert);
  }
  return {};
}

}  // namespace

float HalfToFloat(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction x 2^-24
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  const uint32_t wide = exponent == 0x1f ? 0xffu : exponent + 127 - 15;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

Status CheckWidens(const TensorSpec& spec, const std::string& place) {
  if (spec.dtype == TensorDtype::kF32 || spec.dtype == TensorDtype::kBf16 ||
      spec.dtype == TensorDtype::kF16) {
    return {};
  }
  return MakeError(ErrorCode::kInvalidSpec, "{}: {} has dtype {}: save it as F32, BF16 or F16",
                   place, spec.name, TensorDtypeName(spec.dtype));
}

Status WidenToFloat32(const StoredTensor& stored, int64_t first_element, std::span<float> out) {
  switch (stored.entry->spec.dtype) {
    case TensorDtype::kF32:
      return stored.Read(4 * first_element, std::as_writable_bytes(out));
    case TensorDtype::kBf16:
      return WidenEach(stored, first_element, out, BFloat16ToFloat);
    case TensorDtype::kF16:
      return WidenEach(stored, first_element, out, HalfToFloat);
    default:
      CHECK(false, "{} does not widen", stored.entry->spec.name);
  }
}

}  // namespace troupe

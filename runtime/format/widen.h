// Stored numbers as float32, exactly: what masters are filled from. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "runtime/base/result.h"
#include "runtime/format/safetensors.h"

namespace troupe {

// IEEE 754 half precision; every value, subnormal, infinity and NaN has a float32 of its own.
float HalfToFloat(uint16_t bits);

// kInvalidSpec, naming tensor and dtype, for all but F32, BF16 and F16. `place` starts the message.
Status CheckWidens(const TensorSpec& spec, const std::string& place);

// Fills `out` with the tensor's elements, row-major, from `first_element` on; it has them. It
// widens (CheckWidens); kIo where it cannot be read.
Status WidenToFloat32(const StoredTensor& stored, int64_t first_element, std::span<float> out);

}  // namespace troupe

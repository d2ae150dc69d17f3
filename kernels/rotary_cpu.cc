#include <cmath>
#include <numbers>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/specification.h"
#include "kernels/rotary.h"

namespace troupe {
namespace {

int64_t PositionAt(const ConstTensorView& positions, int64_t token, int64_t table_rows) {
  const int64_t position = positions.as<int32_t>()[token];
  KERNEL_CHECK(position >= 0 && position < table_rows, "a position lies outside the table");
  return position;
}

// direction 1 turns forward, -1 back.
template <typename Real>
void TurnSpecification(TensorView x, ConstTensorView positions, ConstTensorView table,
                       Real direction) {
  const int64_t head_dim = table.row_elements();
  const int64_t half = head_dim / 2;
  for (int64_t t = 0; t < x.rows(); ++t) {
    const int64_t position = PositionAt(positions, t, table.rows());
    for (int64_t head = 0; head < x.dim(1); ++head) {
      for (int64_t i = 0; i < half; ++i) {
        const int64_t column = head * head_dim + i;
        const Real cosine = Read<Real>(table, position, i);
        const Real sine = direction * Read<Real>(table, position, half + i);
        const Real a = Read<Real>(x, t, column);
        const Real b = Read<Real>(x, t, column + half);
        Write<Real>(x, t, column, a * cosine - b * sine);
        Write<Real>(x, t, column + half, b * cosine + a * sine);
      }
    }
  }
}

void Turn(const Exec& exec, TensorView x, ConstTensorView positions, ConstTensorView table,
          int direction) {
  CheckOnCpu(exec);
  KERNEL_CHECK(x.rank() == 3, "x is (T, H, D)");
  KERNEL_CHECK(x.dim(2) == table.row_elements() && x.dim(2) % 2 == 0,
               "the table has another head size");
  KERNEL_CHECK(positions.num_elements() == x.rows(), "one position for each token");
  KERNEL_CHECK(table.dtype() != DType::kBFloat16, "the table is float32 or float64");
  if (const VectorBodies* fast = FastBodies(exec, x.dtype(), table.dtype())) {
    SplitRows(exec, x.rows(), [&](int64_t first, int64_t count) {
      for (int64_t t = first; t < first + count; ++t) {
        const int64_t position = PositionAt(positions, t, table.rows());
        fast->rotate(RowsOf(x), t, x.dim(1), x.dim(2), table.row<float>(position),
                     static_cast<float>(direction));
      }
    });
    return;
  }
  WithReal(x.dtype(), [&](auto real) {
    TurnSpecification<decltype(real)>(x, positions, table, static_cast<decltype(real)>(direction));
  });
}

}  // namespace

double RotaryFrequency(const RotaryConfig& config, int64_t index) {
  const double exponent = 2.0 * static_cast<double>(index) / static_cast<double>(config.head_dim);
  const double frequency = std::pow(config.theta, -exponent);
  if (!config.has_llama3_scaling) return frequency;

  const Llama3RotaryScaling& scaling = config.llama3;
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double context = scaling.original_max_position_embeddings;
  if (wavelength < context / scaling.high_freq_factor) return frequency;
  if (wavelength > context / scaling.low_freq_factor) return frequency / scaling.factor;
  const double smooth = (context / wavelength - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0 - smooth) * frequency / scaling.factor + smooth * frequency;
}

void BuildRotaryTable(TensorView table, const RotaryConfig& config) {
  KERNEL_CHECK(config.head_dim > 0 && config.head_dim % 2 == 0, "the head size is odd");
  KERNEL_CHECK(table.row_elements() == config.head_dim, "the table has another head size");
  KERNEL_CHECK(table.dtype() != DType::kBFloat16, "the table is float32 or float64");
  const int64_t half = config.head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double frequency = RotaryFrequency(config, i);
    for (int64_t position = 0; position < table.rows(); ++position) {
      const double angle = static_cast<double>(position) * frequency;
      Write<double>(table, position, i, std::cos(angle));
      Write<double>(table, position, half + i, std::sin(angle));
    }
  }
}

void RotaryForward(const Exec& exec, TensorView x, ConstTensorView positions,
                   ConstTensorView table) {
  Turn(exec, x, positions, table, 1);
}

void RotaryBackward(const Exec& exec, TensorView dx, ConstTensorView positions,
                    ConstTensorView table) {
  Turn(exec, dx, positions, table, -1);
}

}  // namespace troupe

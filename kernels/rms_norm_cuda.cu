#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda_check.h"
#include "kernels/rms_norm_cuda.h"

namespace troupe {
namespace {

constexpr int kThreads = 256;

// A view of either dtype in device code.
struct DeviceRows {
  void* data;
  int64_t stride;
  bool is_bfloat16;

  __device__ float Get(int64_t row, int64_t column) const {
    const int64_t i = row * stride + column;
    return is_bfloat16 ? __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i])
                       : static_cast<const float*>(data)[i];
  }
  __device__ void Put(int64_t row, int64_t column, float value) const {
    const int64_t i = row * stride + column;
    if (is_bfloat16) {
      static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
    } else {
      static_cast<float*>(data)[i] = value;
    }
  }
};

DeviceRows RowsOf(const ConstTensorView& view) {
  KERNEL_CHECK(view.dtype() == DType::kFloat32 || view.dtype() == DType::kBFloat16,
               "CUDA norms are float32 or bfloat16");
  return {const_cast<void*>(view.data()), view.row_stride(), view.dtype() == DType::kBFloat16};
}

// The block's sum in a fixed tree, given to every thread.
__device__ float BlockSum(float value) {
  __shared__ float sums[kThreads];
  sums[threadIdx.x] = value;
  __syncthreads();
  for (int width = kThreads / 2; width > 0; width /= 2) {
    if (threadIdx.x < width) sums[threadIdx.x] += sums[threadIdx.x + width];
    __syncthreads();
  }
  return sums[0];
}

// One block a token.
__global__ void Forward(DeviceRows y, DeviceRows rstd, DeviceRows sum, DeviceRows x,
                        DeviceRows delta, DeviceRows weight, int64_t channels, float eps) {
  const int64_t t = blockIdx.x;
  const DeviceRows normed = delta.data != nullptr ? sum : x;
  float squares = 0;
  for (int64_t c = threadIdx.x; c < channels; c += kThreads) {
    if (delta.data != nullptr) sum.Put(t, c, x.Get(t, c) + delta.Get(t, c));
    const float value = normed.Get(t, c);
    squares = fmaf(value, value, squares);
  }
  const float scale = 1.0f / sqrtf(BlockSum(squares) / static_cast<float>(channels) + eps);
  if (threadIdx.x == 0) rstd.Put(t, 0, scale);
  for (int64_t c = threadIdx.x; c < channels; c += kThreads) {
    y.Put(t, c, normed.Get(t, c) * scale * weight.Get(0, c));
  }
}

// One block a token.
__global__ void InputGrad(DeviceRows dx, DeviceRows dy, DeviceRows x, DeviceRows rstd,
                          DeviceRows weight, DeviceRows residual, int64_t channels) {
  const int64_t t = blockIdx.x;
  const float scale = rstd.Get(t, 0);
  float dot = 0;
  for (int64_t c = threadIdx.x; c < channels; c += kThreads) {
    dot = fmaf(weight.Get(0, c) * dy.Get(t, c), x.Get(t, c) * scale, dot);
  }
  const float mean = BlockSum(dot) / static_cast<float>(channels);
  for (int64_t c = threadIdx.x; c < channels; c += kThreads) {
    const float inner = weight.Get(0, c) * dy.Get(t, c) - x.Get(t, c) * scale * mean;
    const float before = residual.data != nullptr ? residual.Get(t, c) : 0.0f;
    dx.Put(t, c, fmaf(scale, inner, before));
  }
}

// One thread a channel, tokens in ascending order: no atomics, one order.
__global__ void WeightGrad(DeviceRows dweight, DeviceRows dy, DeviceRows x, DeviceRows rstd,
                           int64_t tokens, int64_t channels) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= channels) return;
  float sum = dweight.Get(0, c);
  for (int64_t t = 0; t < tokens; ++t) {
    sum = fmaf(dy.Get(t, c), x.Get(t, c) * rstd.Get(t, 0), sum);
  }
  dweight.Put(0, c, sum);
}

}  // namespace

void RmsNormForwardCuda(const Exec& exec, const AddRmsNormArgs& args) {
  if (args.x.rows() == 0) return;
  Forward<<<static_cast<unsigned>(args.x.rows()), kThreads, 0,
            static_cast<cudaStream_t>(exec.stream)>>>(
      RowsOf(args.y), RowsOf(args.rstd), RowsOf(args.sum), RowsOf(args.x), RowsOf(args.delta),
      RowsOf(args.weight), args.x.row_elements(), static_cast<float>(args.eps));
  CUDA_CHECK(cudaGetLastError());
}

void RmsNormBackwardCuda(const Exec& exec, const RmsNormBackwardArgs& args) {
  const int64_t tokens = args.x.rows(), channels = args.x.row_elements();
  if (tokens == 0) return;
  const auto stream = static_cast<cudaStream_t>(exec.stream);
  // The weight half first: dx may be dy's memory.
  if (!args.dweight.empty()) {
    const auto blocks = static_cast<unsigned>((channels + kThreads - 1) / kThreads);
    WeightGrad<<<blocks, kThreads, 0, stream>>>(
        RowsOf(args.dweight), RowsOf(args.dy), RowsOf(args.x), RowsOf(args.rstd), tokens, channels);
    CUDA_CHECK(cudaGetLastError());
  }
  if (!args.dx.empty()) {
    InputGrad<<<static_cast<unsigned>(tokens), kThreads, 0, stream>>>(
        RowsOf(args.dx), RowsOf(args.dy), RowsOf(args.x), RowsOf(args.rstd), RowsOf(args.weight),
        RowsOf(args.residual), channels);
    CUDA_CHECK(cudaGetLastError());
  }
}

}  // namespace troupe

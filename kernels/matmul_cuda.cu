// Products by cuBLASLt, summed in float32 without TF32. Row-major matrices are column-major
// transposes, so that each product is stated transposed: y^T = W x^T.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include "kernels/cuda_bodies.h"
#include "kernels/cuda_check.h"
#include "kernels/rms_norm_cuda.h"

namespace troupe {
namespace {

cublasLtHandle_t Handle() {
  static const cublasLtHandle_t handle = [] {
    cublasLtHandle_t created = nullptr;
    CUDA_CHECK(cublasLtCreate(&created));
    return created;
  }();
  return handle;
}

cudaDataType_t TypeOf(DType dtype) {
  KERNEL_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16,
               "CUDA products are float32 or bfloat16");
  return dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
}

// The transpose of a row-major view as cuBLASLt's column-major layout.
class Layout {
 public:
  explicit Layout(const ConstTensorView& view) {
    CUDA_CHECK(cublasLtMatrixLayoutCreate(&layout_, TypeOf(view.dtype()),
                                          static_cast<uint64_t>(view.row_elements()),
                                          static_cast<uint64_t>(view.rows()), view.row_stride()));
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout_); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  operator cublasLtMatrixLayout_t() const { return layout_; }

 private:
  cublasLtMatrixLayout_t layout_ = nullptr;
};

// result^T [+]= op(left^T) op(right^T).
void Multiply(const Exec& exec, const TensorView& result, const ConstTensorView& left,
              cublasOperation_t left_op, const ConstTensorView& right, cublasOperation_t right_op,
              bool accumulate) {
  cublasLtMatmulDesc_t product = nullptr;
  CUDA_CHECK(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  CUDA_CHECK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &left_op,
                                            sizeof(left_op)));
  CUDA_CHECK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &right_op,
                                            sizeof(right_op)));
  const Layout a(left), b(right), c{ConstTensorView(result)};
  const float alpha = 1.0f, beta = accumulate ? 1.0f : 0.0f;
  CUDA_CHECK(cublasLtMatmul(Handle(), product, &alpha, left.data(), a, right.data(), b, &beta,
                            result.data(), c, result.data(), c, nullptr, exec.workspace.data(),
                            exec.workspace.size(), static_cast<cudaStream_t>(exec.stream)));
  CUDA_CHECK(cublasLtMatmulDescDestroy(product));
}

}  // namespace

void MatmulForwardCuda(const Exec& exec, TensorView y, ConstTensorView x,
                       const PackedWeight& weight, bool accumulate) {
  Multiply(exec, y, weight.weight, CUBLAS_OP_T, x, CUBLAS_OP_N, accumulate);
}

void MatmulInputGradCuda(const Exec& exec, TensorView dx, ConstTensorView dy,
                         const PackedWeight& weight, bool accumulate) {
  Multiply(exec, dx, weight.weight, CUBLAS_OP_N, dy, CUBLAS_OP_N, accumulate);
}

void MatmulWeightGradCuda(const Exec& exec, TensorView dw, ConstTensorView dy, ConstTensorView x,
                          bool accumulate) {
  Multiply(exec, dw, x, CUBLAS_OP_N, dy, CUBLAS_OP_T, accumulate);
}

void UseCudaBodies() {
  static const CudaBodies bodies{MatmulForwardCuda, MatmulInputGradCuda, MatmulWeightGradCuda,
                                 RmsNormForwardCuda, RmsNormBackwardCuda};
  InstallCudaBodies(bodies);
}

}  // namespace troupe

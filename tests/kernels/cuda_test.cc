// The CUDA bodies against the CPU specification; skipped where no GPU answers.
#include <cuda_runtime.h>

#include "kernels/cuda_bodies.h"
#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kCuda{.float32 = 5e-6, .bfloat16 = 1e-2};

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int num_devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&num_devices);
    if (status != cudaSuccess || num_devices == 0) {
      GTEST_SKIP() << "no GPU here: " << cudaGetErrorString(status);
    }
    UseCudaBodies();
    exec_.device = Device::kCuda;
  }
  Exec exec_;
};

// A copy of a dense test tensor in device memory.
class OnDevice {
 public:
  explicit OnDevice(const TestTensor& tensor) : host_(tensor.view()) {
    EXPECT_EQ(cudaMalloc(&data_, static_cast<size_t>(host_.num_bytes())), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, host_.data(), static_cast<size_t>(host_.num_bytes()),
                         cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  TensorView view() const {
    return host_.rank() == 1
               ? TensorView(data_, host_.dtype(), {host_.dim(0)})
               : TensorView(data_, host_.dtype(), {host_.dim(0), host_.row_elements()});
  }
  // Back into the host tensor.
  void Fetch() const {
    EXPECT_EQ(cudaMemcpy(host_.data(), data_, static_cast<size_t>(host_.num_bytes()),
                         cudaMemcpyDeviceToHost),
              cudaSuccess);
  }

 private:
  TensorView host_;
  void* data_ = nullptr;
};

TEST_F(CudaTest, ProductsAgreeWithTheSpecification) {
  for (const DType dtype : FastDTypes()) {
    const int64_t tokens = 48, in = 64, out = 80;
    TestTensor x(dtype, {tokens, in}), w(dtype, {out, in}), dy(dtype, {tokens, out});
    x.Normal(1);
    w.Normal(2);
    dy.Normal(3);
    TestTensor y(dtype, {tokens, out}), dx(dtype, {tokens, in}), dw(DType::kFloat32, {out, in});
    dw.Normal(4);
    TestTensor wide_y = y.As(DType::kFloat64), wide_dx = dx.As(DType::kFloat64);
    TestTensor wide_dw = dw.As(DType::kFloat64);
    const OnDevice gx(x), gw(w), gdy(dy), gy(y), gdx(dx), gdw(dw);
    MatmulForward(exec_, gy.view(), gx.view(), gw.view());
    MatmulInputGrad(exec_, gdx.view(), gdy.view(), gw.view());
    MatmulWeightGrad(exec_, gdw.view(), gdy.view(), gx.view());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    gy.Fetch();
    gdx.Fetch();
    gdw.Fetch();
    const TestTensor wx = x.As(DType::kFloat64), ww = w.As(DType::kFloat64);
    const TestTensor wdy = dy.As(DType::kFloat64);
    MatmulForward(TestExec(), wide_y, wx, ww.view());
    MatmulInputGrad(TestExec(), wide_dx, wdy, ww.view());
    MatmulWeightGrad(TestExec(), wide_dw, wdy, wx);
    ExpectClose(y, wide_y, kCuda, "y");
    ExpectClose(dx, wide_dx, kCuda, "dx");
    ExpectClose(dw, wide_dw, kCuda, "dw");
  }
}

TEST_F(CudaTest, RmsNormAgreesWithTheSpecification) {
  for (const DType dtype : FastDTypes()) {
    const int64_t tokens = 9, channels = 300;
    TestTensor x(dtype, {tokens, channels}), weight(dtype, {channels});
    x.Normal(1);
    weight.Normal(2);
    TestTensor dy = x, y = x, dx = x;
    dy.Normal(3);
    TestTensor rstd(DType::kFloat32, {tokens}), dweight(DType::kFloat32, {channels});
    TestTensor wide_y = y.As(DType::kFloat64), wide_dx = wide_y;
    TestTensor wide_rstd = rstd.As(DType::kFloat64), wide_dweight = dweight.As(DType::kFloat64);
    const TestTensor wide_x = x.As(DType::kFloat64), wide_weight = weight.As(DType::kFloat64);
    const OnDevice gx(x), gweight(weight), gdy(dy), gy(y), gdx(dx), grstd(rstd), gdweight(dweight);
    RmsNormForward(exec_, gy.view(), grstd.view(), gx.view(), gweight.view(), 1e-5);
    RmsNormBackward(
        exec_,
        {gdx.view(), gdweight.view(), gdy.view(), gx.view(), grstd.view(), gweight.view(), {}});
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (const OnDevice* result : {&gy, &gdx, &grstd, &gdweight}) result->Fetch();
    RmsNormForward(TestExec(), wide_y, wide_rstd, wide_x, wide_weight, 1e-5);
    RmsNormBackward(
        TestExec(),
        {wide_dx, wide_dweight, dy.As(DType::kFloat64), wide_x, wide_rstd, wide_weight, {}});
    ExpectClose(y, wide_y, kCuda, "y");
    ExpectClose(dx, wide_dx, kCuda, "dx");
    ExpectClose(dweight, wide_dweight, kCuda, "dweight");
  }
}

}  // namespace
}  // namespace troupe::kernel_test

// How near a training step comes to the time of its own matrix products at the bare oneDNN
// primitive's rate: what it would take were all else free. One worker, one math thread.
#include <omp.h>

#include <utility>
#include <vector>

#include "actors/plan/memory_model.h"
#include "tests/benchmark/bare_product.h"
#include "tests/benchmark/trainee.h"

namespace troupe {
namespace {

// A product and how often a step runs it.
struct StepProducts {
  MatmulShape shape;
  DType result;  // of the forward product
  int64_t count = 0;
};

std::vector<StepProducts> ProductsOf(const testing::SmallModel& model, DType dtype) {
  const ModelSpec spec = model.Spec();
  const int64_t tokens = model.batch.tokens_per_microbatch();
  std::vector<StepProducts> products;
  const auto add = [&](const LayerSpec& unit, int64_t times) {
    for (const LayerProduct& p : unit.products) {
      const int64_t rows = RowsOf(p, tokens);  // divides the tokens here
      products.push_back({{rows, p.in, p.out, dtype},
                          p.chunked ? DType::kFloat32 : dtype,
                          tokens / rows * times * model.batch.num_microbatches});
    }
  };
  add(spec.layer_kinds.front(), spec.num_layers());
  add(spec.head, 1);
  return products;
}

// A step's products, each in a loop of its own on operands of oneDNN's choosing.
class BareStep {
 public:
  BareStep(const testing::SmallModel& model, DType dtype) {
    for (const auto& [s, result, count] : ProductsOf(model, dtype)) {
      products_.emplace_back(bench::BareProduct(s.tokens, s.out, s.in, dtype, result, false, true),
                             count);
      products_.emplace_back(bench::BareProduct(s.tokens, s.in, s.out, dtype, dtype, false, true),
                             count);
      products_.emplace_back(
          bench::BareProduct(s.out, s.in, s.tokens, dtype, DType::kFloat32, true, false), count);
    }
  }
  double Milliseconds() {
    double us = 0;
    for (auto& [product, count] : products_) {
      us += static_cast<double>(count) * bench::MicrosecondsOf([&] { product.Run(); });
    }
    return us / 1e3;
  }

 private:
  std::vector<std::pair<bench::BareProduct, int64_t>> products_;
};

TROUPE_BENCHMARK(StepProducts) {
  omp_set_num_threads(1);
  TrainingCase small = SmallCase();
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const bool is_float32 = dtype == DType::kFloat32;
    small.model.dtype = dtype;
    // Elsewhere bfloat16 is multiplied in float32, by whomever.
    const bool narrow = !is_float32 && bench::HasBFloat16Peer();
    BareStep products(small.model, narrow ? dtype : DType::kFloat32);
    Trainee trainee(small.model);
    bench.Compare(
        {.name = std::string("step_products/small/") + (is_float32 ? "f32" : "bf16"),
         .unit = "CPU ms/step",
         .peer_name =
             std::string("its products alone, oneDNN ") + (narrow ? "bfloat16" : "float32"),
         .goal = is_float32 ? 0.85 : 0.80},
        [&] {
          const double start_ns = bench::ProcessCpuNs();
          trainee.Step();
          return (bench::ProcessCpuNs() - start_ns) / 1e6;
        },
        [&] { return products.Milliseconds(); });
  }
}

}  // namespace
}  // namespace troupe

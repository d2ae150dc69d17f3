#include "actors/plan/job_shape.h"

#include <utility>

#include "actors/plan/context_parallel_keys.h"
#include "actors/plan/model_config.h"

namespace troupe {

Result<JobShape> JobShapeOf(const proto::JobSpec& spec) {
  JobShape shape;
  ASSIGN_OR_RETURN(shape.model, ModelConfigOf(spec.model()));
  ASSIGN_OR_RETURN(shape.mesh, Mesh::FromSpec(spec.parallelism()));
  ASSIGN_OR_RETURN(const GradReduce grad_reduce, GradReduceOf(spec.parallelism()));
  ASSIGN_OR_RETURN(shape.batch, BatchOf(spec.batch(), shape.mesh.extent(Axis::kDp), grad_reduce));
  std::vector<Error> errors;
  shape.batch.context = ReadContext(spec, shape.mesh.extent(Axis::kCp), errors);
  CheckContext(shape.batch.context, shape.model.config, shape.batch.seq_len, errors);
  if (!errors.empty()) return std::move(errors.front());
  shape.batch.packs_documents = spec.data().has_document_separator();
  return shape;
}

bool Trains(const proto::JobSpec& spec) { return spec.kind().empty() || spec.kind() == "pretrain"; }

NumberWidths ReadWidths(const proto::Train& train, std::vector<Error>& errors) {
  NumberWidths widths;
  auto of_dtype = WidthsOf(train.has_dtype() ? train.dtype() : "float32");
  if (of_dtype.ok()) {
    widths = *of_dtype;
  } else {
    errors.push_back(std::move(of_dtype).error());
  }
  if (train.grad_dtype() == "bfloat16") {
    widths.grad_bytes = 2;
  } else if (train.has_grad_dtype() && train.grad_dtype() != "float32") {
    constexpr size_t kShownBytes = 60;
    errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                               "train.grad_dtype = {}: use float32 or bfloat16",
                               train.grad_dtype().substr(0, kShownBytes)));
  }
  return widths;
}

Result<NumberWidths> WidthsOf(const proto::Train& train) {
  std::vector<Error> errors;
  const NumberWidths widths = ReadWidths(train, errors);
  if (!errors.empty()) return std::move(errors.front());
  return widths;
}

}  // namespace troupe

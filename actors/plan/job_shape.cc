#include "actors/plan/job_shape.h"

#include <utility>

#include "actors/plan/model_config.h"

namespace troupe {

Result<JobShape> JobShapeOf(const proto::JobSpec& spec) {
  JobShape shape;
  ASSIGN_OR_RETURN(shape.model, ModelConfigOf(spec.model()));
  ASSIGN_OR_RETURN(shape.mesh, Mesh::FromSpec(spec.parallelism()));
  ASSIGN_OR_RETURN(const GradReduce grad_reduce, GradReduceOf(spec.parallelism()));
  ASSIGN_OR_RETURN(shape.batch, BatchOf(spec.batch(), shape.mesh.extent(Axis::kDp), grad_reduce));
  return shape;
}

bool Trains(const proto::JobSpec& spec) { return spec.kind().empty() || spec.kind() == "pretrain"; }

Result<NumberWidths> WidthsOf(const proto::Train& train) {
  return WidthsOf(train.has_dtype() ? train.dtype() : "float32");
}

}  // namespace troupe

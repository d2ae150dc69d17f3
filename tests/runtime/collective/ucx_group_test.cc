#include "tests/runtime/collective/group_conformance.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(Ucx, GroupConformance, RouterWorld<UcxWorldNetwork>);

}  // namespace
}  // namespace troupe

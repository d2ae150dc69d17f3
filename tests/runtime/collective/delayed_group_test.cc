// A backend in one file: the operations of another one, each a little later.
#include "tests/runtime/collective/group_conformance.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe {
namespace {

class DelayedGroup : public Group {
 public:
  explicit DelayedGroup(std::unique_ptr<Group> inner)
      : Group(inner->spec(), inner->elements()), inner_(std::move(inner)) {}

  Task<Status> Run(GroupOperation operation) override {
    co_await StreamSleep(1);
    co_return co_await inner_->Run(operation);
  }

 private:
  std::unique_ptr<Group> inner_;
};

struct DelayedWorld : RouterWorld<SimWorldNetwork> {
  using RouterWorld::RouterWorld;
  std::unique_ptr<Group> Open(const GroupSpec& spec, uint16_t channel) {
    return std::make_unique<DelayedGroup>(RouterWorld::Open(spec, channel));
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Delayed, GroupConformance, DelayedWorld);

}  // namespace
}  // namespace troupe

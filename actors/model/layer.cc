#include "actors/model/layer.h"

#include "actors/model/decoder_layer.h"
#include "runtime/base/check.h"

namespace troupe {

std::unique_ptr<Layer> NewLayer(const UnitSite& site) {
  if (site.spec.kind == kDecoderKind) return std::make_unique<DecoderLayer>(site);
  CHECK(false, "no piece computes layers of kind {}", site.spec.kind);
  return nullptr;
}

}  // namespace troupe

// The door of the coordinator: the gRPC service of proto/control.proto. The only place, with its
// client side (cli/client, agent), that knows gRPC. Callbacks run on gRPC's threads and only post
// to the event loop, where the ops run; answers go back from there.
#pragma once

#include <memory>
#include <string>

#include "coordinator/ops/submit.h"
#include "coordinator/state.h"

namespace troupe {

class ControlServer {
 public:
  // Binds `listen` ("127.0.0.1:0" picks a port). The state lives on the scheduler's thread and
  // outlives the server.
  static Result<std::unique_ptr<ControlServer>> Start(State& state, Seams seams,
                                                      NewRecorder new_recorder,
                                                      const std::string& listen);
  virtual ~ControlServer() = default;
  virtual int port() const = 0;
  // Ends all calls; the event loop must still run (from another thread, or RunUntilIdle after), and
  // what waits for an answer has got one (RefuseSubmissions).
  virtual void Shutdown() = 0;
};

}  // namespace troupe

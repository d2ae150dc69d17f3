// What the fuzzers feed: one entry point a parser of bytes from outside. Each reads `bytes` as that
// format and uses all that it accepted; nothing may crash, and whatever is accepted must hold what
// the format's header promises.
#pragma once

#include <cstddef>
#include <span>

namespace troupe::testing {

void FuzzSafetensors(std::span<const std::byte> bytes);
void FuzzHfConfig(std::span<const std::byte> bytes);
// The file is a llm.c .bin.
void FuzzTokenFile(std::span<const std::byte> bytes);
void FuzzManifest(std::span<const std::byte> bytes);
// A job file, read to the effective job; errors are those of a bad spec.
void FuzzJobFile(std::span<const std::byte> bytes);
// A schedule that a user wrote, in either dialect, with or without sends and receives.
void FuzzScheduleCsv(std::span<const std::byte> bytes);
// Times of a pipeline's stages, as JSON or as comma-separated values.
void FuzzCostsFile(std::span<const std::byte> bytes);
// A message, a link frame or an address of the UCX transport.
void FuzzUcxFrame(std::span<const std::byte> bytes);
// What a member of a group is sent: a byte for its operation, then messages. Each is a byte
// (sender, 4: a fault), of a block the two bytes of its bulk's size, and the message itself.
void FuzzGroupMessages(std::span<const std::byte> bytes);
// What an owner of rows in shards is sent. Each message begins with a byte (sender, 4: the other
// row, 8: a request), of a block the two bytes of its bulk's size.
void FuzzShardMessages(std::span<const std::byte> bytes);
// What the next rank of a ring is sent. Each message begins with a byte (sender, 4: a gradient, 8
// and 16: its channel) and one of its bulk's size.
void FuzzKvMessages(std::span<const std::byte> bytes);

}  // namespace troupe::testing

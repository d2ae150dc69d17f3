// What every transport must do. A backend instantiates the suite with a fixture that makes
// connected pairs:
//
//   struct Backend { Transport& at(int rank); void Kill(int rank); … };
//   INSTANTIATE_TYPED_TEST_SUITE_P(Name, TransportConformance, Backend);
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "runtime/transport/transport.h"
#include "tests/support/patience.h"

namespace troupe {

template <typename Backend>
class TransportConformance : public ::testing::Test {
 protected:
  static constexpr uint16_t kChannel = 5;

  TransportConformance() {
    for (int rank = 0; rank < 2; ++rank) {
      backend.at(rank).SetHandlers(
          {.on_message =
               [this, rank](Delivery d) {
                 texts[rank].emplace_back(reinterpret_cast<const char*>(d.payload.data()),
                                          d.payload.size());
                 envelopes[rank].push_back(d.envelope);
                 if (d.envelope.num_bulk > 0) bulks[rank].push_back(std::move(d.bulk));
               },
           .on_peer_down = [this, rank](Rank, Error) { ++downs[rank]; },
           .on_credit = [this, rank](Rank, uint16_t) { ++credits[rank]; }});
    }
  }
  ~TransportConformance() override {
    for (auto& held : bulks) held.clear();
  }

  void OpenChannel(int slots, int64_t bytes) {
    ASSERT_TRUE(backend.at(1).PostSlots(Rank(0), kChannel, slots, bytes).ok());
    backend.at(0).SetCredits(Rank(1), kChannel, slots);
  }
  Status Send(int from, int to, const std::string& text) {
    return backend.at(from).Send(Rank(to), {}, std::as_bytes(std::span(text)));
  }
  Status SendBulk(const std::string& text, std::span<const std::byte> bulk,
                  std::function<void()> done) {
    Envelope envelope;
    envelope.channel = kChannel;
    return backend.at(0).SendBulk(Rank(1), envelope, std::as_bytes(std::span(text)), bulk,
                                  std::move(done));
  }
  // Progresses both ends until `enough`, or for far too long.
  bool Until(const std::function<bool()>& enough) {
    return testing::DrivenUntil(enough, [&] {
      for (int pass = 0; pass < 64 && !enough(); ++pass) {
        backend.at(0).Progress();
        backend.at(1).Progress();
      }
    });
  }

  Backend backend{};
  std::vector<std::string> texts[2]{};
  std::vector<Envelope> envelopes[2]{};
  std::vector<Bulk> bulks[2]{};
  int downs[2] = {0, 0};
  int credits[2] = {0, 0};
};

TYPED_TEST_SUITE_P(TransportConformance);

TYPED_TEST_P(TransportConformance, KeepsTheOrderOfAChannelBothWays) {
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(this->Send(0, 1, std::to_string(i)).ok());
    ASSERT_TRUE(this->Send(1, 0, std::to_string(-i)).ok());
  }
  EXPECT_TRUE(this->texts[1].empty());  // T3: nothing arrives before Progress
  ASSERT_TRUE(
      this->Until([this] { return this->texts[0].size() == 200 && this->texts[1].size() == 200; }));
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(this->texts[1][i], std::to_string(i));
    EXPECT_EQ(this->texts[0][i], std::to_string(-i));
    EXPECT_EQ(this->envelopes[1][i].sequence, static_cast<uint64_t>(i + 1));
    EXPECT_EQ(this->envelopes[1][i].source_rank, 0);
  }
}

TYPED_TEST_P(TransportConformance, WhatTheSenderSaysInTheEnvelopeArrives) {
  Envelope said;
  said.type_id = 0x1122334455667788;
  said.job = 17;
  said.epoch = 3;
  said.destination_actor = 9;
  said.destination_incarnation = 4;
  ASSERT_TRUE(this->backend.at(0).Send(Rank(1), said, {}).ok());
  said.step = -2;
  said.microbatch = 0;
  said.stage = 5;
  said.flow_id = 77;
  said.num_bulk = 1;  // not the sender's to say
  said.bulk_bytes = 8;
  ASSERT_TRUE(this->backend.at(0).Send(Rank(1), said, {}).ok());
  ASSERT_TRUE(this->Until([this] { return this->envelopes[1].size() == 2; }));
  for (const Envelope& got : this->envelopes[1]) {
    EXPECT_EQ(got.type_id, said.type_id);
    EXPECT_EQ(got.job, said.job);
    EXPECT_EQ(got.epoch, said.epoch);
    EXPECT_EQ(got.destination_actor, said.destination_actor);
    EXPECT_EQ(got.destination_incarnation, said.destination_incarnation);
    EXPECT_EQ(got.num_bulk, 0);
    EXPECT_EQ(got.bulk_bytes, 0u);
  }
  const Envelope& silent = this->envelopes[1][0];
  EXPECT_EQ(silent.step, 0);
  EXPECT_EQ(silent.microbatch, -1);
  EXPECT_EQ(silent.stage, -1);
  EXPECT_EQ(silent.flow_id, 0u);
  const Envelope& full = this->envelopes[1][1];
  EXPECT_EQ(full.step, said.step);
  EXPECT_EQ(full.microbatch, said.microbatch);
  EXPECT_EQ(full.stage, said.stage);
  EXPECT_EQ(full.flow_id, said.flow_id);
}

TYPED_TEST_P(TransportConformance, BulkArrivesWhole) {
  for (const int64_t size : {1, 63, 4096, 100'000, 3'000'001}) {
    const auto received = this->bulks[1].size();
    this->OpenChannel(1, size);
    std::vector<std::byte> bytes(static_cast<size_t>(size));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 131 + 7);
    int done = 0;
    ASSERT_TRUE(this->SendBulk("bulk", bytes, [&] { ++done; }).ok());
    ASSERT_TRUE(this->Until([&] { return this->bulks[1].size() == received + 1; }));
    const auto got = this->bulks[1].back().bytes();
    ASSERT_EQ(got.size(), bytes.size());
    EXPECT_EQ(std::memcmp(got.data(), bytes.data(), bytes.size()), 0);
    this->bulks[1].back().Release();
    ASSERT_TRUE(this->Until([&] { return done == 1 && this->credits[0] > 0; }));
    this->credits[0] = 0;
  }
}

TYPED_TEST_P(TransportConformance, WithoutACreditNothingIsSent) {
  this->OpenChannel(2, 8);
  const std::vector<std::byte> bytes(8);
  int done = 0;
  const auto count = [&] { ++done; };
  ASSERT_TRUE(this->SendBulk("a", bytes, count).ok());
  ASSERT_TRUE(this->SendBulk("b", bytes, count).ok());
  const Status refused = this->SendBulk("c", bytes, count);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  ASSERT_TRUE(this->Until([&] { return this->bulks[1].size() == 2; }));
  EXPECT_EQ(this->backend.at(0).Credits(Rank(1), this->kChannel), 0);
  this->bulks[1].pop_back();
  ASSERT_TRUE(this->Until([&] { return this->credits[0] == 1; }));
  EXPECT_EQ(this->backend.at(0).Credits(Rank(1), this->kChannel), 1);
  ASSERT_TRUE(this->SendBulk("c", bytes, count).ok());
  ASSERT_TRUE(this->Until([&] { return this->bulks[1].size() == 2; }));
  this->bulks[1].clear();
  ASSERT_TRUE(this->Until([&] { return done == 3; }));
}

TYPED_TEST_P(TransportConformance, ALostPeerIsToldOnceAndEverySendIsDone) {
  this->OpenChannel(4, 8);
  const std::vector<std::byte> bytes(8);
  int done = 0;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(this->SendBulk("x", bytes, [&] { ++done; }).ok());
  this->backend.Kill(1);
  ASSERT_TRUE(this->Until([&] { return this->downs[0] == 1 && done == 3; }));
  const Status refused = this->Send(0, 1, "late");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kPeerDown);
  this->bulks[1].clear();
  for (int pass = 0; pass < 100; ++pass) this->backend.at(0).Progress();
  EXPECT_EQ(done, 3);
  EXPECT_EQ(this->downs[0], 1);
}

TYPED_TEST_P(TransportConformance, AnUnknownPeerIsRefused) {
  const Status refused = this->Send(0, 9, "nobody");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(this->backend.at(0).Connect(Rank(9), "nonsense").ok());
}

REGISTER_TYPED_TEST_SUITE_P(TransportConformance, KeepsTheOrderOfAChannelBothWays,
                            WhatTheSenderSaysInTheEnvelopeArrives, BulkArrivesWhole,
                            WithoutACreditNothingIsSent, ALostPeerIsToldOnceAndEverySendIsDone,
                            AnUnknownPeerIsRefused);

}  // namespace troupe

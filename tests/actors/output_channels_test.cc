#include "actors/output_channels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/transport/inproc/inproc_transport.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kBytes = 16;
const TensorDescriptor kBoundary = {.rank = 1, .shape = {kBytes, 0, 0, 0}, .num_bytes = kBytes};
const Transfer kForward = {.from_stage = StageId(0),
                           .to_stage = StageId(1),
                           .from = PipelineRank(0),
                           .to = PipelineRank(1)};

class Receiver : public Actor<Receiver, WithBulk<Activation>, WithBulk<ActivationGradient>> {
 public:
  explicit Receiver(std::vector<WithBulk<Activation>>& arrived) : arrived_(arrived) {}
  Status On(WithBulk<Activation> activation) {
    arrived_.push_back(std::move(activation));
    return {};
  }
  Status On(WithBulk<ActivationGradient>) { return {}; }

 private:
  std::vector<WithBulk<Activation>>& arrived_;
};

class Sender : public Actor<Sender, OutputSent> {
 public:
  explicit Sender(OutputChannels& outputs) : outputs_(outputs) {}
  Status On(OutputSent sent) {
    outputs_.MarkSent(sent);
    return {};
  }

 private:
  OutputChannels& outputs_;
};

// Rank 0 sends to rank 1, which has posted `slots` slots.
class OutputChannelsTest : public ::testing::Test {
 protected:
  void Open(int slots, int num_buffers) {
    for (const Rank rank : {Rank(0), Rank(1)}) {
      transports_.push_back(network_.NewTransport(rank));
      routers_.push_back(std::make_unique<RankRouter>(scheduler_, *transports_.back(),
                                                      RankRouter::Options{.self = rank}));
    }
    ASSERT_TRUE(transports_[0]->Connect(Rank(1), transports_[1]->LocalAddress()).ok());
    ASSERT_TRUE(transports_[1]->Connect(Rank(0), transports_[0]->LocalAddress()).ok());
    ASSERT_TRUE(transports_[1]->PostSlots(Rank(0), kActivationChannel, slots, kBytes).ok());
    transports_[0]->SetCredits(Rank(1), kActivationChannel, slots);
    const auto receiver = scheduler_.Spawn<Receiver>({.name = "receiver"}, std::ref(arrived_));
    routers_[1]->Register<WithBulk<Activation>>(kExecutorIndex, receiver);
    OutputChannels::Options options{
        .rank = Rank(0), .boundary = kBoundary, .num_buffers = num_buffers, .traffic = &traffic_};
    options.neighbours[PipelineRank(1)] =
        routers_[0]->Remote<WithBulk<Activation>, WithBulk<ActivationGradient>>(Rank(1),
                                                                                kExecutorIndex);
    outputs_ = std::make_unique<OutputChannels>(std::move(options));
    sender_ = scheduler_.Spawn<Sender>({.name = "sender"}, std::ref(*outputs_));
  }
  void Put(int microbatch, bool training = true) {
    Transfer transfer = kForward;
    transfer.microbatch = MicrobatchId(microbatch);
    outputs_->Reserve(transfer);
    outputs_->Park({.transfer = transfer,
                    .round = 1,
                    .training = training,
                    .bytes = Buffer(ledger_, MemoryTag::kActivations, kBytes)});
  }
  void Flush() {
    ASSERT_TRUE(
        outputs_->Flush(PipelineRank(1), kActivationChannel, sender_, scheduler_.clock()).ok());
    scheduler_.RunUntilIdle();
  }
  std::vector<int32_t> Arrived() const {
    std::vector<int32_t> microbatches;
    for (const auto& message : arrived_) microbatches.push_back(message.message.microbatch);
    return microbatches;
  }

  MemoryLedger ledger_;
  InprocNetwork network_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<std::unique_ptr<RankRouter>> routers_;
  std::vector<WithBulk<Activation>> arrived_;
  RankTraffic traffic_;
  std::unique_ptr<OutputChannels> outputs_;
  Sender::SelfRef sender_;
};

TEST_F(OutputChannelsTest, SendsInOrderAgainstCreditsAndParksTheRest) {
  Open(/*slots=*/2, /*num_buffers=*/8);
  for (const int microbatch : {3, 1, 2}) Put(microbatch);
  EXPECT_TRUE(Arrived().empty()) << "nothing leaves before Flush";
  Flush();
  EXPECT_THAT(Arrived(), ElementsAre(3, 1));
  Flush();
  EXPECT_THAT(Arrived(), ElementsAre(3, 1)) << "no credit has come back";
  arrived_.erase(arrived_.begin());  // lets its slot go
  scheduler_.RunUntilIdle();
  Flush();
  EXPECT_THAT(Arrived(), ElementsAre(1, 2));
}

TEST_F(OutputChannelsTest, CountsWhatTrainingSent) {
  Open(/*slots=*/3, /*num_buffers=*/8);
  Put(0);
  Put(1, /*training=*/false);
  Put(2);
  Put(3);
  EXPECT_EQ(traffic_.outputs[InputKind::kActivation].count, 0) << "nothing left yet";
  Flush();
  EXPECT_EQ(traffic_.outputs[InputKind::kActivation].count, 2) << "the last one has no slot";
  EXPECT_EQ(traffic_.outputs[InputKind::kActivation].bytes, 2 * kBytes);
}

TEST_F(OutputChannelsTest, AnOutputHoldsItsBufferUntilTheTransportLetsGo) {
  Open(/*slots=*/4, /*num_buffers=*/2);
  EXPECT_TRUE(outputs_->HasRoom(kForward));
  Put(0);
  EXPECT_TRUE(outputs_->HasRoom(kForward));
  Put(1);
  EXPECT_FALSE(outputs_->HasRoom(kForward));
  Transfer gradient = kForward;
  gradient.kind = InputKind::kGradient;
  EXPECT_TRUE(outputs_->HasRoom(gradient)) << "another channel";
  Transfer at_home = kForward;
  at_home.to = PipelineRank(0);
  EXPECT_TRUE(outputs_->HasRoom(at_home)) << "what stays on the rank needs no buffer here";
  Flush();
  EXPECT_FALSE(outputs_->HasRoom(kForward)) << "handed over by pointer, and still being read";
  const int64_t held =
      ledger_.Snapshot().current_bytes[static_cast<size_t>(MemoryTag::kActivations)];
  EXPECT_EQ(held, 2 * kBytes);
  arrived_.clear();
  scheduler_.RunUntilIdle();
  EXPECT_TRUE(outputs_->HasRoom(kForward));
  EXPECT_EQ(ledger_.Snapshot().current_bytes[static_cast<size_t>(MemoryTag::kActivations)], 0);
}

}  // namespace
}  // namespace troupe

// The gRPC door: what becomes of a client that follows a job and does not read.
#include "coordinator/control_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "coordinator/rpc_status.h"
#include "proto/control.grpc.pb.h"
#include "tests/coordinator/harness.h"
#include "tests/support/patience.h"

namespace troupe {
namespace {

using testing::Harness;
using ::testing::HasSubstr;
using testing::SmallJob;

// How many events of each kind a client reads.
using Counts = std::map<proto::FromRank::MessageCase, int>;

class FollowTest : public ::testing::Test {
 protected:
  FollowTest() {
    h_.Join("a", 1);
    job_ = h_.state.jobs.at(h_.TrySubmit(SmallJob(1))->job()).get();
    h_.Begins(*job_, 1);
    auto server = ControlServer::Start(h_.state, h_.seams, {}, "127.0.0.1:0");
    CHECK(server.ok(), "{}", server.error().message);
    server_ = *std::move(server);
    stub_ = proto::Control::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(server_->port()), grpc::InsecureChannelCredentials()));
  }
  ~FollowTest() override {
    reader_.reset();
    server_->Shutdown();
    h_.scheduler.RunUntilIdle();
  }

  // Returns when the call has arrived; reads nothing.
  void Follow() {
    proto::FollowRequest request;
    request.set_job(job_->id());
    context_.set_deadline(std::chrono::system_clock::now() + testing::kPatience);
    reader_ = stub_->Follow(&context_, request);
    const int before = job_->history().num_followers();
    CHECK(testing::DrivenUntil([&] { return job_->history().num_followers() != before; },
                               [&] { h_.scheduler.RunUntilIdle(); }),
          "the call has not arrived");
  }
  void Memory(int count) {
    proto::FromRank message;
    message.mutable_memory()->add_tags()->set_tag(std::string(100, 'x'));
    for (int i = 0; i < count; ++i) h_.Says(*job_, 0, message);
  }
  // Long enough that what gRPC itself holds back for the client is a small part.
  void Sentences(int count) {
    proto::FromRank message;
    message.mutable_happening()->set_text(std::string(200, 'x'));
    for (int i = 0; i < count; ++i) h_.Says(*job_, 0, message);
  }
  void Steps(int count) {
    for (int i = 0; i < count; ++i) h_.Step(*job_, i + 1, 1.5);
  }
  // Everything there is to read, then the status.
  Counts ReadAll() {
    Counts counts;
    proto::JobEvent event;
    while (reader_->Read(&event)) {
      if (event.has_rank()) ++counts[event.rank().message().message_case()];
      if (event.has_result()) ++num_results_;
    }
    status_ = reader_->Finish();
    return counts;
  }

  Harness h_;
  JobLife* job_ = nullptr;
  std::unique_ptr<ControlServer> server_;
  std::unique_ptr<proto::Control::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<proto::JobEvent>> reader_;
  grpc::Status status_;
  int num_results_ = 0;
};

TEST_F(FollowTest, WhoReadsLateMissesReportsOfMemoryAndNothingElse) {
  Follow();
  constexpr int kReports = 200'000;
  constexpr int kSteps = 300;
  Memory(kReports);
  Steps(kSteps);
  h_.Finishes(*job_, 0);
  h_.Exits(*job_, 0, 0);
  const Counts counts = ReadAll();
  EXPECT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(counts.at(proto::FromRank::kMetrics), kSteps);
  EXPECT_EQ(counts.at(proto::FromRank::kFinished), 1);
  EXPECT_EQ(num_results_, 1);
  EXPECT_GE(counts.at(proto::FromRank::kMemory), 1024);
  EXPECT_LT(counts.at(proto::FromRank::kMemory), kReports);
}

TEST_F(FollowTest, WhoDoesNotReadAtAllIsLetGoWithASentence) {
  Follow();
  constexpr int kSentences = 300'000;
  Sentences(kSentences);
  const Counts counts = ReadAll();
  EXPECT_LT(counts.at(proto::FromRank::kHappening), kSentences - 200'000)
      << "what waited is not sent any more";
  const Error error = FromRpc(status_, "the coordinator");
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(error.message, HasSubstr("job 1 tells more than this client reads"));
}

}  // namespace
}  // namespace troupe

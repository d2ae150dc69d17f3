// Specs that no command line would send: every field of the message spoiled in turn, by reflection.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "actors/plan/job_plan.h"
#include "coordinator/job/job_checks.h"

namespace troupe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// A good job with every group and as many keys as go together.
proto::JobSpec GoodSpec() {
  proto::JobSpec spec;
  spec.set_name("good");
  auto* model = spec.mutable_model();
  model->set_hidden_size(16);
  model->set_intermediate_size(32);
  model->set_num_hidden_layers(4);
  model->set_num_attention_heads(4);
  model->set_num_key_value_heads(2);
  model->set_vocab_size(256);
  model->mutable_rope_scaling()->set_rope_type("llama3");
  spec.mutable_data()->set_train("/text.txt");
  spec.mutable_data()->set_val_fraction(0.1);
  spec.mutable_parallelism()->set_pp(2);
  auto* batch = spec.mutable_batch();
  batch->set_micro_batch_size(1);
  batch->set_global_batch_size(4);
  batch->set_seq_len(8);
  spec.mutable_train()->set_steps(20);
  spec.mutable_eval()->set_every(5);
  spec.mutable_eval()->mutable_sample()->set_prompt("once");
  auto accepted = AcceptSpec(std::move(spec));
  CHECK(accepted.ok(), "{}", accepted.error().message);
  return *std::move(accepted);
}

struct Spoiled {
  std::string path{};
  std::string what{};
  proto::JobSpec spec{};
};

class Spoiler {
 public:
  // Every value that nobody expects in the field that `path` leads to.
  void Field(const FieldDescriptor& field, const std::string& path,
             const std::function<Message&(proto::JobSpec&)>& owner) {
    const auto add = [&](std::string what, const auto& change) {
      proto::JobSpec spec = GoodSpec();
      Message& message = owner(spec);
      change(*message.GetReflection(), message);
      all.push_back({path, std::move(what), std::move(spec)});
    };
    const auto set = [&](const std::string& what, auto one, auto setter, auto adder) {
      add(what, [&](const Reflection& r, Message& m) {
        if (!field.is_repeated()) return setter(r, m, one);
        r.ClearField(&m, &field);
        for (int i = 0; i < 2; ++i) adder(r, m, one);
      });
    };
    add("absent", [&](const Reflection& r, Message& m) { r.ClearField(&m, &field); });
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        for (const int value : {0, -1, 1, 7, std::numeric_limits<int>::max(),
                                std::numeric_limits<int>::min(), 1 << 24, 1 << 20}) {
          set(
              std::to_string(value), value,
              [&](const Reflection& r, Message& m, int v) { r.SetInt32(&m, &field, v); },
              [&](const Reflection& r, Message& m, int v) { r.AddInt32(&m, &field, v); });
        }
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        for (const int64_t value :
             {int64_t{0}, int64_t{-1}, int64_t{1}, int64_t{1} << 50,
              std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
          set(
              std::to_string(value), value,
              [&](const Reflection& r, Message& m, int64_t v) { r.SetInt64(&m, &field, v); },
              [&](const Reflection& r, Message& m, int64_t v) { r.AddInt64(&m, &field, v); });
        }
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        for (const double value : {0.0, -1.0, 1e300, std::nan(""), -1e-300,
                                   std::numeric_limits<double>::infinity(), 1.0}) {
          set(
              std::to_string(value), value,
              [&](const Reflection& r, Message& m, double v) { r.SetDouble(&m, &field, v); },
              [&](const Reflection& r, Message& m, double v) { r.AddDouble(&m, &field, v); });
        }
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        add("true", [&](const Reflection& r, Message& m) { r.SetBool(&m, &field, true); });
        break;
      default:
        for (const std::string& value :
             {std::string(), std::string("nonesuch"), std::string("../../x"), std::string("a\nb"),
              std::string("a\0b", 3), std::string(1 << 20, 'x'), std::string("\x7f"),
              std::string("/x")}) {
          add(value.substr(0, 20),
              [&](const Reflection& r, Message& m) { r.SetString(&m, &field, value); });
        }
    }
    if (!field.is_repeated()) return;
    add("very long", [&](const Reflection& r, Message& m) {
      for (int i = 0; i < 100'000; ++i) {
        field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 ? r.AddInt32(&m, &field, 1)
                                                           : r.AddDouble(&m, &field, 0.5);
      }
    });
  }

  void Walk(const Descriptor& type, const std::string& path,
            const std::function<Message&(proto::JobSpec&)>& owner) {
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor& field = *type.field(i);
      const std::string full = path.empty() ? field.name() : path + "." + field.name();
      if (field.message_type() == nullptr) {
        Field(field, full, owner);
        continue;
      }
      Walk(*field.message_type(), full, [&field, owner](proto::JobSpec& spec) -> Message& {
        Message& message = owner(spec);
        return *message.GetReflection()->MutableMessage(&message, &field);
      });
    }
  }

  std::vector<Spoiled> all{};
};

std::vector<Spoiled> EverySpoiledSpec() {
  Spoiler spoiler;
  spoiler.Walk(*proto::JobSpec::descriptor(), "",
               [](proto::JobSpec& spec) -> Message& { return spec; });
  return std::move(spoiler.all);
}

bool Names(const std::vector<Error>& errors, std::string path) {
  // Whoever wrote a schedule wrote it there.
  if (path == "parallelism.schedule_actions") path = "parallelism.schedule_csv";
  return std::ranges::any_of(
      errors, [&](const Error& error) { return error.message.find(path) != std::string::npos; });
}

// What a rank computes of a plan before it starts.
void ExpectUsable(const proto::JobSpec& spec, const std::string& what) {
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << what << plan.error().message;
  ASSERT_EQ(spec.optimizer().betas_size(), 2) << what;
  ASSERT_EQ(plan->mesh.num_ranks(), spec.resources().workers()) << what;
  for (int rank = 0; rank < plan->mesh.num_ranks(); ++rank) {
    for (const int64_t bytes : plan->MemoryOf(Rank(rank), VectorIsa::kAvx2)) {
      ASSERT_GE(bytes, 0) << what << ": an overflow";
    }
  }
  const double rate = plan->learning_rate.At(spec.train().steps());
  ASSERT_TRUE(std::isfinite(rate) && rate >= 0) << what << ": " << rate;
}

TEST(CheckJobTest, EverySpoiledFieldIsNamedOrHarmless) {
  const std::vector<Spoiled> all = EverySpoiledSpec();
  ASSERT_GT(all.size(), 400u);
  int refused = 0;
  for (const Spoiled& spoiled : all) {
    const std::string what = spoiled.path + " " + spoiled.what;
    const std::vector<Error> errors = CheckJob(spoiled.spec);
    if (errors.empty()) {
      ExpectUsable(spoiled.spec, what);
    } else {
      ++refused;
      EXPECT_TRUE(Names(errors, spoiled.path)) << what << ": " << errors.front().message;
    }
    for (const Error& error : errors) {
      EXPECT_LT(error.message.size(), 10'000u) << what;
      EXPECT_EQ(error.message.find('\n'), std::string::npos) << what;
      EXPECT_TRUE(error.code == ErrorCode::kInvalidSpec || error.code == ErrorCode::kInfeasible);
    }
    // With defaults for what it leaves open, the same.
    if (const auto accepted = AcceptSpec(spoiled.spec); accepted.ok()) {
      ExpectUsable(*accepted, what);
    }
  }
  EXPECT_GT(refused, 250);
}

TEST(CheckJobTest, NothingThatIsNotFinitePasses) {
  for (const Spoiled& spoiled : EverySpoiledSpec()) {
    if (spoiled.what != "nan" && spoiled.what != "inf" && spoiled.what != "very long") continue;
    EXPECT_FALSE(CheckJob(spoiled.spec).empty()) << spoiled.path << " " << spoiled.what;
  }
}

TEST(CheckJobTest, AnEmptySpecIsRefusedByName) {
  const auto accepted = AcceptSpec({});
  ASSERT_FALSE(accepted.ok());
  EXPECT_THAT(accepted.error().message, ::testing::HasSubstr("model.hidden_size is missing"));
  EXPECT_THAT(accepted.error().message, ::testing::HasSubstr("; and "));
}

// Sizes that are possible alone overflow nothing together.
TEST(CheckJobTest, AnExabyteIsRefused) {
  proto::JobSpec spec = GoodSpec();
  spec.mutable_model()->set_hidden_size(1 << 24);
  spec.mutable_model()->set_intermediate_size(1 << 24);
  spec.mutable_model()->set_num_attention_heads(1 << 20);
  spec.mutable_model()->set_num_key_value_heads(1 << 20);
  spec.mutable_model()->set_head_dim(1 << 20);
  std::vector<Error> errors = CheckJob(spec);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].code, ErrorCode::kInfeasible);
  EXPECT_THAT(errors[0].message, ::testing::HasSubstr("model.hidden_size = 16777216"));
  spec = GoodSpec();
  spec.mutable_model()->set_max_position_embeddings(1 << 24);
  spec.mutable_model()->set_intermediate_size(1 << 24);
  spec.mutable_batch()->set_micro_batch_size(1 << 24);
  spec.mutable_batch()->set_global_batch_size(1 << 24);
  spec.mutable_batch()->set_seq_len(1 << 24);
  errors = CheckJob(spec);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_THAT(errors[0].message, ::testing::HasSubstr("batch.global_batch_size x batch.seq_len"));
}

}  // namespace
}  // namespace troupe

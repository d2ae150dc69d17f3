#include "coordinator/job/yaml_documents.h"

#include <yaml-cpp/eventhandler.h>

#include <sstream>
#include <string>

namespace troupe {
namespace {

using YAML::anchor_t;
using YAML::EmitterStyle;
using YAML::Mark;

// Where a document's content begins.
class Content : public YAML::EventHandler {
 public:
  std::optional<Mark> begin{};  // none: it is empty

  void OnDocumentStart(const Mark&) override { begin.reset(); }
  void OnDocumentEnd() override {}
  void OnNull(const Mark&, anchor_t) override {}
  void OnAlias(const Mark& mark, anchor_t) override { Note(mark); }
  void OnScalar(const Mark& mark, const std::string&, anchor_t, const std::string&) override {
    Note(mark);
  }
  void OnSequenceStart(const Mark& mark, const std::string&, anchor_t,
                       EmitterStyle::value) override {
    Note(mark);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const Mark& mark, const std::string&, anchor_t, EmitterStyle::value) override {
    Note(mark);
  }
  void OnMapEnd() override {}

 private:
  void Note(const Mark& mark) {
    if (!begin) begin = mark;
  }
};

}  // namespace

std::optional<YAML::Mark> SecondDocument(std::string_view text) {
  // Where a token fits nowhere the parser yields one empty document after another without end.
  constexpr int kEmptyMax = 8;
  std::istringstream stream{std::string(text)};
  YAML::Parser parser(stream);
  Content content;
  if (!parser.HandleNextDocument(content)) return std::nullopt;
  for (int i = 0; i < kEmptyMax; ++i) {
    if (!parser.HandleNextDocument(content)) return std::nullopt;
    if (content.begin) return content.begin;
  }
  throw YAML::ParserException(Mark::null_mark(), "something follows that belongs to no document");
}

}  // namespace troupe

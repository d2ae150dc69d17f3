// A folder as we export it loads in Hugging Face's transformers without a warning, and computes
// what the folder's weights say. SKIPs where python3 has no transformers; `TROUPE_PYTHON` names
// other interpreters to try, separated by colons (one environment for each version).
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/format/hf_config.h"
#include "runtime/format/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::TemporaryFolder;

std::vector<std::string> Pythons() {
  const char* given = std::getenv("TROUPE_PYTHON");
  std::istringstream list(given != nullptr ? given : "python3");
  std::vector<std::string> found;
  for (std::string python; std::getline(list, python, ':');) {
    const std::string probe = "'" + python + "' -c 'import torch, transformers' 2>/dev/null";
    if (std::system(probe.c_str()) == 0) found.push_back(python);
  }
  return found;
}

// The oracle's folder, read and written again by this code.
void Export(const std::string& name, const std::string& to, int64_t max_shard_bytes) {
  const std::string from = std::string(TROUPE_SOURCE_DIR) + "/tests/oracle/data/" + name;
  auto config = ReadHfConfig(SystemFiles(), from + "/config.json");
  ASSERT_TRUE(config.ok()) << config.error().message;
  config->bos_token_id = 1;
  config->eos_token_id = {2, 3};
  ASSERT_TRUE(WriteHfConfig(SystemFiles(), to, *config, "float32").ok());
  const auto tensors = SafetensorsFolder::Open(SystemFiles(), from);
  ASSERT_TRUE(tensors.ok()) << tensors.error().message;
  std::vector<TensorSpec> specs;
  for (const std::string& tensor : tensors->Names()) {
    specs.push_back(tensors->Find(tensor)->entry->spec);
  }
  auto writer = SafetensorsFolderWriter::Create(SystemFiles(), to, specs, max_shard_bytes);
  ASSERT_TRUE(writer.ok()) << writer.error().message;
  for (const TensorSpec& spec : specs) {
    ASSERT_TRUE(writer->Append(tensors->Find(spec.name)->bytes).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
}

TEST(ExportTest, LoadsInTransformersWithoutAWarning) {
  const auto pythons = Pythons();
  if (pythons.empty()) GTEST_SKIP() << "python3 has no torch and transformers here";
  const TemporaryFolder folder;
  Export("untied", folder / "untied", int64_t{1} << 30);
  Export("tied", folder / "tied", 20'000);
  EXPECT_TRUE(SystemFiles().Exists(folder / "tied/model.safetensors.index.json"));
  for (const std::string& python : pythons) {
    for (const char* name : {"untied", "tied"}) {
      const std::string command = "'" + python + "' '" + TROUPE_SOURCE_DIR +
                                  "/tests/oracle/load_in_transformers.py' '" + folder / name +
                                  "' '" + TROUPE_SOURCE_DIR + "/tests/oracle/data/" + name + "'";
      EXPECT_EQ(std::system(command.c_str()), 0) << command;
    }
  }
}

}  // namespace
}  // namespace troupe

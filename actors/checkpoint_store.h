// Where a rank's tensors go and come from: checkpoints and Hugging Face folders, both safetensors
// with Hugging Face names. Every rank writes its shards of the parameters that its stages own, and
// of what it has no element of nothing; a reader takes any run of elements from whichever files the
// manifest names, so any layout resumes from any other.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "actors/model/stage_parameters.h"
#include "actors/plan/model_config.h"
#include "actors/schedule/action.h"
#include "proto/training.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/checkpoint_reader.h"
#include "runtime/format/safetensors.h"

namespace troupe {

// "tensors-00002-of-00004.safetensors"
std::string ShardFileName(const std::string& stem, int index, int count);

// Files that have all of their bytes and are not durable yet.
class UnsyncedFiles {
 public:
  void Add(SafetensorsWriter file) { files_.push_back(std::move(file)); }
  Status Sync();

 private:
  std::vector<SafetensorsWriter> files_;
};

// Masters and both moments of what the rank's stages own, into two files of `folder`, to be synced:
// a whole parameter with its shape, a run of one as a flat tensor. Adds tensors and files, each
// with its digest, to `written`. Reads of the stages nothing more when it has returned.
Result<UnsyncedFiles> WriteCheckpointShard(FileSystem& files, const std::string& folder, int rank,
                                           int num_ranks,
                                           const std::vector<const StageParameters*>& stages,
                                           proto::CheckpointDone& written);

// What the manifest says of the shards' tensors and files; shapes come from the table.
Status AddToManifest(const ParameterTable& table, const proto::CheckpointDone& shard,
                     CheckpointManifest& manifest);

// That the shards have every element of every parameter and of both its moments exactly once.
Status CheckWhole(const ParameterTable& table, const CheckpointManifest& manifest);

// Fills whole masters and the moments of the shards, and compares them with the manifest's digests;
// the caller then tells the model (WeightsChanged).
Status ReadCheckpoint(FileSystem& files, const std::string& folder,
                      const CheckpointManifest& manifest, StageParameters& parameters);
// Fills `to` (float32, any shape) with elements of one parameter's master, from `first_element` on:
// for a rank that keeps the whole of it, or another run than its shard.
Status ReadMaster(CheckpointReader& from, const CheckpointManifest& manifest,
                  const ParameterSpec& parameter, int64_t first_element, TensorView to);

// One file of a Hugging Face folder: model.safetensors, or one of several, by places in the
// pipeline. bfloat16 jobs export bfloat16.
class HfShardWriter {
 public:
  // Of what the stages export.
  static Result<HfShardWriter> Create(FileSystem& files, const std::string& folder,
                                      PipelineRank place, int num_places, DType dtype,
                                      std::span<const StageParameters* const> stages);
  // In the stages' order. `whole`: the master, or what products read.
  Status Append(const TensorView& whole);
  Status Finish() { return writer_.Finish(); }

 private:
  HfShardWriter(SafetensorsWriter writer, bool narrow)
      : writer_(std::move(writer)), narrow_(narrow) {}

  SafetensorsWriter writer_;
  bool narrow_;
  std::vector<bfloat16> narrowed_{};
};
// Of a parameter whose weights are here: what products read is the master, rounded.
const TensorView& ExportedWeights(const StageParameter& parameter, DType dtype);
// The same at once, where all weights are here.
Status WriteHfShard(FileSystem& files, const std::string& folder, PipelineRank place,
                    int num_places, DType dtype, const std::vector<const StageParameters*>& stages);
// What goes beside the shards: config.json, generation_config.json, and the index of several files.
// `exported_by`: by parameter of the table.
Status WriteHfFolder(FileSystem& files, const std::string& folder, int num_places, DType dtype,
                     const ModelConfig& config, const ParameterTable& table,
                     std::span<const PipelineRank> exported_by);
// Refuses a folder with tensors that the model has no place for, as the job's door does: a host may
// have another folder under its name.
Status CheckNoExtraTensors(FileSystem& files, const std::string& folder,
                           const ParameterTable& table);
// Fills masters from float32, bfloat16 or float16 files; moments stay zero.
Status ReadHfFolder(FileSystem& files, const std::string& folder, StageParameters& parameters);

}  // namespace troupe

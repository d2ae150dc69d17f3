// Files that only exist in memory, of all hosts that share them. What is written is there at once:
// a process that dies takes nothing back. Thread: one.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/file_system.h"

namespace troupe::testing {

class MemoryFileSystem : public FileSystem {
 public:
  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override {
    ASSIGN_OR_RETURN(const auto node, Find(path));
    if (std::ssize(node->text) > max_bytes) {
      return MakeError(ErrorCode::kIo, "{}: longer than {} bytes", path, max_bytes);
    }
    return node->text;
  }
  Result<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path,
                                                     WriteMode mode) override {
    if (!folders_.contains(FolderOf(path))) return Missing(path);
    std::shared_ptr<Node>& node = files_[path];
    if (!node) node = std::make_shared<Node>();
    if (mode == WriteMode::kTruncate) node->text.clear();
    return std::unique_ptr<WritableFile>(std::make_unique<Writer>(node));
  }
  Status Rename(const std::string& from, const std::string& to) override {
    if (!Exists(from)) return Missing(from);
    if (!folders_.contains(FolderOf(to))) return Missing(to);
    if (folders_.contains(to) && !List(to)->empty()) {
      return MakeError(ErrorCode::kIo, "{}: cannot rename to {}: it is not empty", from, to);
    }
    RETURN_IF_ERROR(RemoveAll(to));
    Move(files_, from, to);
    std::map<std::string, bool> folders;
    for (const std::string& folder : folders_) folders[folder] = true;
    Move(folders, from, to);
    folders_.clear();
    for (const auto& [folder, there] : folders) folders_.insert(folder);
    return {};
  }
  Status SyncDirectory(const std::string& path) override {
    return folders_.contains(path) ? Status() : Missing(path);
  }
  Status CreateDirectories(const std::string& path) override {
    for (std::string folder = path; folders_.insert(folder).second;) folder = FolderOf(folder);
    return {};
  }
  Status RemoveAll(const std::string& path) override {
    std::erase_if(files_, [&](const auto& file) { return IsIn(file.first, path); });
    std::erase_if(folders_, [&](const std::string& folder) { return IsIn(folder, path); });
    return {};
  }
  Result<std::vector<std::string>> List(const std::string& path) override {
    if (!folders_.contains(path)) return Missing(path);
    std::set<std::string> names;
    const auto add = [&](const std::string& inside) {
      if (inside != path && FolderOf(inside) == path) {
        names.insert(inside.substr(inside.rfind('/') + 1));
      }
    };
    for (const auto& [file, node] : files_) add(file);
    for (const std::string& folder : folders_) add(folder);
    return std::vector<std::string>(names.begin(), names.end());
  }
  bool Exists(const std::string& path) override {
    return files_.contains(path) || folders_.contains(path);
  }
  Result<int64_t> FileBytes(const std::string& path) override {
    ASSIGN_OR_RETURN(const auto node, Find(path));
    return std::ssize(node->text);
  }
  Result<int64_t> FreeBytes(const std::string&) override { return int64_t{1} << 40; }
  Result<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override {
    ASSIGN_OR_RETURN(auto node, Find(path));
    return std::unique_ptr<ReadableFile>(std::make_unique<Reader>(std::move(node), path));
  }
  Status PointLink(const std::string& path, const std::string& target) override {
    links_[path] = target;
    return {};
  }
  Result<std::string> ReadLink(const std::string& path) override {
    const auto link = links_.find(path);
    if (link == links_.end()) return Missing(path);
    return link->second;
  }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path,
                                         std::string_view holder) override {
    if (!files_.contains(path)) RETURN_IF_ERROR(OpenForWrite(path, WriteMode::kTruncate));
    std::shared_ptr<Node> node = files_.at(path);
    if (node->locked) {
      return MakeError(ErrorCode::kResourceExhausted, "{}: held by {}", path, node->text);
    }
    node->text = holder;
    return std::unique_ptr<FileLock>(std::make_unique<Held>(*this, path, std::move(node)));
  }

 private:
  struct Node {
    std::string text{};
    int64_t version = 0;
    bool locked = false;
  };

  class Writer : public WritableFile {
   public:
    explicit Writer(std::shared_ptr<Node> node) : node_(std::move(node)) {}
    Status Append(std::span<const std::byte> bytes) override {
      node_->text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      ++node_->version;
      return {};
    }
    Status Sync() override { return {}; }
    Status Close() override { return {}; }

   private:
    const std::shared_ptr<Node> node_;
  };
  class Reader : public ReadableFile {
   public:
    Reader(std::shared_ptr<Node> node, std::string path)
        : node_(std::move(node)), path_(std::move(path)) {}
    Status ReadAt(int64_t begin, std::span<std::byte> out) const override {
      const std::string& text = node_->text;
      const auto from = static_cast<size_t>(begin);
      if (from > text.size() || out.size() > text.size() - from) {
        return MakeError(ErrorCode::kIo, "{}: the file ends at byte {}", path_, text.size());
      }
      std::ranges::copy(BytesOf(text).subspan(from, out.size()), out.begin());
      return {};
    }
    Result<FileVersion> Version() const override {
      return FileVersion{.num_bytes = std::ssize(node_->text), .changed_ns = node_->version};
    }

   private:
    const std::shared_ptr<Node> node_;
    const std::string path_;
  };
  class Held : public FileLock {
   public:
    Held(MemoryFileSystem& files, std::string path, std::shared_ptr<Node> node)
        : files_(files), path_(std::move(path)), node_(std::move(node)) {
      node_->locked = true;
    }
    ~Held() override { node_->locked = false; }
    bool StillNamed() const override {
      const auto named = files_.files_.find(path_);
      return named != files_.files_.end() && named->second == node_;
    }

   private:
    MemoryFileSystem& files_;
    const std::string path_;
    const std::shared_ptr<Node> node_;
  };

  static Error Missing(const std::string& path) {
    return MakeError(ErrorCode::kNotFound, "{}: there is no such file or folder", path);
  }
  // The folder itself, or what lies in it.
  static bool IsIn(const std::string& path, const std::string& folder) {
    return path == folder || path.starts_with(folder + "/");
  }
  template <typename Value>
  static void Move(std::map<std::string, Value>& all, const std::string& from,
                   const std::string& to) {
    std::map<std::string, Value> moved;
    for (const auto& [path, value] : all) {
      if (IsIn(path, from)) moved[to + path.substr(from.size())] = value;
    }
    std::erase_if(all, [&](const auto& entry) { return IsIn(entry.first, from); });
    all.merge(moved);
  }
  Result<std::shared_ptr<Node>> Find(const std::string& path) const {
    const auto file = files_.find(path);
    if (file == files_.end()) return Missing(path);
    return file->second;
  }

  std::map<std::string, std::shared_ptr<Node>> files_{};
  std::set<std::string> folders_{"/", "", "."};
  std::map<std::string, std::string> links_{};
};

}  // namespace troupe::testing

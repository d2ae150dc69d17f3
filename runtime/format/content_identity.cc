#include "runtime/format/content_identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "runtime/base/digest.h"

namespace troupe {
namespace {

constexpr int64_t kEndBytes = int64_t{1} << 20;
constexpr int64_t kBlockBytes = int64_t{64} << 10;
constexpr int64_t kBlocks = 1024;

void UpdateWithNumber(DigestStream& digest, uint64_t number) {
  std::array<std::byte, 8> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(number >> (8 * i));
  digest.Update(bytes);
}

Status UpdateWithRange(const ReadableFile& file, int64_t begin, int64_t end, DigestStream& digest) {
  std::vector<std::byte> piece;
  while (begin < end) {
    piece.resize(static_cast<size_t>(std::min(end - begin, kEndBytes)));
    RETURN_IF_ERROR(file.ReadAt(begin, piece));
    digest.Update(piece);
    begin += static_cast<int64_t>(piece.size());
  }
  return {};
}

}  // namespace

Result<ContentIdentity> IdentityOf(const ReadableFile& file, int64_t num_bytes) {
  DigestStream digest;
  UpdateWithNumber(digest, static_cast<uint64_t>(num_bytes));
  if (num_bytes <= kWholeContentBytesMax) {
    RETURN_IF_ERROR(UpdateWithRange(file, 0, num_bytes, digest));
    return ContentIdentity{num_bytes, digest.value()};
  }
  RETURN_IF_ERROR(UpdateWithRange(file, 0, kEndBytes, digest));
  const int64_t distance = (num_bytes - 2 * kEndBytes) / kBlocks;  // more than a block
  for (int64_t block = 0; block < kBlocks; ++block) {
    const int64_t begin = kEndBytes + block * distance;
    RETURN_IF_ERROR(UpdateWithRange(file, begin, begin + kBlockBytes, digest));
  }
  RETURN_IF_ERROR(UpdateWithRange(file, num_bytes - kEndBytes, num_bytes, digest));
  return ContentIdentity{num_bytes, digest.value()};
}

Result<ContentIdentity> IdentityOfFile(FileSystem& files, const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, files.OpenForRead(path));
  ASSIGN_OR_RETURN(const FileVersion version, file->Version());
  return IdentityOf(*file, version.num_bytes);
}

Result<ContentIdentity> IdentityOfWeights(FileSystem& files, const std::string& folder) {
  ASSIGN_OR_RETURN(const auto names, files.List(folder));
  ContentIdentity all;
  DigestStream digest;
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    ASSIGN_OR_RETURN(const ContentIdentity one, IdentityOfFile(files, JoinPath(folder, name)));
    all.num_bytes += one.num_bytes;
    UpdateWithNumber(digest, one.digest);
  }
  all.digest = digest.value();
  return all;
}

std::string Difference(const ContentIdentity& was, const ContentIdentity& is) {
  if (was == is) return "";
  if (was.num_bytes != is.num_bytes) {
    return fmt::format("had {} bytes, has {}", was.num_bytes, is.num_bytes);
  }
  return fmt::format("has as many bytes as before ({}), but others (xxh3 {}, was {})", is.num_bytes,
                     DigestText(is.digest), DigestText(was.digest));
}

}  // namespace troupe

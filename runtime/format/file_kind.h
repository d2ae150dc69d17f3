// What a file is by its bytes, where people hand in another one than they mean: a Git-LFS pointer
// for weights, a web page for a download, an archive for a text. Used by the readers of this folder
// and by the job's door. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

inline constexpr std::string_view kSafetensorsName = "a safetensors file";
inline constexpr std::string_view kTokensName = "a token file of llm.c";

struct FileKind {
  std::string_view name;    // "a Git-LFS pointer"
  std::string_view remedy;  // "run `git lfs pull` where it came from"
};

// By the first bytes; nothing where they say nothing. Magic numbers are short: ask only where the
// file has failed as what it should be, or should be text.
std::optional<FileKind> RecognizeFile(std::span<const std::byte> file);

// `text` without a byte order mark and white space in front.
std::string_view WithoutFront(std::string_view text);

// "PATH: this is a Git-LFS pointer, not WANTED: run …", in place of `otherwise` where the bytes are
// recognized as something else.
Error NamedAsWhatItIs(const std::string& path, std::span<const std::byte> file,
                      std::string_view wanted, Error otherwise);

}  // namespace troupe

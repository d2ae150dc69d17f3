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

struct FileKind {
  std::string_view name;    // "a Git-LFS pointer"
  std::string_view remedy;  // "run `git lfs pull` where it came from"
};

// By the first bytes; nothing where they say nothing. Magic numbers are short: ask only where the
// file has failed as what it should be, or should be text.
std::optional<FileKind> RecognizeFile(std::span<const std::byte> file);

// "PATH: this is a Git-LFS pointer, not WANTED: run …", in place of `otherwise` where the bytes are
// recognized.
Error NamedAsWhatItIs(const std::string& path, std::span<const std::byte> file,
                      std::string_view wanted, Error otherwise);

// Refuses bytes that nobody trains on as text: known binary formats, JSON, token files under
// another name, UTF-16, and anything with zero bytes or more than a tenth of bytes outside UTF-8 in
// its first 64 KiB. kInvalidSpec, with `path`, what it is and the way out.
Status CheckIsText(const std::string& path, std::span<const std::byte> file);

}  // namespace troupe

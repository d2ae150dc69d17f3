// Whether a file is text that one may train on byte by byte: in UTF-8, and nothing else that people
// hand in by mistake. Used by the token reader, at the job's door and on every rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// Refuses what nobody trains on as text: known binary formats, JSON, token files under another
// name, UTF-16, text in another encoding, and anything with zero bytes. Reads the first 64 KiB and
// pieces of 16 KiB evenly through the rest, a mebibyte in all; what is shorter is read whole.
// kInvalidSpec, with `path`, what it is, which bytes say so, and the ways out.
Status CheckIsText(const std::string& path, const ReadableFile& file, int64_t num_bytes);

// Its tags would be trained on.
bool BeginsAsXml(std::string_view head);

}  // namespace troupe

// Between the text of a YAML scalar and a field of a message. Pure; any thread.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <string_view>

namespace troupe {

// Sets the field, or adds to a repeated one; false where the text is no such value.
bool SetScalar(const std::string& text, const google::protobuf::FieldDescriptor& field,
               google::protobuf::Message& message);

// What a field needs where it got something else than a scalar: "a whole number".
std::string_view TypeInWords(const google::protobuf::FieldDescriptor& field);

// What it needs where it got this text, and what was probably meant: "a whole number in plain
// digits: write 4000 or 4096" for 4k.
std::string NeededFor(const std::string& text, const google::protobuf::FieldDescriptor& field);

// As YAML reads it back: plain where that is safe, else in double quotes.
std::string YamlText(std::string_view text);
std::string QuotedYaml(std::string_view text);

}  // namespace troupe

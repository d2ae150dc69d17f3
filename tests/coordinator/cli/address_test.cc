#include "coordinator/cli/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string Listened(const std::string& text) {
  const auto address = ParseAddress(text, AddressUse::kListen);
  return address.ok() ? *address : "refused";
}
std::string Connected(const std::string& text) {
  const auto address = ParseAddress(text, AddressUse::kConnect);
  return address.ok() ? *address : "refused";
}

TEST(AddressTest, APortAloneIsThisMachines) {
  for (const std::string text : {"7077", ":7077", "127.0.0.1:7077", "127.0.0.1:07077"}) {
    EXPECT_EQ(Listened(text), "127.0.0.1:7077") << text;
    EXPECT_EQ(Connected(text), "127.0.0.1:7077") << text;
  }
}

TEST(AddressTest, HostsAreNamesOrNumbers) {
  for (const std::string text :
       {"10.0.0.1:7077", "gpu-01.cluster_a:1", "localhost:65535", "[::1]:7077", "[fe80::1]:9"}) {
    EXPECT_EQ(Connected(text), text);
  }
}

TEST(AddressTest, AnyFreePortIsForListening) {
  EXPECT_EQ(Listened("0"), "127.0.0.1:0");
  EXPECT_EQ(Listened("0.0.0.0:0"), "0.0.0.0:0");
  EXPECT_EQ(Connected("127.0.0.1:0"), "refused");
}

TEST(AddressTest, EverythingElseIsRefused) {
  for (const std::string text : {"",
                                 ":",
                                 ":99999",
                                 ":-1",
                                 "99999",
                                 "127.0.0.1",
                                 "127.0.0.1:",
                                 "127.0.0.1:70x7",
                                 "::1",
                                 "[::1]",
                                 "[]:7077",
                                 "a b:7077",
                                 "unix:/tmp/socket",
                                 "unix:7077x",
                                 "dns:///a:7077",
                                 "http://a:7077",
                                 "a,b:7077",
                                 "-:",
                                 "host:7077 ",
                                 "[g::1]:7077"}) {
    EXPECT_EQ(Connected(text), "refused") << text;
    EXPECT_EQ(Listened(text), "refused") << text;
  }
  EXPECT_THAT(ParseAddress("localhost", AddressUse::kListen).error().message,
              HasSubstr("there is no port: write HOST:PORT, as 127.0.0.1:7077"));
  EXPECT_EQ(ParseAddress(":99999", AddressUse::kListen).error().code, ErrorCode::kInvalidSpec);
}

}  // namespace
}  // namespace troupe

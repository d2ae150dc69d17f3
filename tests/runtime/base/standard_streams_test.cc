#include "runtime/base/standard_streams.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <thread>

#include "runtime/base/talk.h"
#include "runtime/base/thread.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

struct Pipe {
  Pipe() { CHECK(::pipe2(ends, O_CLOEXEC) == 0); }
  ~Pipe() {
    for (const int end : ends) {
      if (end >= 0) ::close(end);
    }
  }
  void CloseReader() { ::close(std::exchange(ends[0], -1)); }

  int ends[2];
};

// What `body` returns in a process of its own, as its exit code.
template <typename Body>
int InAChild(Body body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(StandardStreams, BytesArriveWholeThroughAPipeThatIsFullMeanwhile) {
  Pipe pipe;
  const std::string sent(300'000, 'x');
  std::string received;
  std::thread reader([&] {
    char piece[1000];
    while (received.size() < sent.size()) {
      const ssize_t got = ::read(pipe.ends[0], piece, sizeof(piece));
      if (got > 0) received.append(piece, static_cast<size_t>(got));
    }
  });
  ::fcntl(pipe.ends[1], F_SETFL, O_NONBLOCK);  // as whoever shares it may have set
  EXPECT_TRUE(WriteWhole(pipe.ends[1], sent).ok());
  reader.join();
  EXPECT_EQ(received, sent);
}

TEST(StandardStreams, AReaderThatLeftAFullDiskAndAClosedStreamAreErrors) {
  std::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  pipe.CloseReader();
  EXPECT_THAT(WriteWhole(pipe.ends[1], "x").error().message, HasSubstr("Broken pipe"));
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  EXPECT_EQ(WriteWhole(full, "x").error().code, ErrorCode::kOutOfSpace);
  ::close(full);
  EXPECT_THAT(WriteWhole(full, "x").error().message, HasSubstr("Bad file descriptor"));
}

TEST(StandardStreams, AReaderThatStandsStillIsWaitedForAsLongAsTold) {
  Pipe pipe;
  EXPECT_THAT(
      WriteWhole(pipe.ends[1], std::string(1 << 20, 'x'), /*patience_ms=*/20).error().message,
      HasSubstr("nobody reads it"));
}

TEST(StandardStreams, ClosedOnesKeepTheirNumbersAndStayErrors) {
  EXPECT_EQ(InAChild([] {
              for (int fd = 0; fd < 3; ++fd) ::close(fd);
              SecureStandardStreams();
              const int next = ::open("/dev/null", O_RDONLY);
              const bool errors = !WriteWhole(1, "x").ok() && !WriteWhole(2, "x").ok();
              return next > 2 && errors ? 0 : 1;
            }),
            0);
}

TEST(Talk, WhatIsLostIsCounted) {
  const int64_t before = TalkLost();
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  Say(full, "a line\n", -1);
  Say(full, "another\n", -1);
  ::close(full);
  EXPECT_EQ(TalkLost(), before + 2);
}

TEST(Thread, OneThatCannotBeMadeIsASentence) {
  auto made = StartThread("work", [] {});
  ASSERT_TRUE(made.ok());
  made->join();
  EXPECT_EQ(InAChild([] {
              if (::getuid() == 0 && ::setuid(65534) != 0) return 2;  // root has no such limit
              const rlimit none{.rlim_cur = 0, .rlim_max = 0};
              ::setrlimit(RLIMIT_NPROC, &none);
              const auto thread = StartThread("work", [] {});
              const bool said = !thread.ok() && thread.error().message.starts_with(
                                                    "no thread for work: Resource temporarily");
              return said ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace troupe

// What hostile or foreign peers send: it is refused in words, and the daemon goes on.

#include "base/prng.hpp"
#include "client/wire/channel.hpp"
#include "client/wire/control.hpp"
#include "client/wire/socket.hpp"
#include "tests/ipc/raw_client.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace statecached::test {
namespace {

constexpr Nanos kPatience = kRawPatience;

class Protocol : public ::testing::Test {
 protected:
  void SetUp() override {
    daemon.set({"nvme.capacity=0"});
    ASSERT_TRUE(daemon.start()) << daemon.log();
  }

  void TearDown() override { EXPECT_EQ(daemon.stop(), 0) << daemon.log(); }

  /// Sends these bytes and waits for the daemon to hang up.
  void expect_hang_up(const std::vector<std::byte>& bytes) {
    auto fd = wire::connect_unix(daemon.socket());
    ASSERT_TRUE(fd.has_value());
    ASSERT_EQ(::send(fd->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    timeval patience{20, 0};
    ASSERT_EQ(::setsockopt(fd->get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    char byte = 0;
    const ssize_t got = ::recv(fd->get(), &byte, 1, 0);
    EXPECT_TRUE(got == 0 || (got < 0 && errno == ECONNRESET)) << got << " " << errno;
  }

  void expect_alive() {
    const ProgramResult status = daemon.ctl({"status"});
    EXPECT_EQ(status.code, 0) << status.err << daemon.log();
  }

  DaemonProcess daemon;
};

TEST_F(Protocol, GarbageClosesThatConnectionOnly) {
  auto client = RawClient::attach(daemon.socket());
  ASSERT_TRUE(client.has_value());
  Prng prng(1);
  for (std::size_t round = 0; round < 50; ++round) {
    // Frames of a plausible length, so that the garbage reaches the decoder.
    std::vector<std::byte> bytes(4 + 16 + prng.below(2000));
    for (auto& byte : bytes)
      byte = static_cast<std::byte>(prng.next());
    const auto length = static_cast<std::uint32_t>(bytes.size() - 4);
    std::memcpy(bytes.data(), &length, 4);
    expect_hang_up(bytes);
  }
  expect_hang_up({std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}});
  expect_hang_up({std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}});
  expect_alive();
  EXPECT_NE(daemon.ctl({"metrics"}).out.find("control_garbage_total 52"), std::string::npos);
  EXPECT_TRUE(client->call(request(wire::Op::invalidate), {}).has_value());
}

TEST_F(Protocol, MutatedMessagesNeverHurt) {
  const auto good = wire::encode_request(1, attach_message());
  Prng prng(2);
  for (std::size_t round = 0; round < 300; ++round) {
    auto bytes = good;
    for (std::size_t i = 0; i < 1 + prng.below(4); ++i)
      bytes[4 + prng.below(bytes.size() - 4)] = static_cast<std::byte>(prng.next());
    auto fd = wire::connect_unix(daemon.socket());
    ASSERT_TRUE(fd.has_value());
    ASSERT_TRUE(wire::send_frame(fd->get(), bytes, {}, kPatience).has_value());
    // Attached, refused or hung up: all are answers.
    const auto answer = wire::receive_frame(fd->get(), kPatience);
    if (!answer) {
      EXPECT_NE(answer.error().code, Errc::timeout);
    }
  }
  expect_alive();
}

TEST_F(Protocol, AnotherVersionIsToldWhichOnesThereAre) {
  auto fd = wire::connect_unix(daemon.socket());
  ASSERT_TRUE(fd.has_value());
  auto message = attach_message();
  message.version_min = 90;
  message.version_max = 99;
  const auto reply = RawClient::ask(fd->get(), message);
  ASSERT_TRUE(reply.has_value());
  const auto* failure = std::get_if<wire::FailureReply>(&reply->body);
  ASSERT_NE(failure, nullptr);
  EXPECT_EQ(failure->code, Errc::version);
  EXPECT_NE(failure->message.find("1 to 1"), std::string::npos) << failure->message;
}

TEST_F(Protocol, ASecondAttachAndUnknownCommandsAreRefused) {
  auto client = RawClient::attach(daemon.socket());
  ASSERT_TRUE(client.has_value());
  const auto again = RawClient::ask(client->socket.get(), attach_message());
  ASSERT_TRUE(again.has_value());
  ASSERT_NE(std::get_if<wire::FailureReply>(&again->body), nullptr);
  EXPECT_EQ(std::get<wire::FailureReply>(again->body).code, Errc::already_exists);
  const auto unknown = RawClient::ask(client->socket.get(), wire::AdminMessage{"reboot", {}, {}});
  ASSERT_TRUE(unknown.has_value());
  EXPECT_EQ(std::get<wire::FailureReply>(unknown->body).code, Errc::invalid_argument);
}

TEST_F(Protocol, BadRecordsAreAnsweredWithInvalidArgument) {
  auto client = RawClient::attach(daemon.socket());
  ASSERT_TRUE(client.has_value());
  const auto expect_bad = [&](wire::Request record, std::span<const std::byte> payload, int line) {
    const auto done = client->call(record, payload);
    ASSERT_TRUE(done.has_value()) << line;
    EXPECT_EQ(done->event, static_cast<std::uint16_t>(wire::Event::done)) << line;
    EXPECT_EQ(done->code, static_cast<std::uint16_t>(Errc::invalid_argument)) << line;
  };
  const TicketName name{1, 2};
  expect_bad(request(static_cast<wire::Op>(0)), {}, __LINE__);
  expect_bad(request(static_cast<wire::Op>(999)), {}, __LINE__);
  expect_bad(request(wire::Op::release, name, 0, 1), {}, __LINE__);
  expect_bad(request(wire::Op::begin, name), {}, __LINE__);
  std::vector<std::byte> payload(sizeof(wire::BeginArgs));
  wire::BeginArgs args;
  args.tokens = 0xfffffff0;  // far more than came
  std::memcpy(payload.data(), &args, sizeof args);
  expect_bad(request(wire::Op::begin, name), payload, __LINE__);
  args.tokens = 0;
  args.hold = 77;
  std::memcpy(payload.data(), &args, sizeof args);
  expect_bad(request(wire::Op::begin, name), payload, __LINE__);
  expect_bad(request(wire::Op::commit, {}, 0xffffffff), {}, __LINE__);
  expect_bad(request(wire::Op::reserve, name, 1), std::span(payload).first(8), __LINE__);
  wire::WantRecord want;
  want.group = 7;
  want.end = 64;
  expect_bad(request(wire::Op::reserve, name, 1), std::as_bytes(std::span(&want, 1)), __LINE__);
  expect_bad(request(wire::Op::append, name, 1000), std::span(payload).first(8), __LINE__);
  // The same client is still served.
  wire::BeginArgs empty;
  std::memcpy(payload.data(), &empty, sizeof empty);
  const auto answer = client->call(request(wire::Op::begin, name), payload);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->event, static_cast<std::uint16_t>(wire::Event::answer));
  EXPECT_EQ(answer->code, 0);
  expect_alive();
}

TEST_F(Protocol, ABrokenRingDropsThatClientOnly) {
  auto broken = RawClient::attach(daemon.socket());
  auto fine = RawClient::attach(daemon.socket());
  ASSERT_TRUE(broken.has_value() && fine.has_value());
  void* map = ::mmap(nullptr,
                     sizeof(wire::ChannelHeader),
                     PROT_READ | PROT_WRITE,
                     MAP_SHARED,
                     broken->memfd.get(),
                     0);
  ASSERT_NE(map, MAP_FAILED);
  auto* header = static_cast<wire::ChannelHeader*>(map);
  header->request_tail.store(1ULL << 40U);
  header->request_area_head.store(~0ULL);
  // Its socket is closed by the daemon, which looks at the ring at least every 100 ms.
  timeval patience{20, 0};
  ASSERT_EQ(::setsockopt(broken->socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience),
            0);
  char byte = 0;
  EXPECT_LE(::recv(broken->socket.get(), &byte, 1, 0), 0);
  EXPECT_NE(errno, EAGAIN);
  EXPECT_TRUE(fine->call(request(wire::Op::invalidate), {}).has_value());
  EXPECT_NE(daemon.ctl({"metrics"}).out.find("clients_dropped_total 1"), std::string::npos)
      << daemon.log();
  ::munmap(map, sizeof(wire::ChannelHeader));
}

TEST_F(Protocol, AClientThatReadsNothingDoesNotStopTheOthers) {
  auto deaf = RawClient::attach(daemon.socket());
  auto fine = RawClient::attach(daemon.socket());
  ASSERT_TRUE(deaf.has_value() && fine.has_value());
  // More requests than its completion ring can answer; it takes none.
  std::size_t posted = 0;
  const std::span<const std::byte> nothing;
  const wire::Request record = request(wire::Op::release, {9, 9});
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (posted < 5000 && std::chrono::steady_clock::now() < until) {
    if (deaf->channel->post(record, std::span(&nothing, 1))) ++posted;
  }
  EXPECT_GT(posted, 1024U);
  EXPECT_TRUE(fine->call(request(wire::Op::invalidate), {}).has_value());
  // Nothing was lost: it takes one answer for each request after all.
  std::size_t taken = 0;
  wire::Completion completion;
  std::vector<std::byte> bytes;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (taken < posted && std::chrono::steady_clock::now() < deadline) {
    if (deaf->channel->take(completion, bytes)) {
      ++taken;
    } else {
      deaf->channel->wait(std::chrono::milliseconds(10));
    }
  }
  EXPECT_EQ(taken, posted);
}

TEST_F(Protocol, ASecondDaemonOnTheSameSocketSaysSo) {
  auto arguments = daemon.arguments();
  const ProgramResult second = daemon.run("statecached", arguments);
  EXPECT_EQ(second.code, 1);
  EXPECT_NE(second.err.find("already serves"), std::string::npos) << second.err;
  expect_alive();
}

TEST_F(Protocol, AStaleSocketIsReplaced) {
  daemon.kill9();
  EXPECT_TRUE(std::filesystem::exists(daemon.socket()));
  ASSERT_TRUE(daemon.start()) << daemon.log();
  expect_alive();
}

TEST_F(Protocol, WrongSettingsNameTheKey) {
  for (const auto& [setting, says] : std::vector<std::pair<std::string, std::string>>{
           {"host.capcity=1GiB", "host.capacity"},
           {"host.capacity=12 parsecs", "host.capacity"},
           {"limits.clients=-1", "limits.clients"},
           {"nvme.engine=steam", "nvme.engine"}}) {
    const ProgramResult result = daemon.run("statecached", {"--check-config", "--set", setting});
    EXPECT_EQ(result.code, 2) << setting;
    EXPECT_NE(result.err.find(says), std::string::npos) << result.err;
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    EXPECT_TRUE(result.out.empty());
  }
  const ProgramResult good =
      daemon.run("statecached", {"--check-config", "--set", "host.capacity=96MiB"});
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_NE(good.out.find("96"), std::string::npos) << good.out;
  EXPECT_EQ(daemon.run("statecached", {"--no-such-flag"}).code, 2);
  EXPECT_EQ(daemon.run("statecachectl", {"dance"}).code, 2);
  EXPECT_EQ(daemon.run("statecachectl", {"--socket", daemon.dir() + "/nobody", "status"}).code, 1);
}

}  // namespace
}  // namespace statecached::test

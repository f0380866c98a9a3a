// Clients that are not trusted: what they write goes through memory of their own, and what they
// break is theirs alone.

#include "base/prng.hpp"
#include "tests/ipc/raw_client.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

namespace statecached::test {
namespace {

using statecache::Grant;
using statecache::Session;

class Isolation : public ::testing::Test {
 protected:
  void SetUp() override { start({}); }

  void TearDown() override { EXPECT_EQ(daemon.stop(), 0) << daemon.log(); }

  void start(std::vector<std::string> more) {
    if (daemon.running()) {
      ASSERT_EQ(daemon.stop(), 0) << daemon.log();
    }
    more.insert(more.begin(), "socket.trust=none");
    daemon.set(more);
    ASSERT_TRUE(daemon.start()) << daemon.log();
  }

  Session attach() {
    auto session = ToyEngine::attach(daemon.socket());
    if (!session) {
      ADD_FAILURE() << session.status().text << "\n" << daemon.log();
      std::abort();
    }
    return std::move(*session);
  }

  double number(const std::string& command, const std::string& key) {
    return number_of(daemon.ctl({"--json", command}).out, key);
  }

  void expect_sound() {
    EXPECT_EQ(daemon.ctl({"flush"}).code, 0) << daemon.log();
    const ProgramResult verify = daemon.ctl({"--json", "verify"});
    EXPECT_EQ(verify.code, 0) << verify.out << verify.err;
    EXPECT_NE(verify.out.find("\"bad\":0"), std::string::npos) << verify.out;
  }

  DaemonProcess daemon;
};

/// All of a shared memory that this process may write.
struct Writable {
  std::byte* at = nullptr;
  std::size_t bytes = 0;

  explicit Writable(int fd) {
    const off_t size = ::lseek(fd, 0, SEEK_END);
    void* const map =
        ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return;
    at = static_cast<std::byte*>(map);
    bytes = static_cast<std::size_t>(size);
  }

  ~Writable() {
    if (at != nullptr) ::munmap(at, bytes);
  }

  Writable(const Writable&) = delete;
  Writable& operator=(const Writable&) = delete;
};

TEST_F(Isolation, RandomPromptsAreExactOverStagingAndAfterARestart) {
  Prng prng(11);
  std::vector<std::pair<Tokens, std::uint32_t>> stored;
  {
    Session session = attach();
    EXPECT_FALSE(session.writable());
    ToyEngine engine(session);
    for (int i = 0; i < 40; ++i) {
      const auto length = static_cast<std::uint32_t>(64 + prng.below(900));
      const std::uint32_t state = length / 64 * 64;
      const Tokens prompt =
          counting(length, static_cast<std::uint32_t>(1 + prng.below(5) * 10'000));
      EXPECT_GT(engine.store(prompt, {state}), 0);
      EXPECT_TRUE(session.drain(kPatience));  // a commit ends when the copy is done
      stored.emplace_back(prompt, state);
      // Asked with one token more, so that the state at its very end may serve too.
      Tokens longer = prompt;
      longer.push_back(7);
      const auto hit = engine.restore(longer);
      EXPECT_TRUE(hit.ok);
      EXPECT_GE(hit.tokens, state);
      EXPECT_TRUE(engine.release(hit));
    }
    EXPECT_TRUE(session.drain(kPatience));
    expect_sound();
  }
  daemon.kill9();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  for (auto& [prompt, state] : stored) {
    prompt.push_back(7);
    const auto hit = engine.restore(prompt);
    EXPECT_TRUE(hit.ok);
    EXPECT_GE(hit.tokens, state);
    EXPECT_TRUE(engine.release(hit));
  }
}

TEST_F(Isolation, AFullStagingAreaRefusesAndComesBack) {
  start({"limits.staging=1MiB"});
  Session session = attach();
  ToyEngine engine(session);
  // 300 blocks of 4 KiB: more than a MiB.
  EXPECT_GT(engine.store(counting(300 * 64), {}), 0);
  EXPECT_GT(std::ranges::count(engine.grants, Grant::no_space), 0);
  EXPECT_TRUE(session.drain(kPatience));
  EXPECT_GT(engine.store(counting(300 * 64), {}), 0);
  EXPECT_TRUE(session.drain(kPatience));
  EXPECT_EQ(engine.store(counting(300 * 64), {}), 300);
  expect_sound();
}

TEST_F(Isolation, TheArenaCannotBeMappedForWriting) {
  auto client = RawClient::attach(daemon.socket());
  ASSERT_TRUE(client.has_value());
  ASSERT_EQ(client->reply.arenas.size(), 2U);
  EXPECT_FALSE(client->reply.arenas[0].writable);
  EXPECT_FALSE(client->reply.arenas[0].staging);
  EXPECT_TRUE(client->reply.arenas[1].staging);
  EXPECT_EQ(Writable(client->arenas[0].get()).at, nullptr);
  EXPECT_NE(Writable(client->arenas[1].get()).at, nullptr);
  EXPECT_NE(::ftruncate(client->arenas[0].get(), 0), 0);
  EXPECT_NE(::ftruncate(client->arenas[1].get(), 0), 0);
  EXPECT_NE(::ftruncate(client->memfd.get(), 0), 0);
}

/// Whatever it writes wherever it may: it is dropped, and nobody else notices.
TEST_F(Isolation, AScribblerIsDroppedAndOthersSeeNothing) {
  Session session = attach();
  ToyEngine engine(session);
  const Tokens kept = counting(640);
  ASSERT_GT(engine.store(kept, {576}), 0);
  ASSERT_TRUE(session.drain(kPatience));
  Prng prng(5);
  for (std::uint32_t round = 0; round < 12; ++round) {
    auto client = RawClient::attach(daemon.socket());
    ASSERT_TRUE(client.has_value());
    Writable ring(client->memfd.get());
    Writable staging(client->arenas[1].get());
    ASSERT_NE(ring.at, nullptr);
    ASSERT_NE(staging.at, nullptr);
    // The rings and their heads, and then some of the payloads: all of the latter takes long.
    const auto scribble = [&] {
      for (std::size_t i = 0; i < 256 * 1024; i += 8) {
        const std::uint64_t word = round % 3 == 0 ? ~std::uint64_t{0} : prng.next();
        std::memcpy(ring.at + i, &word, 8);
      }
      for (std::size_t i = 0; i < 4096; ++i) {
        ring.at[prng.below(ring.bytes)] = static_cast<std::byte>(prng.next());
        staging.at[prng.below(staging.bytes)] = static_cast<std::byte>(prng.next());
      }
      // It sleeps in epoll: ring as a client does, or it looks only when its timers end.
      static_cast<void>(client->channel->post(request(wire::Op::begin), {}));
    };
    const auto deadline = std::chrono::steady_clock::now() + kRawPatience;
    char byte = 0;
    ssize_t got = -1;
    while (got < 0 && std::chrono::steady_clock::now() < deadline) {
      scribble();
      const auto hit = engine.restore(kept);
      EXPECT_TRUE(hit.ok);
      EXPECT_EQ(hit.tokens, 576U);
      EXPECT_TRUE(engine.release(hit));
      got = ::recv(client->socket.get(), &byte, 1, MSG_DONTWAIT);
    }
    EXPECT_EQ(got, 0) << "round " << round << ": it was not dropped\n" << daemon.log();
  }
  EXPECT_EQ(number("status", "clients_dropped"), 12);
  EXPECT_TRUE(session.connected());
  EXPECT_EQ(engine.store(counting(640, 9000), {640}), 11);
  EXPECT_TRUE(session.drain(kPatience));
  expect_sound();
}

/// What the daemon hashed is what it kept, whatever happens to the source while it copies.
TEST_F(Isolation, BytesThatChangeWhileTheyAreCopiedStayOnesOwnProblem) {
  statecache::NamespaceSpec spec = ToyEngine::spec("large");
  spec.groups[1].max_bytes = std::uint64_t{4} << 20U;
  auto session = Session::attach(daemon.socket(), spec, ToyEngine::member(), kPatience);
  ASSERT_TRUE(session);
  for (std::uint32_t i = 0; i < 6; ++i) {
    const Tokens prompt = counting(64, 1 + i * 100);
    statecache::Ask ask;
    ask.tokens = prompt;
    statecache::Limits limits;
    limits.hold = statecache::Hold::none;
    const auto ticket = session->begin(ask, limits);
    ASSERT_TRUE(ticket);
    const std::vector<statecache::Want> wants{{0, 0, 64, 0}, {1, 64, 64, 0}};
    ASSERT_TRUE(session->reserve(*ticket, wants));
    const auto slots = session->wait_slots(*ticket, kPatience);
    ASSERT_TRUE(slots);
    ASSERT_EQ(slots->size(), 2U);
    std::vector<statecache::Filled> filled;
    for (const statecache::Slot& slot : *slots) {
      ASSERT_EQ(slot.grant, Grant::granted);
      filled.push_back({slot.id, 0});
    }
    std::atomic<bool> stop{false};
    std::thread scribbler([&] {
      Prng prng(i);
      const statecache::Extent& extent = slots->back().where.front();
      while (!stop.load()) {
        const std::uint64_t word = prng.next();
        std::memcpy(extent.data + prng.below(extent.bytes / 8) * 8, &word, 8);
      }
    });
    EXPECT_TRUE(session->commit(filled));
    EXPECT_TRUE(session->drain(kPatience));
    stop.store(true);
    scribbler.join();
    EXPECT_TRUE(session->finish(*ticket));
    EXPECT_TRUE(session->release(*ticket));
  }
  EXPECT_EQ(session->counters().committed, 12U);
  expect_sound();
}

/// It committed and went: what is with the copier still counts. What it never committed comes back
/// at once, since nobody but the daemon writes the arena.
TEST_F(Isolation, SlotsOfAStagedClientDoNotWaitForItsProcess) {
  {
    Session session = attach();
    ToyEngine engine(session);
    ASSERT_GT(engine.store(counting(640), {640}), 0);
    statecache::Ask ask;
    const Tokens prompt = counting(640, 5000);
    ask.tokens = prompt;
    const auto ticket = session.begin(ask, {});
    ASSERT_TRUE(ticket);
    const std::vector<statecache::Want> wants{{0, 0, 64, 0}, {0, 64, 128, 0}};
    ASSERT_TRUE(session.reserve(*ticket, wants));
    ASSERT_TRUE(session.wait_slots(*ticket, kPatience));
  }
  // This process lives on; the client is forgotten all the same.
  const auto deadline = std::chrono::steady_clock::now() + kRawPatience;
  while (number("status", "clients") != 0 && std::chrono::steady_clock::now() < deadline) {
  }
  EXPECT_EQ(number("status", "clients"), 0) << daemon.ctl({"clients"}).out;
  Session session = attach();
  ToyEngine engine(session);
  EXPECT_EQ(engine.restore(counting(641)).tokens, 640U);
  EXPECT_EQ(engine.store(counting(640, 5000), {640}), 11);
}

}  // namespace
}  // namespace statecached::test

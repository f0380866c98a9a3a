// The Session against a fake daemon: one request end to end, failures, the daemon's end, many
// threads.

#include "tests/client/fake_daemon.hpp"

#include "statecache/admin.hpp"
#include "statecache/client.hpp"
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <numeric>

namespace statecache {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace fake = statecached::fake;

NamespaceSpec spec() {
  NamespaceSpec out;
  out.name = "test";
  out.model.fill(std::byte{1});
  out.layout.fill(std::byte{2});
  Group kv;
  kv.name = "kv";
  kv.block_tokens = 16;
  kv.max_bytes = 8192;
  Group state;
  state.name = "state";
  state.need = Need::end;
  state.max_bytes = 8192;
  out.groups = {kv, state};
  return out;
}

Session attach(const fake::Daemon& daemon) {
  auto session = Session::attach(daemon.path(), spec(), Member{});
  EXPECT_TRUE(session) << session.status().text;
  return std::move(*session);
}

std::vector<Token> prompt(std::size_t n) {
  std::vector<Token> out(n);
  std::iota(out.begin(), out.end(), 1000U);
  return out;
}

TEST(Session, OneRequestEndToEnd) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  EXPECT_TRUE(session.connected());
  EXPECT_TRUE(session.writable());
  EXPECT_EQ(session.name(), "test");
  EXPECT_EQ(session.epoch(), 42U);
  for (std::size_t i = 0; i < fake::kArenaBytes; ++i)
    daemon.arena()[i] = static_cast<std::byte>(i * 31 >> 3U);

  const auto tokens = prompt(50);
  const std::vector<Mark> marks(1);
  const auto ticket = session.begin({.tokens = tokens, .marks = marks, .domain = {}});
  ASSERT_TRUE(ticket) << ticket.status().text;
  const Answer answer = session.wait(*ticket, 20s);
  EXPECT_EQ(answer.state, State::ready);
  EXPECT_EQ(answer.best, 48U);
  EXPECT_EQ(answer.usable, 48U);
  EXPECT_EQ(answer.stored, 48U);
  ASSERT_EQ(answer.points.size(), 2U);
  EXPECT_EQ(answer.points[1].tokens, 48U);
  EXPECT_EQ(answer.points[1].tier, Tier::host);
  EXPECT_EQ(answer.points[1].recompute, 30us);
  EXPECT_EQ(answer.wishes, (std::vector<std::uint32_t>{7, 9}));
  // Judged against what the engine has: the lesser of its parts counts.
  EXPECT_EQ(session.poll(*ticket, {.every = 48, .end = 24}).points.size(), 1U);
  EXPECT_EQ(session.poll(*ticket, {.every = 48, .end = 48}).best, 0U);

  EXPECT_EQ(session.pieces(*ticket).status().code, Errc::invalid_argument);
  ASSERT_TRUE(session.acquire(*ticket, 32));
  const auto lease = session.wait_lease(*ticket, 20s);
  ASSERT_TRUE(lease) << lease.status().text;
  EXPECT_EQ(lease->tokens, 32U);
  ASSERT_EQ(lease->pieces.size(), 2U);
  const Piece& kv = lease->pieces[0];
  EXPECT_EQ(kv.tier, Tier::nvme);
  EXPECT_EQ(kv.valid, 32U);
  ASSERT_EQ(kv.where.size(), 2U);
  EXPECT_EQ(kv.where[0].bytes, 4096U);
  EXPECT_EQ(kv.where[1].bytes, fake::kPieceBytes - 4096) << "the padding is cut off";
  EXPECT_EQ(std::memcmp(kv.where[1].data, daemon.arena().data() + fake::kPieceAt[1], 1904), 0);
  EXPECT_EQ(session.pieces(*ticket)->size(), 2U);

  std::vector<std::byte> mine(7000);
  const std::array<Extent, 2> into{Extent{mine.data(), 1000}, Extent{mine.data() + 1000, 6000}};
  std::array<std::byte, 10> small{};
  const std::array<Extent, 1> too_small{Extent{small.data(), small.size()}};
  const std::array<Memory, 3> wanted{
      Memory{0, 0, 0, into}, Memory{1, 32, 0, too_small}, Memory{0, 16, 0, into}};
  std::array<bool, 3> ok{};
  ASSERT_TRUE(session.read_into(*ticket, wanted, 1s, ok));
  EXPECT_EQ(ok, (std::array<bool, 3>{true, false, false}));
  EXPECT_EQ(std::memcmp(mine.data(), daemon.arena().data() + fake::kPieceAt[0], 4096), 0);
  EXPECT_EQ(std::memcmp(mine.data() + 4096, daemon.arena().data() + fake::kPieceAt[1], 1904), 0);

  const std::array<Want, 3> wants{Want{0, 32, 48, 0}, Want{1, 48, 48, 0}, Want{0, 48, 50, 500}};
  ASSERT_TRUE(session.reserve(*ticket, wants));
  const auto slots = session.wait_slots(*ticket, 20s);
  ASSERT_TRUE(slots) << slots.status().text;
  ASSERT_EQ(slots->size(), 3U);
  EXPECT_EQ((*slots)[0].grant, Grant::granted);
  EXPECT_EQ((*slots)[1].grant, Grant::exists);
  EXPECT_EQ((*slots)[1].id, 0U);
  EXPECT_EQ((*slots)[2].where[0].bytes, 500U);
  EXPECT_TRUE(session.slots(*ticket)->empty()) << "wait_slots takes them";
  (*slots)[0].where[0].data[3] = std::byte{0x5A};
  EXPECT_EQ(daemon.arena()[65536 + ((*slots)[0].id % 16) * 4096 + 3], std::byte{0x5A});
  const std::array<Filled, 2> filled{Filled{(*slots)[0].id, 16}, Filled{(*slots)[2].id, 0}};
  ASSERT_TRUE(session.commit(filled));
  ASSERT_TRUE(session.append(*ticket, prompt(3)));
  ASSERT_TRUE(session.finish(*ticket, {.computed = 50, .prefilled = 2, .prefill = 10ms}));
  ASSERT_TRUE(session.release(*ticket));
  ASSERT_TRUE(session.drain(20s));
  EXPECT_EQ(session.counters().committed, 1U);
  EXPECT_EQ(session.counters().refused, 1U);
  EXPECT_EQ(daemon.ended, 2U);
  // The handle has ended; ending it again is fine, using it is not.
  EXPECT_TRUE(session.release(*ticket));
  EXPECT_TRUE(session.cancel(*ticket));
  EXPECT_EQ(session.acquire(*ticket).code, Errc::not_found);
  EXPECT_EQ(session.poll(*ticket).state, State::lost);
  EXPECT_EQ(daemon.ended, 2U);
}

TEST(Session, LeaseAtBeginComesWhenLoaded) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  daemon.withhold = true;
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}},
                                    {.have = {}, .hold = Hold::lease});
  ASSERT_TRUE(ticket);
  EXPECT_EQ(session.wait(*ticket, 30ms).state, State::loading);
  EXPECT_EQ(session.wait_lease(*ticket, 1ms).status().code, Errc::timeout);
  EXPECT_EQ(session.pieces(*ticket).status().code, Errc::busy);
  daemon.withhold = false;
  const auto lease = session.wait_lease(*ticket, 20s);
  ASSERT_TRUE(lease) << lease.status().text;
  EXPECT_EQ(lease->tokens, 32U);
  EXPECT_EQ(session.wait(*ticket, 20s).state, State::ready);
}

TEST(Session, WriteFromCopiesAndCommits) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}},
                                    {.have = {}, .hold = Hold::none});
  ASSERT_TRUE(ticket);
  std::vector<std::byte> mine(300, std::byte{0x77});
  const std::array<Extent, 2> from{Extent{mine.data(), 100}, Extent{mine.data() + 100, 200}};
  const std::array<Memory, 2> memory{Memory{0, 0, 16, from}, Memory{1, 16, 0, from}};
  std::array<bool, 2> ok{};
  const Status status = session.write_from(*ticket, memory, 20s, ok);
  ASSERT_TRUE(status) << status.text;
  EXPECT_EQ(ok, (std::array<bool, 2>{true, true}));
  const std::byte* at = daemon.arena().data() + 65536 + (100 % 16) * 4096;
  EXPECT_EQ(std::memcmp(at, mine.data(), 300), 0);
  EXPECT_EQ(at[300], std::byte{0});
  EXPECT_TRUE(session.slots(*ticket)->empty());
}

TEST(Session, RefusalsAreToldAndCounted) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  daemon.refuse = true;
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}},
                                    {.have = {}, .hold = Hold::lease});
  ASSERT_TRUE(ticket);
  EXPECT_EQ(session.wait(*ticket, 20s).state, State::failed);
  EXPECT_EQ(session.wait_lease(*ticket, 20s).status().code, Errc::invalid_argument);
  const std::array<Want, 1> wants{Want{0, 0, 16, 0}};
  ASSERT_TRUE(session.reserve(*ticket, wants));
  EXPECT_EQ(session.wait_slots(*ticket, 20s).status().code, Errc::invalid_argument);
  EXPECT_TRUE(session.wait_slots(*ticket, 20s)) << "told once";
  ASSERT_TRUE(session.append(*ticket, prompt(1)));
  EXPECT_EQ(session.settle(*ticket, 20s).code, Errc::invalid_argument);
  EXPECT_TRUE(session.settle(*ticket, 20s)) << "told once";
  EXPECT_EQ(session.counters().errors, 3U);
  EXPECT_EQ(session.begin(KeyRun{}).status().code, Errc::invalid_argument);
  EXPECT_EQ(session.begin({.tokens = {}, .marks = {}, .domain = {}, .parent = 99}).status().code,
            Errc::not_found);
  EXPECT_EQ(session.begin({.tokens = prompt(20'000), .marks = {}, .domain = {}}).status().code,
            Errc::invalid_argument);
}

TEST(Session, JoinByName) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  const auto unknown = session.join({1, 2});
  ASSERT_TRUE(unknown);
  EXPECT_EQ(session.wait_lease(*unknown, 20s).status().code, Errc::not_found);
  EXPECT_EQ(session.poll(*unknown).state, State::lost);
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}});
  ASSERT_TRUE(ticket);
  const auto ref = session.ref(*ticket);
  ASSERT_TRUE(ref);
  EXPECT_NE(ref->low | ref->high, 0U);
  EXPECT_EQ(session.join(*ref).status().code, Errc::already_exists);
  ASSERT_TRUE(session.invalidate());
  ASSERT_TRUE(session.drain(20s));
  EXPECT_EQ(session.poll(*ticket).state, State::lost);
}

TEST(Session, SlotsOfATicketThatEndedGoBack) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}});
  ASSERT_TRUE(ticket);
  daemon.hush();
  const std::array<Memory, 0> nothing{};
  EXPECT_TRUE(session.write_from(*ticket, nothing, 1ms, {}));
  std::vector<std::byte> mine(64);
  const std::array<Extent, 1> from{Extent{mine.data(), 64}};
  const std::array<Memory, 1> memory{Memory{0, 0, 16, from}};
  std::array<bool, 1> ok{true};
  EXPECT_EQ(session.write_from(*ticket, memory, 5ms, ok).code, Errc::timeout);
  EXPECT_FALSE(ok[0]);
  daemon.silent = false;
  ASSERT_TRUE(session.drain(20s));
  EXPECT_EQ(session.counters().returned, 1U);
  ASSERT_TRUE(session.taint(*ticket));
  ASSERT_TRUE(session.drain(20s)) << "answered in order, so the slot was given back before";
  EXPECT_EQ(daemon.abandoned, 1U);
}

TEST(Session, AFullRingIsBusyAndNeverBlocks) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  daemon.hush();
  const auto tokens = prompt(8);
  std::size_t sent = 0;
  Status last;
  for (int i = 0; i < 64 && last.ok(); ++i) {
    const auto ticket = session.begin({.tokens = tokens, .marks = {}, .domain = {}});
    last = ticket.status();
    sent += ticket.ok() ? 1U : 0U;
  }
  EXPECT_EQ(last.code, Errc::busy);
  EXPECT_GE(sent, 16U);
  EXPECT_LT(sent, 64U);
  EXPECT_EQ(session.counters().busy, 1U);
  daemon.silent = false;
  EXPECT_TRUE(session.drain(20s));
  EXPECT_TRUE(session.begin({.tokens = tokens, .marks = {}, .domain = {}}));
}

TEST(Session, TheDaemonsEndIsLostAtOnce) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  const auto old = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}});
  ASSERT_TRUE(old);
  EXPECT_EQ(session.wait(*old, 20s).state, State::ready);
  daemon.hush();
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}},
                                    {.have = {}, .hold = Hold::lease});
  ASSERT_TRUE(ticket);
  std::vector<std::thread> waiters;
  std::atomic<int> lost{0};
  const auto start = Clock::now();
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&, i] {
      if (i == 0) lost += session.wait_lease(*ticket, 60s).status().code == Errc::closed ? 1 : 0;
      if (i != 0) lost += session.wait(*ticket, 60s).state == State::lost ? 1 : 0;
    });
  }
  daemon.hang_up = true;
  for (std::thread& waiter : waiters)
    waiter.join();
  EXPECT_LT(Clock::now() - start, 20s);
  EXPECT_EQ(lost, 3);
  EXPECT_FALSE(session.connected());
  EXPECT_EQ(session.poll(*old).state, State::lost);
  EXPECT_EQ(session.poll(*old).best, 0U);
  EXPECT_EQ(session.begin({.tokens = prompt(4), .marks = {}, .domain = {}}).status().code,
            Errc::closed);
  EXPECT_EQ(session.release(*old).code, Errc::closed);
  fake::Daemon again;
  session = attach(again);
  EXPECT_TRUE(session.connected());
}

TEST(Session, APieceOutsideTheArenaEndsTheTrust) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  daemon.garbage = true;
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}},
                                    {.have = {}, .hold = Hold::lease});
  ASSERT_TRUE(ticket);
  EXPECT_EQ(session.wait_lease(*ticket, 20s).status().code, Errc::closed);
  EXPECT_FALSE(session.connected());
}

TEST(Session, AReadOnlyArenaIsRead) {
  fake::Daemon daemon(false);
  Session session = attach(daemon);
  EXPECT_FALSE(session.writable());
  const auto ticket = session.begin({.tokens = prompt(40), .marks = {}, .domain = {}},
                                    {.have = {}, .hold = Hold::lease});
  ASSERT_TRUE(ticket);
  const auto lease = session.wait_lease(*ticket, 20s);
  ASSERT_TRUE(lease);
  EXPECT_EQ(*lease->pieces[1].where[0].data, daemon.arena()[16384]);
}

TEST(Session, ManyThreadsShareOneSession) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 200; ++i) {
        const std::uint32_t depth = 16 * (1 + (t * 7 + i) % 20);
        auto ticket = session.begin({.tokens = prompt(depth + 1), .marks = {}, .domain = {}},
                                    {.have = {}, .hold = Hold::lease});
        while (!ticket && ticket.status().code == Errc::busy) {
          ticket = session.begin({.tokens = prompt(depth + 1), .marks = {}, .domain = {}},
                                 {.have = {}, .hold = Hold::lease});
        }
        ASSERT_TRUE(ticket);
        const auto lease = session.wait_lease(*ticket, 30s);
        ASSERT_TRUE(lease) << lease.status().text;
        good += lease->tokens == depth ? 1 : 0;
        while (session.cancel(*ticket).code == Errc::busy) {
        }
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(good, 800);
  EXPECT_TRUE(session.drain(20s));
  EXPECT_EQ(daemon.ended, 800U);
}

TEST(Session, IsOfNoUseAfterAFork) {
  fake::Daemon daemon;
  Session session = attach(daemon);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const bool right = !session.connected() && session.poll(1).state == State::lost &&
                       session.invalidate().code == Errc::closed;
    ::_exit(right ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(session.connected());
}

TEST(Session, AttachSaysWhatIsWrong) {
  EXPECT_EQ(Session::attach("/nonexistent/s", spec(), {}).status().code, Errc::not_found);
  fake::Daemon daemon;
  NamespaceSpec bad = spec();
  bad.groups.clear();
  EXPECT_EQ(Session::attach(daemon.path(), bad, {}).status().code, Errc::invalid_argument);
}

TEST(Admin, RepliesOneAndMany) {
  {
    fake::Daemon daemon;
    const auto json = admin(daemon.path(), "status");
    ASSERT_TRUE(json) << json.status().text;
    EXPECT_EQ(*json, "{\"n\":2}") << "the last one";
  }
  {
    fake::Daemon daemon;
    std::string all;
    const Status status = admin_stream(daemon.path(), "events", {}, {}, [&](std::string_view json) {
      all += json;
      return true;
    });
    EXPECT_TRUE(status) << status.text;
    EXPECT_EQ(all, "{\"n\":0}{\"n\":1}{\"n\":2}");
  }
  fake::Daemon daemon;
  EXPECT_EQ(admin(daemon.path(), "nonsense").status().code, Errc::unsupported);
}

}  // namespace
}  // namespace statecache

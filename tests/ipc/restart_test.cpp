// The daemon's end and its return, with and without the memory that a service manager keeps for it.

#include "base/prng.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"
#include "tests/support/service_manager.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <iostream>
#include <thread>

namespace statecached::test {
namespace {

using statecache::Session;
using statecache::State;
using SteadyClock = std::chrono::steady_clock;

class Restart : public ::testing::Test {
 protected:
  void SetUp() override {
    daemon.set({"nvme.capacity=0"});
    start();
  }

  void TearDown() override {
    if (HasFailure()) std::cerr << daemon.log();
  }

  void start() { ASSERT_TRUE(daemon.start()) << daemon.log(); }

  void kill() {
    manager.listen();
    daemon.kill9();
  }

  Session attach() {
    auto session = ToyEngine::attach(daemon.socket());
    if (!session) {
      ADD_FAILURE() << session.status().text << "\n" << daemon.log();
      std::abort();
    }
    return std::move(*session);
  }

  double number(const std::string& key) {
    return number_of(daemon.ctl({"--json", "status"}).out, key);
  }

  template <class Done>
  bool eventually(Done done) {
    const auto deadline = SteadyClock::now() + std::chrono::seconds(20);
    while (!done()) {
      if (SteadyClock::now() >= deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  bool reattached(Session& session, std::uint64_t epoch) {
    return eventually([&] { return session.connected() && session.epoch() != epoch; });
  }

  DaemonProcess daemon;
  ServiceManager manager{daemon};
};

TEST_F(Restart, HostMemoryOutlivesTheDaemon) {
  const Tokens prompt = counting(1000);
  {
    Session session = attach();
    ToyEngine engine(session);
    EXPECT_EQ(engine.store(prompt, {512, 960}), 18);
    EXPECT_TRUE(session.drain(kPatience));
  }
  // Listed once hashed.
  ASSERT_TRUE(eventually([&] { return number("kept_objects") == 18; }))
      << daemon.ctl({"--json", "status"}).out;
  kill();
  EXPECT_EQ(manager.kept(), 2U);
  start();
  Session session = attach();
  ASSERT_TRUE(eventually([&] { return number("waiting") == 0; }));
  EXPECT_EQ(number("verified"), 18);
  EXPECT_EQ(number("lost"), 0);
  EXPECT_EQ(number("quarantined_bytes"), 0) << "nobody held anything";
  ToyEngine engine(session);
  const auto hit = engine.restore(prompt);
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 960U);
  for (const auto& piece : hit.pieces)
    EXPECT_EQ(piece.tier, statecache::Tier::host);
  EXPECT_TRUE(engine.release(hit));
  // And once more, with what was kept and what is new.
  EXPECT_GT(engine.store(counting(640, 9000), {640}), 0);
  EXPECT_TRUE(session.drain(kPatience));
  ASSERT_TRUE(eventually([&] { return number("kept_objects") == 29; }));
  const std::uint64_t epoch = session.epoch();
  kill();
  EXPECT_EQ(manager.kept(), 2U);
  start();
  ASSERT_TRUE(reattached(session, epoch)) << daemon.log();
  ASSERT_TRUE(eventually([&] { return number("waiting") == 0; }));
  EXPECT_EQ(engine.restore(prompt).tokens, 960U);
  EXPECT_EQ(engine.restore(counting(641, 9000)).tokens, 640U);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

TEST_F(Restart, ASessionGoesOnAsMissesAndAttachesAgainByItself) {
  Session session = attach();
  ToyEngine engine(session);
  const Tokens prompt = counting(640);
  EXPECT_GT(engine.store(prompt, {640}), 0);
  EXPECT_TRUE(session.drain(kPatience));
  statecache::Ask ask;
  ask.tokens = prompt;
  const auto ticket = session.begin(ask, {});
  ASSERT_TRUE(ticket);
  const std::uint64_t epoch = session.epoch();
  manager.forget();
  daemon.kill9();
  EXPECT_TRUE(eventually([&] { return !session.connected(); }));
  EXPECT_EQ(session.poll(*ticket).state, State::lost);
  EXPECT_EQ(session.begin(ask, {}).status().code, statecache::Errc::closed);
  EXPECT_EQ(session.wait_lease(*ticket, kPatience).status().code, statecache::Errc::closed);
  start();
  const auto back = SteadyClock::now();
  ASSERT_TRUE(reattached(session, epoch)) << daemon.log();
  // Within a second where the machine has time; the measured figure is in the README.
  EXPECT_LT(SteadyClock::now() - back, std::chrono::seconds(10));
  EXPECT_EQ(session.poll(*ticket).state, State::lost);
  EXPECT_TRUE(session.release(*ticket));
  EXPECT_TRUE(session.finish(*ticket));
  // The memory is new and empty.
  EXPECT_EQ(engine.restore(prompt).tokens, 0U);
  EXPECT_GT(engine.store(prompt, {640}), 0);
  EXPECT_EQ(engine.restore(counting(641)).tokens, 640U);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

/// A lease of before stays readable and a slot of before writable, and nobody else gets that
/// memory.
TEST_F(Restart, WhatIsStillUsedIsQuarantinedUntilItIsLetGo) {
  Session session = attach();
  ToyEngine engine(session);
  const Tokens prompt = counting(640);
  ASSERT_GT(engine.store(prompt, {640}), 0);
  ASSERT_TRUE(session.drain(kPatience));
  ASSERT_TRUE(eventually([&] { return number("kept_objects") == 11; }));
  const auto lease = engine.restore(counting(641));
  ASSERT_EQ(lease.tokens, 640U);
  const Tokens other = counting(128, 7000);
  statecache::Ask ask;
  ask.tokens = other;
  const auto saving = session.begin(ask, {});
  ASSERT_TRUE(saving);
  const std::vector<statecache::Want> wants{{0, 0, 64, 0}, {0, 64, 128, 0}};
  ASSERT_TRUE(session.reserve(*saving, wants));
  const auto slots = session.wait_slots(*saving, kPatience);
  ASSERT_TRUE(slots);
  ASSERT_EQ(slots->size(), 2U);
  const std::uint64_t epoch = session.epoch();
  kill();
  start();
  ASSERT_TRUE(reattached(session, epoch)) << daemon.log();
  ASSERT_TRUE(eventually([&] {
    return number("waiting") == 0 && number("quarantined_bytes") < 16 * 1024 * 1024;
  })) << daemon.ctl({"--json", "status"}).out;
  // What it declared: 10 blocks and a state it reads, two blocks it may be writing.
  EXPECT_GT(number("quarantined_bytes"), 10 * 4096);
  EXPECT_TRUE(engine.checks(counting(641), lease));
  // Fill the host tier: none of it may land there.
  for (std::uint32_t i = 0; i < 40; ++i) {
    const Tokens filler = counting(40 * 1024, 100'000 * (i + 1));
    EXPECT_GE(engine.store(filler, {}), 0);
    for (const statecache::Slot& slot : *slots)
      std::memset(slot.where.front().data, static_cast<int>(i), slot.where.front().bytes);
  }
  EXPECT_TRUE(session.drain(kPatience));
  EXPECT_TRUE(engine.checks(counting(641), lease));
  // Its commit comes too late; the daemon that granted it is gone.
  std::vector<statecache::Filled> filled;
  for (const statecache::Slot& slot : *slots)
    filled.push_back({slot.id, 0});
  const std::uint64_t refused = session.counters().refused;
  EXPECT_TRUE(session.commit(filled));
  EXPECT_EQ(session.counters().refused, refused + 2);
  EXPECT_EQ(number("earlier_clients"), 1);
  EXPECT_TRUE(engine.release(lease));
  EXPECT_TRUE(eventually([&] { return number("earlier_clients") == 0; }));
  EXPECT_EQ(number("quarantined_bytes"), 0);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

/// It never attaches again: its memory waits for the end of its process.
TEST_F(Restart, ASilentProcessKeepsEverythingUntilItEnds) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    char ok = 'n';
    // In a grandchild of nobody: the session's own thread must not run on, so it is stopped below.
    auto session = ToyEngine::attach(daemon.socket());
    if (session) {
      ToyEngine engine(*session);
      if (engine.store(counting(640), {640}) > 0 && session->drain(kPatience) &&
          engine.restore(counting(641)).tokens == 640)
        ok = 'y';
    }
    if (::write(pipe[1], &ok, 1) != 1) ::_exit(1);
    for (;;)
      ::pause();
  }
  char ok = 0;
  ASSERT_EQ(::read(pipe[0], &ok, 1), 1);
  EXPECT_EQ(ok, 'y');
  ASSERT_TRUE(eventually([&] { return number("kept_objects") == 11; }));
  ::kill(child, SIGSTOP);
  kill();
  start();
  Session session = attach();
  ToyEngine engine(session);
  ASSERT_TRUE(eventually([&] { return number("waiting") == 0; }));
  EXPECT_EQ(number("earlier_clients"), 1);
  EXPECT_EQ(number("quarantined_bytes"), 64 * 1024 * 1024);
  // What was kept is served; new things find no room.
  EXPECT_EQ(engine.restore(counting(641)).tokens, 640U);
  EXPECT_EQ(engine.store(counting(128, 5000), {}), 0);
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(eventually([&] { return number("quarantined_bytes") == 0; }));
  EXPECT_EQ(engine.store(counting(128, 5000), {}), 2);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  ::close(pipe[0]);
  ::close(pipe[1]);
}

/// Eight engines at work, the daemon killed under them again and again: no wrong byte, no leak, and
/// each is attached again soon after it is back.
class Storm : public Restart, public ::testing::WithParamInterface<bool> {};

TEST_P(Storm, EightClientsUnderADaemonThatDies) {
  const bool keep = GetParam();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> hits{0}, wrong{0}, rounds{0};
  std::vector<std::thread> engines;
  for (std::uint32_t e = 0; e < 8; ++e) {
    engines.emplace_back([&, e] {
      Prng prng(100 + e);
      auto session = ToyEngine::attach(daemon.socket());
      if (!session) {
        ADD_FAILURE() << session.status().text;
        return;
      }
      while (!stop.load()) {
        ToyEngine engine(*session);
        const auto length = static_cast<std::uint32_t>(64 + prng.below(500));
        const Tokens prompt =
            counting(length, static_cast<std::uint32_t>(1 + prng.below(6) * 10'000));
        const auto hit = engine.restore(prompt);
        if (hit.ticket != 0) {
          // A lease that came is exact, also when the daemon ends while it is read.
          if (hit.leased && !hit.ok) wrong.fetch_add(1);
          if (hit.tokens > 0) hits.fetch_add(1);
          static_cast<void>(engine.release(hit));
        }
        static_cast<void>(engine.store(prompt, {length / 64 * 64}));
        rounds.fetch_add(1);
      }
      EXPECT_TRUE(eventually([&] { return session->connected(); }));
      EXPECT_TRUE(session->drain(kPatience));
    });
  }
  Prng prng(7);
  for (int death = 0; death < 4; ++death) {
    const std::uint64_t before = rounds.load();
    ASSERT_TRUE(eventually([&] { return rounds.load() > before + 20 + prng.below(50); }));
    if (!keep) {
      manager.listen();
      manager.forget();
      daemon.kill9();
      manager.listen();
      manager.forget();
    } else {
      kill();
    }
    start();
    EXPECT_TRUE(eventually([&] { return number("clients") == 8; })) << daemon.log();
  }
  const std::uint64_t before = rounds.load();
  ASSERT_TRUE(eventually([&] { return rounds.load() > before + 50; }));
  stop.store(true);
  for (std::thread& engine : engines)
    engine.join();
  EXPECT_EQ(wrong.load(), 0U);
  EXPECT_GT(hits.load(), 0U);
  EXPECT_TRUE(eventually([&] {
    return number("quarantined_bytes") == 0 && number("earlier_clients") == 0;
  })) << daemon.ctl({"--json", "status"}).out;
  const ProgramResult audit = daemon.ctl({"--json", "audit"});
  EXPECT_EQ(audit.code, 0) << audit.out << audit.err;
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

INSTANTIATE_TEST_SUITE_P(Arena, Storm, ::testing::Values(true, false), [](const auto& param) {
  return param.param ? "Kept" : "Lost";
});

}  // namespace
}  // namespace statecached::test

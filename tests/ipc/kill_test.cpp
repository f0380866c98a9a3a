// Members killed at every step of the protocol: what they held comes back when their process is
// gone, and not before; what they committed stays; nobody reads a wrong byte.

#include "base/prng.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>

#include <array>
#include <functional>

namespace statecached::test {
namespace {

using statecache::Session;
using SteadyClock = std::chrono::steady_clock;

class Kill : public ::testing::Test {
 protected:
  void SetUp() override { start({}); }

  void start(std::vector<std::string> more) {
    if (daemon.running()) {
      ASSERT_EQ(daemon.stop(), 0) << daemon.log();
    }
    more.emplace_back("limits.soft_hold_age=200ms");
    daemon.set(std::move(more));
    ASSERT_TRUE(daemon.start()) << daemon.log();
  }

  void TearDown() override { EXPECT_EQ(daemon.stop(), 0) << daemon.log(); }

  /// The first number with this key after `section`.
  double number(const std::string& command, const std::string& section, const std::string& key) {
    const std::string json = daemon.ctl({"--json", command}).out;
    const std::size_t from = section.empty() ? 0 : json.find("\"" + section + "\":{");
    const std::size_t at = json.find("\"" + key + "\":", from);
    if (from == std::string::npos || at == std::string::npos) return -1;
    return std::strtod(json.c_str() + at + key.size() + 3, nullptr);
  }

  double clients() { return number("status", "", "clients"); }

  double tickets() { return number("status", "", "tickets"); }

  double held() { return number("status", "host", "held_bytes"); }

  double writing() { return number("tenants", "", "writing"); }

  template <class Done>
  bool eventually(Done done) {
    const auto deadline = SteadyClock::now() + std::chrono::seconds(20);
    while (!done()) {
      if (SteadyClock::now() >= deadline) return false;
    }
    return true;
  }

  /// A child that does `work`, says whether it went well, and waits to be killed.
  pid_t member(const std::function<bool()>& work) {
    std::array<int, 2> pipe{};
    if (::pipe(pipe.data()) != 0) std::abort();
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const char ok = work() ? 'y' : 'n';
      if (::write(pipe[1], &ok, 1) != 1) ::_exit(1);
      for (;;)
        ::pause();
    }
    ::close(pipe[1]);
    char ok = 0;
    EXPECT_EQ(::read(pipe[0], &ok, 1), 1);
    EXPECT_EQ(ok, 'y');
    ::close(pipe[0]);
    return child;
  }

  static void kill(pid_t child) {
    ::kill(child, SIGKILL);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
  }

  void expect_nothing_left() {
    EXPECT_TRUE(eventually([&] { return clients() == 0; })) << daemon.ctl({"clients"}).out;
    EXPECT_TRUE(eventually([&] { return held() == 0; })) << daemon.ctl({"--json", "status"}).out;
    EXPECT_EQ(writing(), 0);
    EXPECT_EQ(tickets(), 0);
    const ProgramResult audit = daemon.ctl({"audit"});
    EXPECT_EQ(audit.code, 0) << audit.out << audit.err;
  }

  void kill_at_every_step();

  DaemonProcess daemon;
};

void Kill::kill_at_every_step() {
  struct Case {
    const char* name;
    int steps;   // of the script below
    bool holds;  // it held memory at its death
    int found;   // tokens that are stored afterwards, of a prompt of its own
  };

  // What a member does: attach; begin soft; acquire; release and begin to save; reserve; write
  // half; commit half; commit the rest; append; finish.
  const std::vector<Case> cases{{"attached", 0, false, 0},
                                {"begin", 1, false, 0},
                                {"acquired", 2, true, 0},
                                {"saving", 3, false, 0},
                                {"reserved", 4, true, 0},
                                {"mid-write", 5, true, 0},
                                {"half committed", 6, true, 0},
                                {"committed", 7, false, 256},
                                {"appended", 8, false, 256},
                                {"finished", 9, false, 256}};
  {
    auto session = ToyEngine::attach(daemon.socket());
    ASSERT_TRUE(session);
    ASSERT_GT(ToyEngine(*session).store(counting(640), {640}), 0);
    ASSERT_TRUE(session->drain(kPatience));
  }
  std::uint32_t from = 10'000;
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    from += 10'000;
    const Tokens own = counting(256, from);
    const pid_t child = member([&] {
      auto attached = ToyEngine::attach(daemon.socket());
      if (!attached) return false;
      // It lives until the process is killed.
      auto* const session = new Session(std::move(*attached));
      int step = 0;
      const auto done = [&] { return step++ == one.steps; };
      if (done()) return true;
      statecache::Ask ask;
      const Tokens shared = counting(641);
      ask.tokens = shared;
      const auto reading = session->begin(ask, {});
      if (!reading || session->wait(*reading, kPatience).best != 640) return false;
      if (done()) return true;
      if (!session->acquire(*reading) || !session->wait_lease(*reading, kPatience)) return false;
      if (done()) return true;
      if (!session->finish(*reading) || !session->release(*reading)) return false;
      ask.tokens = own;
      statecache::Limits limits;
      limits.hold = statecache::Hold::none;
      const auto saving = session->begin(ask, limits);
      if (!saving || !session->drain(kPatience)) return false;
      if (done()) return true;
      std::vector<statecache::Want> wants;
      for (std::uint32_t first = 0; first < 256; first += 64)
        wants.push_back({0, first, first + 64, 0});
      wants.push_back({1, 256, 256, 0});
      if (!session->reserve(*saving, wants)) return false;
      const auto slots = session->wait_slots(*saving, kPatience);
      if (!slots || slots->size() != 5) return false;
      if (done()) return true;
      std::vector<statecache::Filled> filled;
      for (const statecache::Slot& slot : *slots) {
        if (slot.grant != statecache::Grant::granted) return false;
        filled.push_back({slot.id, 0});
      }
      const auto write = [&](std::size_t i) {
        ToyEngine::write(
            (*slots)[i].where,
            ToyEngine::payload(
                ToyEngine::chains(own), (*slots)[i].group, (*slots)[i].first, (*slots)[i].end));
      };
      write(4);
      write(3);
      write(2);
      if (done()) return true;
      // The tail first: it waits for what it hangs on.
      if (!session->commit(std::span(filled).subspan(2)) || !session->drain(kPatience))
        return false;
      if (done()) return true;
      write(1);
      write(0);
      if (!session->commit(std::span(filled).first(2)) || !session->drain(kPatience)) return false;
      if (done()) return true;
      const Tokens more = counting(10, 5);
      if (!session->append(*saving, more) || !session->drain(kPatience)) return false;
      if (done()) return true;
      return session->finish(*saving).ok() && session->drain(kPatience).ok();
    });
    // Not before its process is gone.
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(clients(), 1);
      if (one.holds) {
        EXPECT_GT(held() + writing(), 0);
      }
    }
    kill(child);
    expect_nothing_left();
    auto session = ToyEngine::attach(daemon.socket());
    ASSERT_TRUE(session);
    ToyEngine engine(*session);
    Tokens longer = own;
    longer.push_back(7);
    const auto hit = engine.restore(longer);
    EXPECT_TRUE(hit.ok);
    EXPECT_EQ(hit.tokens, static_cast<std::uint32_t>(one.found));
    EXPECT_TRUE(engine.release(hit));
    const auto shared = engine.restore(counting(641));
    EXPECT_TRUE(shared.ok);
    EXPECT_EQ(shared.tokens, 640U);
    EXPECT_TRUE(engine.release(shared));
    EXPECT_TRUE(session->drain(kPatience));
  }
}

TEST_F(Kill, AtEveryStep) {
  kill_at_every_step();
}

TEST_F(Kill, AtEveryStepOfAClientThatIsNotTrusted) {
  start({"socket.trust=none"});
  kill_at_every_step();
}

/// The session is closed and its process lives on: it may still be copying.
TEST_F(Kill, AClosedSessionHoldsUntilItsProcessEnds) {
  {
    auto session = ToyEngine::attach(daemon.socket());
    ASSERT_TRUE(session);
    ASSERT_GT(ToyEngine(*session).store(counting(640), {640}), 0);
  }
  const pid_t child = member([&] {
    auto session = ToyEngine::attach(daemon.socket());
    return session && ToyEngine(*session).restore(counting(641)).tokens == 640;
  });
  ASSERT_TRUE(eventually([&] {
    return daemon.ctl({"--json", "clients"}).out.find("\"closed\":true") != std::string::npos;
  }));
  const double before = held();
  EXPECT_GT(before, 0);
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(held(), before);
  kill(child);
  expect_nothing_left();
}

/// An engine of two workers, each with its shard of everything.
struct Pair {
  static statecache::NamespaceSpec spec() {
    statecache::NamespaceSpec out = ToyEngine::spec("pair");
    for (statecache::Group& group : out.groups)
      group.shards = 2;
    return out;
  }

  static statecache::Result<Session> attach(const std::string& socket, std::uint16_t rank) {
    statecache::Member member = ToyEngine::member();
    member.rank = rank;
    member.world = 2;
    member.shard = {rank, rank};
    return Session::attach(socket, spec(), member, kPatience);
  }

  /// Both fill their shard of every slot with one byte and commit.
  static void fill(Session& session, std::span<const statecache::Slot> slots, std::byte with) {
    std::vector<statecache::Filled> filled;
    for (const statecache::Slot& slot : slots) {
      for (const statecache::Extent& extent : slot.where)
        std::fill_n(extent.data, extent.bytes, with);
      filled.push_back({slot.id, 0});
    }
    EXPECT_TRUE(session.commit(filled));
    EXPECT_TRUE(session.drain(kPatience));
  }
};

TEST_F(Kill, AWorkersDeathAbortsItsObjectsOnAllShards) {
  auto first = Pair::attach(daemon.socket(), 0);
  ASSERT_TRUE(first);
  const Tokens prompt = counting(64);
  statecache::Ask ask;
  ask.tokens = prompt;
  statecache::Limits limits;
  limits.hold = statecache::Hold::none;
  const auto ticket = first->begin(ask, limits);
  ASSERT_TRUE(ticket);
  ASSERT_TRUE(first->drain(kPatience));
  const auto ref = first->ref(*ticket);
  ASSERT_TRUE(ref);
  std::array<int, 2> go{};
  ASSERT_EQ(::pipe(go.data()), 0);
  // The second worker joins, gets its slots, and dies with them open.
  const pid_t second = member([&] {
    auto attached = Pair::attach(daemon.socket(), 1);
    if (!attached) return false;
    auto* const session = new Session(std::move(*attached));
    const auto joined = session->join(*ref);
    return joined && session->drain(kPatience).ok();
  });
  const std::vector<statecache::Want> wants{{0, 0, 64, 0}, {1, 64, 64, 0}};
  ASSERT_TRUE(first->reserve(*ticket, wants));
  const auto slots = first->wait_slots(*ticket, kPatience);
  ASSERT_TRUE(slots);
  ASSERT_EQ(slots->size(), 2U);
  EXPECT_EQ((*slots)[0].grant, statecache::Grant::granted);
  EXPECT_GT(writing(), 0);
  kill(second);
  EXPECT_TRUE(eventually([&] { return clients() == 1; }));
  // Nothing of it can become visible any more, but its space waits: the first still writes its own
  // shard.
  EXPECT_TRUE(eventually([&] { return writing() == 0; }));
  const double used = number("status", "host", "used");
  EXPECT_GT(used, 0);
  Pair::fill(*first, *slots, std::byte{1});
  EXPECT_EQ(first->counters().refused, 2U);
  EXPECT_TRUE(eventually([&] { return number("status", "host", "used") == 0; }));
  EXPECT_EQ(daemon.ctl({"audit"}).code, 0) << daemon.ctl({"audit"}).out;
}

/// What was reserved for a worker that has not joined yet is its own when it does; and given up
/// when it never does.
TEST_F(Kill, AShardWaitsForItsMemberToJoin) {
  for (const char* trust : {"same-user", "none"}) {
    SCOPED_TRACE(trust);
    start({std::string("socket.trust=") + trust, "limits.reservation_age=1s"});
    auto first = Pair::attach(daemon.socket(), 0);
    auto second = Pair::attach(daemon.socket(), 1);
    ASSERT_TRUE(first);
    ASSERT_TRUE(second);
    const std::vector<statecache::Want> wants{{0, 0, 64, 0}, {1, 64, 64, 0}};
    const auto reserve = [&](const Tokens& prompt) {
      statecache::Ask ask;
      ask.tokens = prompt;
      statecache::Limits limits;
      limits.hold = statecache::Hold::none;
      const auto ticket = first->begin(ask, limits);
      EXPECT_TRUE(ticket);
      EXPECT_TRUE(first->reserve(*ticket, wants));
      return *ticket;
    };
    const Tokens prompt = counting(64), other = counting(64, 9000);
    const auto ticket = reserve(prompt);
    const auto mine = first->wait_slots(ticket, kPatience);
    ASSERT_TRUE(mine);
    ASSERT_EQ(mine->size(), 2U);
    Pair::fill(*first, *mine, std::byte{1});
    const auto joined = second->join(*first->ref(ticket));
    ASSERT_TRUE(joined);
    std::vector<statecache::Slot> theirs;
    // A slow machine may have let the reservation grow too old; then it must be gone whole.
    ASSERT_TRUE(eventually([&] {
      auto got = second->wait_slots(*joined, kPatience);
      if (got) std::ranges::move(*got, std::back_inserter(theirs));
      return theirs.size() == 2 || writing() == 0;
    }));
    if (theirs.size() == 2) {
      Pair::fill(*second, theirs, std::byte{2});
      EXPECT_EQ(number("status", "host", "objects"), 2);
    }
    // Nobody joins this one.
    const auto alone = reserve(other);
    const auto slots = first->wait_slots(alone, kPatience);
    ASSERT_TRUE(slots);
    Pair::fill(*first, *slots, std::byte{3});
    EXPECT_TRUE(eventually([&] { return writing() == 0; }));
    for (const auto id : {ticket, alone}) {
      EXPECT_TRUE(first->finish(id));
      EXPECT_TRUE(first->release(id));
    }
    EXPECT_TRUE(second->finish(*joined));
    EXPECT_TRUE(second->release(*joined));
    EXPECT_TRUE(eventually([&] { return tickets() == 0; })) << daemon.ctl({"clients"}).out;
    EXPECT_EQ(daemon.ctl({"audit"}).code, 0);
  }
}

TEST_F(Kill, ALeaseEndsWithTheLastOfItsMembers) {
  auto first = Pair::attach(daemon.socket(), 0);
  auto second = Pair::attach(daemon.socket(), 1);
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  const Tokens prompt = counting(64);
  statecache::Ask ask;
  ask.tokens = prompt;
  statecache::Limits limits;
  limits.hold = statecache::Hold::none;
  const auto saving = first->begin(ask, limits);
  ASSERT_TRUE(saving);
  ASSERT_TRUE(first->drain(kPatience));
  const auto shared = second->join(*first->ref(*saving));
  ASSERT_TRUE(shared);
  ASSERT_TRUE(second->drain(kPatience));
  const std::vector<statecache::Want> wants{{0, 0, 64, 0}, {1, 64, 64, 0}};
  ASSERT_TRUE(first->reserve(*saving, wants));
  const auto mine = first->wait_slots(*saving, kPatience);
  ASSERT_TRUE(mine);
  std::vector<statecache::Slot> theirs;
  ASSERT_TRUE(eventually([&] {
    auto got = second->wait_slots(*shared, kPatience);
    if (got) std::ranges::move(*got, std::back_inserter(theirs));
    return theirs.size() == 2;
  }));
  Pair::fill(*first, *mine, std::byte{1});
  EXPECT_EQ(number("status", "host", "objects"), 0) << "half of it is no object";
  Pair::fill(*second, theirs, std::byte{2});
  EXPECT_EQ(number("status", "host", "objects"), 2);
  EXPECT_TRUE(first->finish(*saving));
  EXPECT_TRUE(first->release(*saving));
  EXPECT_TRUE(second->finish(*shared));
  EXPECT_TRUE(second->release(*shared));

  const Tokens longer = counting(65);
  ask.tokens = longer;
  limits.hold = statecache::Hold::lease;
  const auto reading = first->begin(ask, limits);
  ASSERT_TRUE(reading);
  const auto lease = first->wait_lease(*reading, kPatience);
  ASSERT_TRUE(lease);
  EXPECT_EQ(lease->tokens, 64U);
  const auto ref = first->ref(*reading);
  const pid_t worker = member([&] {
    auto attached = Pair::attach(daemon.socket(), 1);
    if (!attached) return false;
    auto* const session = new Session(std::move(*attached));
    const auto joined = session->join(*ref);
    const auto got = session->wait_lease(*joined, kPatience);
    return got && got->tokens == 64 && *got->pieces.front().where.front().data == std::byte{2};
  });
  EXPECT_TRUE(first->finish(*reading));
  EXPECT_TRUE(first->release(*reading));
  EXPECT_TRUE(first->drain(kPatience));
  // The worker still reads.
  for (int i = 0; i < 5; ++i)
    EXPECT_GT(held(), 0);
  kill(worker);
  EXPECT_TRUE(eventually([&] { return held() == 0; }));
  EXPECT_TRUE(eventually([&] { return tickets() == 0; }));
  EXPECT_EQ(daemon.ctl({"audit"}).code, 0);
}

/// Engines killed at random moments of random work.
TEST_F(Kill, AtRandom) {
  Prng prng(21);
  for (int round = 0; round < 12; ++round) {
    const std::uint64_t seed = prng.next();
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      Prng random(seed);
      auto session = ToyEngine::attach(daemon.socket());
      if (!session) ::_exit(1);
      ToyEngine engine(*session);
      for (;;) {
        const auto length = static_cast<std::uint32_t>(64 + random.below(1500));
        const Tokens prompt =
            counting(length, static_cast<std::uint32_t>(1 + random.below(4) * 10'000));
        const auto hit = engine.restore(prompt);
        if (hit.leased && !hit.ok) ::_exit(2);
        if (random.chance(0.7)) static_cast<void>(engine.release(hit));
        static_cast<void>(engine.store(prompt, {length / 64 * 64}));
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + prng.below(150)));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "it saw a wrong byte: " << WEXITSTATUS(status);
    expect_nothing_left();
  }
  EXPECT_EQ(daemon.ctl({"flush"}).code, 0);
  EXPECT_NE(daemon.ctl({"--json", "verify"}).out.find("\"bad\":0"), std::string::npos);
}

}  // namespace
}  // namespace statecached::test

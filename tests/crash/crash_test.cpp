// kill -9 at seeded random moments while engines store and load. After each restart: every listed
// object reads back, everything that was reported durable is listed, every byte that comes back is
// the one that was stored, the drive's ledger is the sum of what is listed; over the rounds no
// space leaks.

#include "base/prng.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"
#include "tests/support/environment.hpp"

#include "statecache/admin.hpp"
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <atomic>
#include <map>
#include <set>
#include <thread>

namespace statecached::test {
namespace {

using Json = nlohmann::json;
using namespace std::chrono_literals;

std::optional<Json> ask(const std::string& socket,
                        const std::string& command,
                        const std::vector<std::string>& arguments = {}) {
  const auto reply = statecache::admin(socket, command, arguments, {}, 1min);
  if (!reply) return std::nullopt;
  return Json::parse(*reply, nullptr, false);
}

/// A conversation: prompts of it share their beginning.
Tokens prompt(Prng& prng, std::uint32_t stems) {
  const auto stem = static_cast<std::uint32_t>(prng.below(stems));
  return counting(static_cast<std::uint32_t>(64 + prng.below(500)), 1 + stem * 100'000);
}

/// An engine that works until the daemon is gone, and what it knows.
class Worker {
 public:
  Worker(const std::string& socket, std::string ns, std::uint64_t seed)
      : socket_(socket),
        ns_(std::move(ns)),
        prng_(seed),
        thread_([this] { work(); }) {}

  ~Worker() { thread_.join(); }

  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// A byte that was not what was stored.
  std::atomic<bool> wrong{false};
  std::atomic<std::uint64_t> stored{0}, hits{0};

 private:
  void work() {
    // The name is no part of a namespace's identity, the weights are.
    auto session = ToyEngine::attach(socket_, ns_, ns_ == "one" ? 1 : 2);
    if (!session) return;
    ToyEngine engine(*session);
    while (true) {
      const Tokens tokens = prompt(prng_, 12);
      if (prng_.chance(0.6)) {
        const auto length = static_cast<std::uint32_t>(tokens.size());
        const int count = engine.store(tokens, {length});
        if (count < 0) return;
        stored += static_cast<std::uint64_t>(count);
      } else {
        const auto got = engine.restore(tokens);
        if (got.ticket == 0 || (!got.ok && got.tokens == 0)) return;
        if (!got.ok) wrong = true;
        if (got.tokens > 0) ++hits;
        if (!engine.release(got)) return;
      }
    }
  }

  std::string socket_, ns_;
  Prng prng_;
  std::thread thread_;
};

/// What the events said is durable and has not gone since.
class Listener {
 public:
  void listen(const std::string& socket) {
    const auto reply = ask(socket, "events", {"since=" + std::to_string(last_), "limit=4096"});
    if (!reply || !reply->contains("events")) return;
    for (const Json& event : (*reply)["events"]) {
      last_ = event["number"];
      if (!event.contains("id")) continue;
      const std::string id = event["id"];
      const std::string kind = event["event"];
      // A shorter block goes when a longer one of its cell is stored; the others stay.
      const bool whole =
          event["group"] == 1 || event["end"].get<int>() - event["first"].get<int>() == 64;
      if (kind == "durable" && whole) durable.insert(id);
      if (kind == "dropped" || kind == "demoted") durable.erase(id);
    }
  }

  void restarted() { last_ = 0; }

  std::set<std::string> durable;

 private:
  std::uint64_t last_ = 0;
};

class Crash : public testing::Test {
 protected:
  void start() {
    ASSERT_TRUE(daemon.start()) << daemon.log();
    // `verify` waits until every row has come in.
    const auto report = ask(daemon.socket(), "verify");
    ASSERT_TRUE(report) << daemon.log();
    EXPECT_EQ((*report)["bad"], 0) << daemon.log();
    verified += (*report)["objects"].get<std::uint64_t>();
  }

  std::map<std::string, std::uint64_t> listed() {
    std::map<std::string, std::uint64_t> out;
    const auto reply = ask(daemon.socket(), "ls", {"tier=nvme", "limit=1000000"});
    if (!reply) return out;
    for (const Json& object : (*reply)["objects"])
      out.emplace(object["id"].get<std::string>(), object["bytes"].get<std::uint64_t>());
    return out;
  }

  std::uint64_t used() {
    const auto reply = ask(daemon.socket(), "status");
    return reply ? (*reply)["tiers"]["nvme"]["used"].get<std::uint64_t>() : UINT64_MAX;
  }

  /// Nothing runs: what the drive's ledger says is what the listed objects take.
  void ledger() {
    std::uint64_t sum = 0;
    for (int i = 0; i < 200; ++i) {  // deletes of a start may still be on their way
      sum = 0;
      for (const auto& [id, bytes] : listed())
        sum += bytes;
      if (used() == sum) return;
      std::this_thread::sleep_for(10ms);
    }
    FAIL() << used() << " bytes used, the objects take " << sum;
  }

  DaemonProcess daemon{{"nvme.capacity=256MiB",
                        "host.capacity=24MiB",
                        "policy.nvme_write=through",
                        "policy.demotion=always"}};
  std::uint64_t verified = 0;
};

TEST_F(Crash, KillsAtRandomMoments) {
  const std::uint64_t rounds = setting("STATECACHED_CRASH_ROUNDS", 20);
  Prng prng(setting("STATECACHED_CRASH_SEED", 1));
  Listener events;
  std::uint64_t stored = 0, hits = 0, durable = 0;
  start();
  for (std::uint64_t round = 0; round < rounds; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(30 + prng.below(400));
    {
      Worker one(daemon.socket(), "one", prng.next());
      Worker two(daemon.socket(), "two", prng.next());
      std::thread flusher;
      if (prng.chance(0.5))
        flusher = std::thread([this] { static_cast<void>(ask(daemon.socket(), "flush")); });
      while (std::chrono::steady_clock::now() < until)
        events.listen(daemon.socket());
      daemon.kill9();
      if (flusher.joinable()) flusher.join();
      stored += one.stored + two.stored;
      hits += one.hits + two.hits;
      EXPECT_FALSE(one.wrong || two.wrong);
    }
    events.restarted();
    start();
    if (HasFatalFailure()) return;
    const auto there = listed();
    for (const std::string& id : events.durable)
      EXPECT_TRUE(there.contains(id)) << id << " was reported durable";
    durable += events.durable.size();
    ledger();
    if (HasFailure()) return;
    // Room for the rounds to come; and what is removed leaves nothing behind.
    if (used() > 128ULL << 20U || round + 1 == rounds) {
      for (const char* ns : {"one", "two"})
        ASSERT_TRUE(ask(daemon.socket(), "rm", {std::string("namespace=") + ns}));
      events.durable.clear();
      ledger();
      EXPECT_EQ(used(), 0U);
    }
  }
  EXPECT_GT(stored, rounds);
  EXPECT_GT(hits, 0U);
  EXPECT_GT(durable, 0U);
  std::printf(
      "%llu kills: %llu objects stored, %llu restored prompts, %llu objects read back, %llu "
      "reported durable and found\n",
      static_cast<unsigned long long>(rounds),
      static_cast<unsigned long long>(stored),
      static_cast<unsigned long long>(hits),
      static_cast<unsigned long long>(verified),
      static_cast<unsigned long long>(durable));
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

}  // namespace
}  // namespace statecached::test

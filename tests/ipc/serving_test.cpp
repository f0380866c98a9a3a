// What an engine sees: hits, misses, restarts, refusals. Every restored byte is checked.

#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>

namespace statecached::test {
namespace {

using statecache::Grant;
using statecache::Session;

class Serving : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(daemon.stop(), 0) << daemon.log(); }

  Session attach(const std::string& name = "toy", std::uint8_t weights = 1) {
    auto session = ToyEngine::attach(daemon.socket(), name, weights);
    if (!session) {
      ADD_FAILURE() << session.status().text << "\n" << daemon.log();
      std::abort();
    }
    return std::move(*session);
  }

  /// A number that `status` tells, by its key.
  double status(const std::string& key) {
    return number_of(daemon.ctl({"--json", "status"}).out, key);
  }

  DaemonProcess daemon;
};

TEST_F(Serving, WhatOneStoredTheOtherReads) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session one = attach();
  const Tokens prompt = counting(300);
  EXPECT_EQ(ToyEngine(one).store(prompt, {256, 300}), 7);

  Session two = attach();
  ToyEngine engine(two);
  Tokens longer = prompt;
  longer.push_back(7);
  const auto all = engine.restore(longer);
  EXPECT_TRUE(all.ok);
  EXPECT_EQ(all.tokens, 300U);
  // One token is always left to compute, so the state after 300 does not serve a prompt of 300.
  const auto same = engine.restore(prompt);
  EXPECT_TRUE(same.ok);
  EXPECT_EQ(same.tokens, 256U);
  const auto shorter = engine.restore(counting(299));
  EXPECT_TRUE(shorter.ok);
  EXPECT_EQ(shorter.tokens, 256U);
  const auto other = engine.restore(counting(300, 2));
  EXPECT_TRUE(other.ok);
  EXPECT_EQ(other.tokens, 0U);
  for (const auto& r : {all, same, shorter, other})
    EXPECT_TRUE(engine.release(r));
  EXPECT_TRUE(two.drain(kPatience));
  // What is there is not stored again.
  EXPECT_EQ(engine.store(prompt, {256, 300}), 7);
  for (const Grant grant : engine.grants)
    EXPECT_EQ(grant, Grant::exists);
}

TEST_F(Serving, EmptyAndOneTokenPromptsMiss) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  EXPECT_GT(engine.store(counting(64), {1, 64}), 0);
  for (const std::uint32_t length : {0U, 1U}) {
    const auto miss = engine.restore(counting(length));
    EXPECT_TRUE(miss.ok) << length;
    EXPECT_EQ(miss.tokens, 0U);
    EXPECT_TRUE(engine.release(miss));
  }
}

TEST_F(Serving, ALongPrompt) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  const auto miss = engine.restore(counting(1'000'000));
  EXPECT_TRUE(miss.ok);
  EXPECT_EQ(miss.tokens, 0U);
  EXPECT_TRUE(engine.release(miss));
}

TEST_F(Serving, DomainsAndNamespacesNeverMix) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  const Tokens prompt = counting(200);
  EXPECT_EQ(ToyEngine(session).store(prompt, {192}), 5);
  statecache::Domain salted;
  salted.salt.fill(std::byte{9});
  EXPECT_EQ(ToyEngine(session, salted).restore(prompt).tokens, 0U);
  EXPECT_EQ(ToyEngine(session).restore(prompt).tokens, 192U);

  Session other = attach("toy", 2);
  EXPECT_NE(other.name(), session.name());
  EXPECT_TRUE(other.name().starts_with("toy@")) << other.name();
  EXPECT_EQ(ToyEngine(other).restore(prompt).tokens, 0U);
}

TEST_F(Serving, AKilledDaemonComesBackWarm) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const Tokens prompt = counting(1000);
  {
    Session session = attach();
    EXPECT_EQ(ToyEngine(session).store(prompt, {512, 960}), 18);
    const ProgramResult flush = daemon.ctl({"flush"});
    EXPECT_EQ(flush.code, 0) << flush.out << flush.err;
    daemon.kill9();
    // The engine goes on: everything answers at once that it must compute.
    EXPECT_FALSE(ToyEngine(session).restore(prompt).ok);
    EXPECT_FALSE(session.connected());
  }
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  const auto hit = engine.restore(prompt);
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 960U);
  for (const auto& piece : hit.pieces)
    EXPECT_EQ(piece.tier, statecache::Tier::nvme);
  EXPECT_TRUE(engine.release(hit));
  const ProgramResult verify = daemon.ctl({"--json", "verify"});
  EXPECT_EQ(verify.code, 0) << verify.out;
  EXPECT_NE(verify.out.find("\"bad\":0"), std::string::npos) << verify.out;
}

TEST_F(Serving, AGracefulStopWritesWhatIsCommitted) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const Tokens prompt = counting(500);
  {
    Session session = attach();
    EXPECT_GT(ToyEngine(session).store(prompt, {448}), 0);
  }
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  const auto hit = ToyEngine(session).restore(prompt);
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 448U);
}

TEST_F(Serving, AnEngineThatNeverReleasesHoldsUntilItDies) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto session = ToyEngine::attach(daemon.socket());
    char ok = 'n';
    if (session) {
      ToyEngine engine(*session);
      if (engine.store(counting(640), {576}) > 0 && engine.restore(counting(640)).tokens == 576)
        ok = 'y';
    }
    if (::write(pipe[1], &ok, 1) != 1) ::_exit(1);
    for (;;)
      ::pause();
  }
  char ok = 0;
  ASSERT_EQ(::read(pipe[0], &ok, 1), 1);
  EXPECT_EQ(ok, 'y');
  {
    // Others are served beside it, and it is not robbed.
    Session session = attach();
    EXPECT_EQ(ToyEngine(session).restore(counting(640)).tokens, 576U);
  }
  const std::string before = daemon.ctl({"--json", "clients"}).out;
  EXPECT_NE(before.find("\"pid\":" + std::to_string(child)), std::string::npos) << before;
  ::kill(child, SIGKILL);
  int wait_status = 0;
  ASSERT_EQ(::waitpid(child, &wait_status, 0), child);
  // The pidfd tells the daemon; its next answers show that everything came back.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  std::string after = before;
  while (after.find("\"pid\":" + std::to_string(child)) != std::string::npos &&
         std::chrono::steady_clock::now() < deadline) {
    after = daemon.ctl({"--json", "clients"}).out;
  }
  EXPECT_EQ(after.find("\"pid\":" + std::to_string(child)), std::string::npos) << after;
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST_F(Serving, UntrustedClientsReadInPlaceAndWriteThroughStaging) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const Tokens prompt = counting(500);
  {
    Session session = attach();
    EXPECT_TRUE(session.writable());
    EXPECT_GT(ToyEngine(session).store(prompt, {448}), 0);
  }
  EXPECT_EQ(daemon.stop(), 0);
  daemon.set({"socket.trust=none"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  EXPECT_FALSE(session.writable());
  ToyEngine engine(session);
  const auto hit = engine.restore(prompt);
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 448U);
  // Its own go through its staging area.
  EXPECT_EQ(engine.store(counting(128, 5000), {64, 128}), 4);
  EXPECT_TRUE(session.drain(kPatience));  // a commit ends when the copy is done
  EXPECT_EQ(engine.restore(counting(129, 5000)).tokens, 128U);
}

TEST_F(Serving, WhatCanNeverFitIsRefusedAtAttach) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  statecache::NamespaceSpec spec = ToyEngine::spec("huge");
  spec.groups[1].max_bytes = std::uint64_t{1} << 40U;
  const auto session = Session::attach(daemon.socket(), spec, ToyEngine::member(), kPatience);
  ASSERT_FALSE(session);
  EXPECT_FALSE(session.status().text.empty());
  Session fine = attach();
  EXPECT_GT(ToyEngine(fine).store(counting(64), {64}), 0);
}

TEST_F(Serving, ClientsAreLimited) {
  daemon.set({"limits.clients=1"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session first = attach();
  const auto second = ToyEngine::attach(daemon.socket());
  ASSERT_FALSE(second);
  EXPECT_NE(second.status().text.find("limits.clients"), std::string::npos) << second.status().text;
}

TEST_F(Serving, DrainingDeclinesAndStillReads) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  const Tokens prompt = counting(128);
  EXPECT_GT(engine.store(prompt, {64}), 0);
  EXPECT_EQ(daemon.ctl({"drain"}).code, 0);
  EXPECT_EQ(engine.store(counting(128, 900), {128}), 0);
  const auto hit = engine.restore(prompt);
  EXPECT_EQ(hit.tokens, 64U);
  EXPECT_TRUE(engine.release(hit));
  EXPECT_EQ(daemon.ctl({"drain", "--resume"}).code, 0);
  EXPECT_GT(engine.store(counting(128, 900), {128}), 0);
}

TEST_F(Serving, OperatorsSeeAndForget) {
  daemon.set({"device.capacity=32MiB",
              "device.backend=emulated",
              "nvme.engine=threads",
              "host.huge_pages=off"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  const Tokens prompt = counting(256);
  EXPECT_EQ(engine.store(prompt, {192}), 5);
  const auto hit = engine.restore(prompt);
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 192U);
  EXPECT_TRUE(engine.release(hit));
  EXPECT_TRUE(session.drain(kPatience));
  EXPECT_EQ(status("requests"), 2);
  EXPECT_EQ(status("hit_tokens"), 192);
  EXPECT_NE(daemon.ctl({"--json", "status"}).out.find("\"nvme_engine\":\"threads\""),
            std::string::npos);
  EXPECT_NE(daemon.ctl({"namespaces"}).out.find("toy"), std::string::npos);
  EXPECT_NE(daemon.ctl({"ls", "toy"}).out.find("@192"), std::string::npos);
  EXPECT_NE(daemon.ctl({"events"}).out.find("stored"), std::string::npos);
  EXPECT_NE(daemon.ctl({"config", "show"}).out.find("emulated"), std::string::npos);
  EXPECT_NE(daemon.ctl({"metrics"}).out.find("statecached_hit_tokens_total"), std::string::npos);
  {
    std::ofstream file(daemon.dir() + "/prompt");
    for (const auto token : prompt)
      file << token << "\n";
  }
  const ProgramResult explain =
      daemon.ctl({"--json", "explain", "toy", "--tokens", daemon.dir() + "/prompt"});
  EXPECT_EQ(explain.code, 0) << explain.err;
  EXPECT_NE(explain.out.find("\"checkpoint\":true"), std::string::npos) << explain.out;
  EXPECT_EQ(daemon.ctl({"rm", "toy"}).code, 0);
  EXPECT_EQ(engine.restore(prompt).tokens, 0U);
  EXPECT_EQ(daemon.ctl({"rm", "nobody"}).code, 1);
}

}  // namespace
}  // namespace statecached::test

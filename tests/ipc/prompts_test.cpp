// Prompts at the edges: content that tokens do not show, prompts and reservations larger than what
// is kept.

#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>

#include <map>

namespace statecached::test {
namespace {

using statecache::Grant;
using statecache::Session;

class Prompts : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(daemon.stop(), 0) << daemon.log(); }

  Session attach() {
    auto session = ToyEngine::attach(daemon.socket());
    if (!session) {
      ADD_FAILURE() << session.status().text << "\n" << daemon.log();
      std::abort();
    }
    return std::move(*session);
  }

  DaemonProcess daemon;
};

statecache::Mark image(std::uint32_t at, std::uint8_t content) {
  statecache::Mark out;
  out.at = at;
  out.length = 20;
  out.content.fill(std::byte{content});
  return out;
}

TEST_F(Prompts, AreTheSameOnlyWhereTheirMarksAre) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  const Tokens prompt = counting(300);
  engine.marks = {image(70, 1), image(200, 2)};
  ASSERT_EQ(engine.store(prompt, {64, 192, 256}), 8);

  const auto tokens_hit = [&](std::vector<statecache::Mark> marks) {
    engine.marks = std::move(marks);
    const auto hit = engine.restore(prompt);
    EXPECT_TRUE(hit.ok);
    EXPECT_TRUE(engine.release(hit));
    return hit.tokens;
  };
  EXPECT_EQ(tokens_hit({image(70, 1), image(200, 2)}), 256U);
  EXPECT_EQ(tokens_hit({image(70, 1), image(200, 3)}), 192U) << "another second image";
  EXPECT_EQ(tokens_hit({image(70, 1)}), 192U) << "no second image";
  EXPECT_EQ(tokens_hit({image(71, 1), image(200, 2)}), 64U) << "the first one token later";
  EXPECT_EQ(tokens_hit({}), 64U);
}

TEST_F(Prompts, OfAMillionTokensAreStoredAndFound) {
  daemon.set({"host.capacity=128MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  const Tokens prompt = counting(1'000'000);
  ASSERT_EQ(engine.store(prompt, {999'936}), 15'625 + 1);
  const auto hit = engine.restore(prompt);
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 999'936U);
  EXPECT_TRUE(engine.release(hit));
}

TEST_F(Prompts, LargerThanTheTierAreStoredInPartAndCounted) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  Session session = attach();
  ToyEngine engine(session);
  // 96 MiB of KV into an arena of 64 MiB, in one reservation: nothing of it can be given up to make
  // room.
  const Tokens prompt = counting(1'500'000);
  ASSERT_GT(engine.store(prompt, {}), 0);
  std::map<Grant, int> grants;
  for (const Grant grant : engine.grants)
    ++grants[grant];
  EXPECT_EQ(grants[Grant::granted], 64 * 256);
  EXPECT_EQ(grants[Grant::no_space], 1);
  // What hangs on a block that found no room is declined.
  EXPECT_EQ(grants[Grant::granted] + grants[Grant::no_space] + grants[Grant::declined], 23'438);
  const std::string metrics = daemon.ctl({"metrics"}).out;
  EXPECT_NE(metrics.find("refused_total{reason=\"capacity\"} 1\n"), std::string::npos) << metrics;

  // Refused while nothing is written below, never blocked; stored as soon as write-behind made
  // room.
  const Tokens small = counting(640, 5'000'000);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  int stored = 0;
  while (stored != 11 && std::chrono::steady_clock::now() < deadline) {
    stored = engine.store(small, {640});
    ASSERT_GE(stored, 0);
  }
  EXPECT_EQ(stored, 11);
  const auto hit = engine.restore(counting(641, 5'000'000));
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 640U);
  EXPECT_TRUE(engine.release(hit));
}

}  // namespace
}  // namespace statecached::test

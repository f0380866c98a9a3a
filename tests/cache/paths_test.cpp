// Drives that fail under a running cache, several drives together, the write budget, and prefetches
// that come too late: the production code over simulated drives and a virtual clock.

#include "base/prng.hpp"
#include "daemon/cache/cache.hpp"
#include "daemon/cache/write_budget.hpp"
#include "tests/nvme/switch_disk.hpp"
#include "tiers/catalog/memory_catalog.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/guarded_disk.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <optional>

namespace statecached {
namespace {

constexpr std::uint32_t kBlock = 16;
constexpr std::uint64_t kBlockBytes = 64 * kKiB;
constexpr std::uint32_t kTokens = 64;  ///< of a prompt: four blocks

NamespaceSpec spec() {
  NamespaceSpec s;
  s.name = "paths";
  Group kv;
  kv.name = "kv";
  kv.block_tokens = kBlock;
  kv.max_bytes = kBlockBytes;
  s.groups = {kv};
  s.cost.c1 = 2e12;
  return s;
}

class Paths : public ::testing::Test {
 protected:
  void build(std::size_t drives, std::uint64_t host = 8 * kMiB, WriteBudget* budget = nullptr) {
    clock.advance(std::chrono::seconds(1));
    CacheOptions options;
    options.host_bytes = host;
    options.device_bytes = device_bytes;
    options.follow_verdict = false;
    CacheSeams seams;
    seams.copier = &copies;
    seams.catalog = &catalog;
    seams.budget = budget;
    for (std::size_t i = 0; i < drives; ++i) {
      disks.push_back(std::make_unique<SimDisk>(drive_bytes, clock, SimDiskOptions{}));
      switches.push_back(std::make_unique<test::SwitchDisk>(*disks.back()));
      guards.push_back(
          std::make_unique<GuardedDisk>(std::make_unique<test::BorrowedDisk>(*switches.back()),
                                        clock,
                                        std::chrono::seconds(30),
                                        "drive " + std::to_string(i)));
      seams.disks.push_back(guards.back().get());
    }
    cache.emplace(options, seams, nullptr);
    ASSERT_TRUE(cache->recover(clock.now(), 0).has_value());
    NamespaceSpec space = spec();
    space.cost.c1 = c1;
    client = cache->attach(space, MemberInfo{}, clock.now()).value();
  }

  void run(Nanos time, Nanos step = std::chrono::microseconds(200)) {
    for (Nanos at{}; at < time; at += step) {
      clock.advance(step);
      if (on_step) on_step();
      static_cast<void>(cache->step(clock.now()));
    }
  }

  static std::vector<Token> prompt(std::uint32_t number) {
    std::vector<Token> out;
    for (std::uint32_t i = 0; i < kTokens; ++i)
      out.push_back(number * 1000 + i);
    return out;
  }

  TicketName begin(std::uint32_t number, HoldKind hold, Nanos deadline = {}) {
    return begin(prompt(number), hold, deadline);
  }

  TicketName begin(const std::vector<Token>& tokens, HoldKind hold, Nanos deadline = {}) {
    const TicketName name{random.next() | 1U, random.next()};
    BeginRequest request;
    request.tokens = tokens;
    request.hold = hold;
    request.deadline = deadline;
    EXPECT_TRUE(cache->begin(client, name, request, clock.now()).has_value());
    return name;
  }

  void end(const TicketName& name) {
    static_cast<void>(cache->finish(client, name, kTokens, 0, Nanos{1}, clock.now()));
    static_cast<void>(cache->release(client, name, clock.now()));
  }

  /// How many blocks were granted.
  std::size_t store(std::uint32_t number) { return store(prompt(number)); }

  std::size_t store(const std::vector<Token>& tokens) {
    const TicketName name = begin(tokens, HoldKind::none);
    std::vector<WantItem> wants;
    for (std::uint32_t first = 0; first < tokens.size(); first += kBlock)
      wants.push_back({0, first, first + kBlock, 0});
    const auto slots = cache->reserve(client, name, wants, clock.now());
    EXPECT_TRUE(slots.has_value());
    std::size_t granted = 0;
    for (const SlotGrant& slot : *slots) {
      if (slot.grant != GrantKind::granted) continue;
      EXPECT_TRUE(cache->commit(client, {slot.slot, 0}, clock.now()));
      ++granted;
    }
    end(name);
    return granted;
  }

  /// Tokens that a lease brings within `patience`; nothing: no lease came.
  std::optional<std::uint32_t> hit(std::uint32_t number, Nanos patience = std::chrono::seconds(1)) {
    const TicketName name = begin(number, HoldKind::lease);
    for (Nanos waited{}; cache->lease(name) == nullptr && waited < patience;
         waited += std::chrono::milliseconds(1))
      run(std::chrono::milliseconds(1));
    const Lease* lease = cache->lease(name);
    std::optional<std::uint32_t> out;
    if (lease != nullptr) out = lease->tokens;
    end(name);
    return out;
  }

  void flush() {
    bool done = false;
    cache->flush(
        [&](const FlushReport& report) {
          done = true;
          left_by_flush = report.failed_objects;
        },
        clock.now());
    for (int i = 0; i < 10'000 && !done; ++i)
      run(std::chrono::milliseconds(1));
    EXPECT_TRUE(done);
  }

  void audit() {
    const auto result = cache->audit();
    EXPECT_TRUE(result.has_value()) << result.error().message();
  }

  std::uint64_t device_bytes = 0;
  std::uint64_t drive_bytes = 64 * kMiB;
  double c1 = 2e12;  ///< FLOPs of a token
  Prng random{1};
  ManualClock clock;
  std::vector<std::unique_ptr<SimDisk>> disks;
  std::vector<std::unique_ptr<test::SwitchDisk>> switches;
  std::vector<std::unique_ptr<GuardedDisk>> guards;
  MemoryCatalog catalog;
  InstantCopies copies{{}};
  std::optional<Cache> cache;
  ClientIx client = 0;
  std::function<void()> on_step;
  std::uint64_t left_by_flush = 0;
};

TEST_F(Paths, AFlushHoldsWhatItWritesWhileDeviceBlocksComeDown) {
  // What is not worth the drive may be dropped from the host tier, but not once a flush has chosen
  // it.
  device_bytes = 2 * kMiB;
  c1 = 1e6;
  build(1, 2 * kMiB);
  for (std::uint32_t i = 0; i < 2000; ++i) {
    store(i);
    if (random.next() % 4 == 0) run(std::chrono::microseconds(1 + random.next() % 3000));
    if (i % 16 == 3) flush();
  }
  audit();
}

TEST_F(Paths, AFlushOfADeviceAndASmallDriveThatIsFullGetsDone) {
  // The drive keeps a sixteenth free, a megabyte: less than a batch may be, so it has to be a small
  // one. And what comes down from the device must not push itself out of the host tier for ever.
  device_bytes = 2 * kMiB;
  drive_bytes = 16 * kMiB;
  build(1, 2 * kMiB);
  for (std::uint32_t i = 0; i < 400; ++i) {
    store(i);
    run(std::chrono::microseconds(1 + random.next() % 3000));
    if (i % 40 != 39) continue;
    // not of the flush's first age any more
    run(std::chrono::minutes(2), std::chrono::milliseconds(50));
    store(1000 + i);
    flush();
    EXPECT_EQ(left_by_flush, 0U);
  }
  audit();
}

TEST_F(Paths, ADeviceWhoseStateCannotComeDownGivesSomeOfItUp) {
  // A beginning fills the host tier and has left the device; what is stored behind it fills the
  // device. The one may not leave, since the other hangs on it, and so the other cannot come down:
  // nothing could be stored any more.
  device_bytes = 2 * kMiB;
  build(1, 1 * kMiB);
  std::vector<Token> tokens;
  const auto grow = [&](std::uint32_t blocks) {
    for (std::uint32_t i = 0; i < blocks * kBlock; ++i)
      tokens.push_back(1'000'000 + static_cast<Token>(tokens.size()));
  };
  grow(16);
  EXPECT_EQ(store(tokens), 16U);
  flush();
  EXPECT_EQ(left_by_flush, 0U);
  EXPECT_EQ(cache->tier(Tier::host).objects, 16U);
  // Space for something else, that is given back.
  std::vector<Token> other(32 * kBlock, 7);
  const TicketName name = begin(other, HoldKind::none);
  std::vector<WantItem> wants;
  for (std::uint32_t first = 0; first < other.size(); first += kBlock)
    wants.push_back({0, first, first + kBlock, 0});
  const auto slots = cache->reserve(client, name, wants, clock.now());
  ASSERT_TRUE(slots.has_value());
  for (const SlotGrant& slot : *slots) {
    EXPECT_EQ(slot.grant, GrantKind::granted);
    // the first takes along what hangs on it
    static_cast<void>(cache->abandon(client, slot.slot, clock.now()));
  }
  end(name);
  EXPECT_EQ(cache->tier(Tier::device).objects, 0U);
  grow(32);
  EXPECT_EQ(store(tokens), 32U);
  run(std::chrono::milliseconds(100));
  EXPECT_EQ(cache->tier(Tier::host).objects, 16U)
      << "all of it is what the device's state hangs on";
  EXPECT_EQ(store(1), 4U);
  run(std::chrono::milliseconds(100));
  EXPECT_EQ(store(2), 4U);
  audit();
}

TEST_F(Paths, SeveralDrivesShareTheWork) {
  build(3);
  for (std::uint32_t i = 0; i < 200; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  for (const auto& disk : disks) {
    EXPECT_GT(disk->stats().bytes_written, 10 * kMiB);
    EXPECT_LT(disk->stats().bytes_written, 30 * kMiB);
  }
  for (std::uint32_t i = 0; i < 200; ++i)
    EXPECT_GE(hit(i), 48U) << i;
  for (const auto& disk : disks)
    EXPECT_GT(disk->stats().bytes_read, 5 * kMiB);
  audit();
}

TEST_F(Paths, ADriveThatHangsIsTakenOutAndTheOthersGoOn) {
  build(2);
  for (std::uint32_t i = 0; i < 120; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  switches[0]->hangs = true;
  // Requests wait for it until it is given up, and end then.
  std::vector<TicketName> waiting;
  for (std::uint32_t i = 0; i < 10; ++i)
    waiting.push_back(begin(i, HoldKind::lease));
  run(std::chrono::seconds(40), std::chrono::milliseconds(20));
  EXPECT_EQ(guards[0]->health(), DiskHealth::out);
  EXPECT_EQ(guards[1]->health(), DiskHealth::good);
  for (const TicketName& name : waiting) {
    const auto answer = cache->answer(name);
    ASSERT_TRUE(answer.has_value());
    EXPECT_NE((*answer)->state, TicketState::loading) << "a request is stuck";
    end(name);
  }
  audit();
  std::size_t hits = 0;
  for (std::uint32_t i = 0; i < 120; ++i) {
    const auto tokens = hit(i);
    ASSERT_TRUE(tokens.has_value()) << "a request is stuck";
    if (*tokens >= 48) ++hits;
  }
  EXPECT_GT(hits, 20U) << "what lies on the other drive is still found";
  EXPECT_LT(hits, 110U);
  const std::uint64_t before = disks[0]->stats().bytes_written;
  for (std::uint32_t i = 200; i < 300; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(disks[0]->stats().bytes_written, before);
  EXPECT_GE(hit(220), 48U);
  // It comes back to life: what it still owed is taken, and no memory is lost.
  switches[0]->hangs = false;
  run(std::chrono::seconds(1), std::chrono::milliseconds(5));
  audit();
  EXPECT_EQ(cache->tier(Tier::host).held_bytes, 0U);
  EXPECT_FALSE(cache->busy());
}

TEST_F(Paths, AReadOnlyDriveStillServes) {
  build(1);
  for (std::uint32_t i = 0; i < 60; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  switches[0]->write_error = EROFS;
  for (std::uint32_t i = 100; i < 110; ++i)
    store(i);
  flush();
  EXPECT_EQ(guards[0]->health(), DiskHealth::read_only);
  std::size_t hits = 0;
  for (std::uint32_t i = 0; i < 60; ++i)
    if (hit(i).value_or(0) >= 48) ++hits;
  EXPECT_GT(hits, 40U);
  audit();
}

TEST_F(Paths, AFullOrFailingDriveLosesNothingFromMemory) {
  for (const int error : {ENOSPC, EIO}) {
    cache.reset();
    disks.clear();
    switches.clear();
    guards.clear();
    catalog.crash();
    build(1);
    switches[0]->write_error = error;
    for (std::uint32_t i = 0; i < 10; ++i)
      EXPECT_EQ(store(i), 4U);
    flush();
    for (std::uint32_t i = 0; i < 10; ++i)
      EXPECT_GE(hit(i), 48U);
    EXPECT_GT(cache->counters().io_errors, 0U);
    EXPECT_EQ(cache->tier(Tier::nvme).objects, 0U);
    EXPECT_EQ(cache->tier(Tier::nvme).used, 0U);
    audit();
  }
}

TEST_F(Paths, BadReadsAreMissesAndTheRestIsServed) {
  build(1);
  for (std::uint32_t i = 0; i < 60; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  const auto miss = [&](std::uint32_t i) {
    const auto tokens = hit(i);
    return tokens.has_value() && *tokens == 0;
  };
  switches[0]->read_error = EIO;
  EXPECT_TRUE(miss(0));
  switches[0]->read_error = 0;
  EXPECT_TRUE(miss(0)) << "it is forgotten";
  EXPECT_GE(hit(1), 48U);
  EXPECT_EQ(guards[0]->health(), DiskHealth::good);
  audit();
}

TEST_F(Paths, AVanishedDriveMakesMissesNotErrors) {
  build(1);
  for (std::uint32_t i = 0; i < 60; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  switches[0]->read_error = ENODEV;
  switches[0]->write_error = ENODEV;
  for (std::uint32_t i = 0; i < 60; ++i) {
    ASSERT_TRUE(hit(i).has_value()) << i;
    audit();
  }
  EXPECT_EQ(guards[0]->health(), DiskHealth::out);
  EXPECT_EQ(cache->tier(Tier::nvme).objects, 0U);
  for (std::uint32_t i = 300; i < 310; ++i) {
    store(i);
    EXPECT_GE(hit(i), 48U) << "memory still serves";
  }
  audit();
}

TEST_F(Paths, APrefetchThatCannotBeInTimeIsRefusedAtOnce) {
  build(1);
  for (std::uint32_t i = 0; i < 60; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  const std::uint64_t loads = cache->counters().loads;
  // 256 KiB at 2 GB/s are 131 us.
  const TicketName late = begin(0, HoldKind::soft, std::chrono::microseconds(50));
  EXPECT_NE((*cache->answer(late))->state, TicketState::loading);
  EXPECT_EQ(cache->counters().loads, loads);
  EXPECT_GT(cache->counters().prefetch_refused, 0U);
  end(late);
  const TicketName early = begin(1, HoldKind::soft, std::chrono::milliseconds(50));
  EXPECT_EQ((*cache->answer(early))->state, TicketState::loading);
  // One read for many waiters.
  const std::uint64_t started = cache->counters().loads;
  const TicketName same = begin(1, HoldKind::lease);
  EXPECT_EQ(cache->counters().loads, started);
  run(std::chrono::milliseconds(10));
  EXPECT_EQ((*cache->answer(early))->state, TicketState::ready);
  ASSERT_NE(cache->lease(same), nullptr);
  EXPECT_GE(cache->lease(same)->tokens, 48U);
  end(early);
  end(same);
  audit();
}

TEST_F(Paths, ReadsThatNobodyWaitsForAnyMoreAreCalledBack) {
  build(1, 24 * kMiB);
  for (std::uint32_t i = 0; i < 200; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  const auto held = [&] { return cache->tier(Tier::host).held_bytes; };
  // More than the drive has under way; all but the last are given up.
  std::vector<TicketName> loading;
  for (std::uint32_t i = 0; i < 200 && loading.size() < 100; ++i) {
    const std::uint64_t before = cache->counters().loads;
    const TicketName name = begin(i, HoldKind::lease);
    if (cache->counters().loads == before) {
      end(name);
    } else {
      loading.push_back(name);
    }
  }
  ASSERT_GT(loading.size(), 40U) << "what host memory has no room for lies on the drive alone";
  const std::uint64_t asked = loading.size() * 3 * kBlockBytes;
  const std::uint64_t read = disks[0]->stats().bytes_read;
  for (std::size_t i = 0; i + 1 < loading.size(); ++i)
    end(loading[i]);
  run(std::chrono::milliseconds(500));
  EXPECT_NE(cache->lease(loading.back()), nullptr);
  EXPECT_LT(disks[0]->stats().bytes_read - read, asked / 2);
  EXPECT_EQ(cache->counters().io_errors, 0U);
  end(loading.back());
  EXPECT_EQ(held(), 0U);
  EXPECT_FALSE(cache->busy());
  audit();
}

TEST_F(Paths, WhoComesWhileAReadIsCalledBackGetsItAllTheSame) {
  build(1, 48 * kMiB);
  for (std::uint32_t i = 0; i < 200; ++i) {
    EXPECT_EQ(store(i), 4U);
    run(std::chrono::milliseconds(5));
  }
  flush();
  for (std::uint32_t round = 0; round < 200; ++round) {
    std::vector<TicketName> names;
    for (std::uint32_t i = 0; i < 30; ++i)
      names.push_back(begin(static_cast<std::uint32_t>(random.below(200)), HoldKind::lease));
    run(std::chrono::microseconds(random.below(3000)));
    for (const TicketName& name : names)
      end(name);
    // The same objects again, before, while or after the reads have been called back.
    run(std::chrono::microseconds(random.below(600)));
    EXPECT_GE(hit(static_cast<std::uint32_t>(random.below(200))).value_or(0), 48U) << round;
  }
  EXPECT_EQ(cache->counters().load_failures, 0U);
  audit();
}

// ---- rm and ls, a piece a step -----------------------------------------------------------------

TEST_F(Paths, RmAndLsWorkInPiecesAndSpareWhatIsStoredMeanwhile) {
  build(1);
  for (std::uint32_t i = 0; i < 200; ++i) {
    store(i);
    run(std::chrono::milliseconds(5));
  }
  flush();
  std::vector<ObjectStatus> listed;
  cache->list({cache->namespace_of(client), std::nullopt, Cache::Sort::depth, 150},
              [&](std::vector<ObjectStatus> objects) { listed = std::move(objects); });
  run(std::chrono::milliseconds(10));
  ASSERT_EQ(listed.size(), 150U);
  for (const ObjectStatus& object : listed)
    EXPECT_EQ(object.end, kBlock) << "the shallowest first";

  std::optional<std::uint64_t> removed;
  cache->remove_namespace(
      cache->namespace_of(client), [&](std::uint64_t count) { removed = count; }, clock.now());
  EXPECT_FALSE(removed) << "nothing is done in the caller's step";
  clock.advance(std::chrono::microseconds(10));
  static_cast<void>(cache->step(clock.now()));
  EXPECT_FALSE(removed) << "800 objects are more than one step's work";
  EXPECT_EQ(store(1000), 4U);
  for (int i = 0; i < 1000 && !removed; ++i)
    run(std::chrono::milliseconds(1));
  EXPECT_EQ(removed, 800U);
  for (std::uint32_t i = 0; i < 200; i += 7)
    EXPECT_EQ(hit(i), 0U) << i;
  EXPECT_GE(hit(1000).value_or(0), 48U) << "stored while rm was at work";
  run(std::chrono::milliseconds(100));
  EXPECT_LE(cache->tier(Tier::nvme).used, 4 * kBlockBytes);
  audit();
}

TEST_F(Paths, WhatIsStoredBehindWhatRmHasNotReachedGoesWithIt) {
  build(1, 64 * kMiB);
  for (std::uint32_t i = 0; i < 200; ++i)
    store(i);
  std::optional<std::uint64_t> removed;
  cache->remove_namespace(
      cache->namespace_of(client), [&](std::uint64_t count) { removed = count; }, clock.now());
  clock.advance(std::chrono::microseconds(10));
  static_cast<void>(cache->step(clock.now()));
  ASSERT_FALSE(removed);
  std::vector<Token> longer = prompt(199);
  for (std::uint32_t i = 0; i < kBlock; ++i)
    longer.push_back(7'000'000 + i);
  ASSERT_EQ(store(longer), 1U) << "its beginning is still there";
  for (int i = 0; i < 1000 && !removed; ++i)
    run(std::chrono::milliseconds(1));
  EXPECT_EQ(removed, 801U);
  EXPECT_EQ(store(longer), 5U) << "nothing dead is in the way";
  EXPECT_EQ(hit(199), kTokens - 1);
  audit();
}

// ---- the write budget --------------------------------------------------------------------------

TEST_F(Paths, TheBudgetHoldsUnderTwentyTimesItsLoad) {
  // 8 GiB a day are 9.5 MiB in the 100 seconds that are simulated; more than fifteen times as much
  // is stored.
  WriteBudgetOptions options;
  options.bytes_per_day = 8 * kGiB;
  options.burst = 2 * kMiB;
  WriteBudget budget(options, options.burst, clock.now());
  build(1, 4 * kMiB, &budget);
  on_step = [&] { budget.observe(disks[0]->stats().bytes_written); };
  const Instant start = clock.now();
  std::uint64_t stored = 0;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    stored += store(i) * kBlockBytes;
    run(std::chrono::milliseconds(100), std::chrono::milliseconds(10));
  }
  const double allowed =
      static_cast<double>(options.burst) +
      static_cast<double>(options.bytes_per_day) / 86'400 * seconds(clock.now() - start);
  const auto written = static_cast<double>(disks[0]->stats().bytes_written);
  EXPECT_GT(static_cast<double>(stored), 15 * allowed);
  EXPECT_LE(written, allowed);
  EXPECT_GT(written, 0.6 * allowed) << "what may be written is";
  EXPECT_GT(budget.status().held_back_bytes, stored / 2);
  EXPECT_EQ(cache->counters().refused[static_cast<std::size_t>(Reason::capacity)], 0U)
      << "what is held back leaves memory, nothing is refused for it";
  audit();
}

TEST_F(Paths, WhatWasHeldBackIsLookedAtAgainWhenTokensHaveCome) {
  WriteBudgetOptions options;
  options.bytes_per_day = 86'400 * kMiB;  // 1 MiB a second
  options.burst = 4 * kMiB;
  WriteBudget budget(options, 0, clock.now());
  build(1, 4 * kMiB, &budget);
  on_step = [&] { budget.observe(disks[0]->stats().bytes_written); };
  for (std::uint32_t i = 0; i < 16; ++i)
    store(i);  // the host tier is full
  run(std::chrono::milliseconds(100));
  ASSERT_GT(budget.status().held_back_objects, 0U);
  const std::uint64_t before = disks[0]->stats().bytes_written;
  run(std::chrono::seconds(60), std::chrono::milliseconds(10));
  EXPECT_GT(disks[0]->stats().bytes_written, before)
      << "nothing has been stored since; there is room now";
  audit();
}

TEST(WriteBudgetRule, SpendsOnWhatSavesMost) {
  Prng random(7);
  Instant now{Nanos{1}};
  WriteBudgetOptions options;
  options.bytes_per_day = 864 * kGiB;  // 10 MiB/s and a bit
  options.burst = 64 * kMiB;
  WriteBudget budget(options, options.burst, now);
  double offered = 0, taken = 0;
  std::uint64_t count = 0, written = 0;
  constexpr std::uint64_t kObjects = 40'000;
  for (std::uint64_t i = 0; i < kObjects; ++i) {
    now += std::chrono::milliseconds(5);  // 200 MiB/s are offered
    const double value = random.uniform();
    offered += value;
    if (!budget.worth(value, kMiB, now) || !budget.take(kMiB, now)) {
      budget.held_back(kMiB);
      continue;
    }
    taken += value;
    ++count;
    written += kMiB;
    budget.settle(kMiB);
    budget.observe(written);
    budget.observe(written);
  }
  const double allowed = 64.0 * kMiB + 864.0 * kGiB / 86'400 * 200;
  EXPECT_LE(static_cast<double>(written), allowed);
  EXPECT_GT(static_cast<double>(written), 0.8 * allowed);
  EXPECT_GT(taken / static_cast<double>(count), 1.5 * offered / kObjects);
  EXPECT_EQ(budget.status().held_back_bytes, (kObjects - count) * kMiB);
}

TEST(WriteBudgetRule, BytesUnderWayCountUntilTheAccountsShowThem) {
  const Instant now{Nanos{1}};
  WriteBudget budget({0, 8 * kMiB}, 8 * kMiB, now);
  EXPECT_EQ(budget.room(now), 7 * kMiB) << "an eighth is the catalog's";
  EXPECT_TRUE(budget.take(4 * kMiB, now));
  EXPECT_EQ(budget.room(now), 3 * kMiB);
  EXPECT_FALSE(budget.take(4 * kMiB, now));
  budget.settle(4 * kMiB);
  EXPECT_EQ(budget.room(now), 3 * kMiB) << "nobody has looked yet";
  budget.observe(2 * kMiB);
  EXPECT_EQ(budget.room(now), kMiB) << "this look may have begun before the end";
  budget.observe(4 * kMiB);
  EXPECT_EQ(budget.room(now), 3 * kMiB);
  budget.observe(9 * kMiB);
  EXPECT_EQ(budget.room(now), 0U);
  EXPECT_LT(budget.status().tokens, 0);
}

}  // namespace
}  // namespace statecached

// Keyed namespaces against a reference that knows nothing of trees: a chained key names its whole
// prefix, so what a run of keys finds is a question of which (group, key) pairs are stored.

#include "base/id_chain.hpp"
#include "base/prng.hpp"
#include "daemon/cache/cache.hpp"
#include "tiers/catalog/memory_catalog.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <set>

namespace statecached {
namespace {

constexpr std::uint32_t kPage = 16;

NamespaceSpec spec(bool states, std::uint32_t block = kPage, std::uint8_t key_bytes = 32) {
  NamespaceSpec s;
  s.name = "keyed";
  s.addressing = Addressing::keys;
  s.tokens_per_key = kPage;
  s.key_bytes = key_bytes;
  Group kv;
  kv.name = "kv";
  kv.block_tokens = block;
  kv.max_bytes = 4096;
  s.groups = {kv};
  if (states) {
    Group state;
    state.name = "state";
    state.need = Need::end;
    state.max_bytes = 8000;
    s.groups.push_back(state);
  }
  s.cost.c1 = 2e10;
  return s;
}

/// One conversation of a forest: page i of it is keys[i], chained over all before.
using Chain = std::vector<Digest>;

Digest next_key(const Digest& before, std::uint32_t content, std::uint8_t key_bytes) {
  std::array<std::byte, 36> bytes{};
  std::copy(before.bytes.begin(), before.bytes.end(), bytes.begin());
  for (std::size_t i = 0; i < 4; ++i)
    bytes[32 + i] = static_cast<std::byte>(content >> (8 * i));
  Digest out = sha256(bytes);
  std::fill(out.bytes.begin() + key_bytes, out.bytes.end(), std::byte{0});
  return out;
}

/// Conversations that share beginnings.
std::vector<Chain> forest(Prng& prng,
                          std::size_t count,
                          std::size_t length,
                          std::uint8_t key_bytes = 32) {
  std::vector<Chain> out;
  for (std::size_t c = 0; c < count; ++c) {
    Chain chain;
    if (c > 0) {
      const Chain& stem = out[prng.below(c)];
      chain.assign(stem.begin(),
                   stem.begin() + static_cast<std::ptrdiff_t>(prng.below(stem.size())));
    }
    while (chain.size() < length) {
      chain.push_back(next_key(chain.empty() ? Digest{} : chain.back(),
                               static_cast<std::uint32_t>(prng.below(1U << 30U)),
                               key_bytes));
    }
    out.push_back(std::move(chain));
  }
  return out;
}

struct World {
  explicit World(std::uint64_t seed,
                 const NamespaceSpec& ns,
                 std::uint64_t host = 256 * kMiB,
                 std::uint64_t nvme = 0)
      : prng(seed),
        space(ns),
        disk(std::max<std::uint64_t>(nvme, 2 * kMiB), clock, SimDiskOptions{}),
        host_bytes(host),
        with_disk(nvme > 0) {
    start();
  }

  void start() {
    CacheOptions options;
    options.host_bytes = host_bytes;
    options.follow_verdict = false;
    CacheSeams seams;
    seams.copier = &copies;
    if (with_disk) {
      seams.disks = {&disk};
      seams.catalog = &catalog;
    }
    cache.emplace(options, seams, nullptr);
    EXPECT_TRUE(cache->recover(clock.now(), 0).has_value());
    client = cache->attach(space, MemberInfo{}, clock.now()).value();
  }

  void step(int times = 1) {
    for (int i = 0; i < times; ++i) {
      clock.advance(std::chrono::milliseconds(1));
      static_cast<void>(cache->step(clock.now()));
    }
  }

  struct Run {
    const Chain* chain = nullptr;
    std::size_t from = 0, to = 0;
    bool depth_known = false, after_known = false;

    [[nodiscard]] std::uint32_t origin() const {
      return depth_known ? static_cast<std::uint32_t>(from) * kPage : 0;
    }

    [[nodiscard]] std::span<const Digest> keys() const {
      return std::span(*chain).subspan(from, to - from);
    }
  };

  TicketName begin(const Run& run, HoldKind hold) {
    BeginRequest request;
    request.keys = run.keys();
    if (run.after_known && run.from > 0) request.after = (*run.chain)[run.from - 1];
    if (run.depth_known) request.first_token = run.origin();
    request.hold = hold;
    const TicketName name{prng.next() | 1U, prng.next()};
    const auto answer = cache->begin(client, name, request, clock.now());
    EXPECT_TRUE(answer.has_value()) << (answer ? "" : answer.error().message());
    return name;
  }

  void end(const TicketName& name) {
    EXPECT_TRUE(cache->finish(client, name, 0, 0, {}, clock.now()).has_value());
    static_cast<void>(cache->release(client, name, clock.now()));
  }

  /// Stores random pages of the run; what was granted is in `stored`.
  void save(const Run& run, double share) {
    const TicketName name = begin(run, HoldKind::none);
    std::vector<WantItem> wants;
    for (std::size_t i = run.from; i < run.to; ++i) {
      const std::uint32_t first = run.origin() + static_cast<std::uint32_t>(i - run.from) * kPage;
      if (prng.chance(share)) wants.push_back({0, first, first + kPage, 0});
      if (space.groups.size() > 1 && prng.chance(share / 2))
        wants.push_back({1, first + kPage, first + kPage, 0});
    }
    const auto slots = cache->reserve(client, name, wants, clock.now());
    ASSERT_TRUE(slots.has_value());
    for (const SlotGrant& slot : *slots) {
      if (slot.grant != GrantKind::granted) continue;
      const std::size_t page = run.from + (slot.end - run.origin()) / kPage - 1;
      ASSERT_LT(page, run.to);
      ASSERT_TRUE(cache->commit(client, {slot.slot, 0}, clock.now()));
      stored.insert({slot.group, (*run.chain)[page]});
    }
    end(name);
  }

  /// The deepest point of the run that can be resumed from, and how far the KV goes, by the book.
  std::pair<std::uint32_t, std::uint32_t> expected(const Run& run) const {
    std::uint32_t best = 0, kv = run.origin();
    for (std::size_t i = run.from; i < run.to; ++i) {
      if (!stored.contains({0, (*run.chain)[i]})) break;
      kv += kPage;
      if (space.groups.size() == 1 || stored.contains({1, (*run.chain)[i]})) best = kv;
    }
    return {best, kv};
  }

  void check(const Run& run) {
    const TicketName name = begin(run, HoldKind::lease);
    for (int i = 0; i < 2000 && cache->lease(name) == nullptr; ++i)
      step();
    const Lease* lease = cache->lease(name);
    ASSERT_NE(lease, nullptr);
    const auto [best, kv] = expected(run);
    EXPECT_EQ(lease->tokens, best)
        << "pages " << run.from << " to " << run.to << (run.depth_known ? ", depth known" : "")
        << (run.after_known ? ", parent known" : "");
    EXPECT_EQ((*cache->answer(name))->stored, kv);
    std::uint32_t covered = run.origin();
    bool state = lease->tokens == 0 || space.groups.size() == 1;
    for (const Piece& piece : lease->pieces) {
      if (piece.group == 1) {
        state = piece.first == lease->tokens;
        continue;
      }
      EXPECT_EQ(piece.first, covered);
      covered += piece.valid;
    }
    if (best != 0) {
      EXPECT_EQ(covered, best);
    }
    EXPECT_TRUE(state);
    end(name);
  }

  Run random_run(const std::vector<Chain>& chains) {
    Run run;
    run.chain = &chains[prng.below(chains.size())];
    run.from = prng.chance(0.4) ? 0 : prng.below(run.chain->size());
    run.to = run.from + 1 + prng.below(run.chain->size() - run.from);
    run.depth_known = run.from == 0 ? prng.chance(0.7) : prng.chance(0.3);
    run.after_known = prng.chance(0.4);
    return run;
  }

  Prng prng;
  NamespaceSpec space;
  ManualClock clock;
  SimDisk disk;
  MemoryCatalog catalog;
  InstantCopies copies{{}};
  std::uint64_t host_bytes;
  bool with_disk;
  std::optional<Cache> cache;
  ClientIx client = 0;
  std::set<std::pair<std::uint16_t, Digest>> stored;
};

class Keyed : public testing::TestWithParam<int> {};

TEST_P(Keyed, RunsFindWhatIsStoredWhereverTheyBegin) {
  const int shape = GetParam();
  const std::uint8_t key_bytes = shape % 2 == 0 ? 32 : 18;
  World world(static_cast<std::uint64_t>(shape) + 1, spec(shape < 2, kPage, key_bytes));
  const auto chains = forest(world.prng, 12, 24, key_bytes);
  for (int round = 0; round < 600; ++round) {
    world.save(world.random_run(chains), round % 3 == 0 ? 1.0 : 0.8);
    if (testing::Test::HasFatalFailure()) return;
    world.check(world.random_run(chains));
    if (testing::Test::HasFatalFailure()) return;
    if (round % 20 == 0) {
      const auto audit = world.cache->audit();
      ASSERT_TRUE(audit.has_value()) << audit.error().message();
    }
  }
  EXPECT_EQ(world.cache->tickets(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Keyed, testing::Values(0, 1, 2, 3));

TEST(KeyedRuns, LinkUpWhenWhatIsBeforeThemIsSeen) {
  World world(9, spec(true));
  const auto chains = forest(world.prng, 1, 12);
  const Chain& chain = chains[0];
  const auto run = [&](std::size_t from, std::size_t to, bool depth, bool after) {
    return World::Run{&chain, from, to, depth, after};
  };
  world.save(run(8, 12, false, false), 1.0);  // nobody knows where
  world.save(run(4, 6, false, true), 1.0);    // its predecessor is known, but not where that is
  world.check(run(0, 12, true, false));       // nothing from the beginning on
  world.save(run(0, 4, true, false), 1.0);
  world.check(run(0, 12, true, false));  // 0 to 6
  world.save(run(6, 8, false, true), 1.0);
  world.check(run(0, 12, true, false));  // all of it
  world.check(run(9, 12, false, false));
  EXPECT_TRUE(world.cache->audit().has_value());
}

TEST(KeyedRuns, AnOpenTicketMovesWithItsRun) {
  World world(10, spec(true));
  const auto chains = forest(world.prng, 1, 8);
  const Chain& chain = chains[0];
  const TicketName late = world.begin({&chain, 4, 6, false, false}, HoldKind::none);
  const std::vector<WantItem> one{{0, 0, kPage, 0}};
  auto slots = world.cache->reserve(world.client, late, one, world.clock.now());
  ASSERT_TRUE(slots.has_value());
  ASSERT_EQ(slots->front().grant, GrantKind::granted);
  // goes through the middle of it; that page is being written
  world.save({&chain, 0, 8, true, false}, 1.0);
  ASSERT_TRUE(world.cache->commit(world.client, {slots->front().slot, 0}, world.clock.now()));
  world.stored.insert({0, chain[4]});
  // The open ticket goes on in its own coordinates.
  ASSERT_TRUE(world.cache->append_keys(world.client, late, std::span(chain).subspan(6, 2), kUnknown)
                  .has_value());
  const std::vector<WantItem> more{{0, kPage, 2 * kPage, 0},
                                   {0, 2 * kPage, 3 * kPage, 0},
                                   {0, 3 * kPage, 4 * kPage, 0},
                                   {1, 4 * kPage, 4 * kPage, 0}};
  slots = world.cache->reserve(world.client, late, more, world.clock.now());
  ASSERT_TRUE(slots.has_value());
  for (const SlotGrant& slot : *slots) {
    ASSERT_NE(slot.grant, GrantKind::declined) << slot.end;
    if (slot.grant != GrantKind::granted) continue;
    ASSERT_TRUE(world.cache->commit(world.client, {slot.slot, 0}, world.clock.now()));
    world.stored.insert({slot.group, chain[4 + slot.end / kPage - 1]});
  }
  for (std::size_t page = 5; page < 8; ++page)
    world.stored.insert({0, chain[page]});
  world.end(late);
  world.check({&chain, 0, 8, true, false});
  world.check({&chain, 4, 8, false, false});
  EXPECT_TRUE(world.cache->audit().has_value());
}

TEST(KeyedRuns, SurviveARestartFloatingOrNot) {
  World world(11, spec(true), 64 * kMiB, 256 * kMiB);
  const auto chains = forest(world.prng, 6, 16);
  for (int round = 0; round < 60; ++round)
    world.save(world.random_run(chains), 1.0);
  bool flushed = false;
  FlushReport report;
  world.cache->flush(
      [&](const FlushReport& done) {
        flushed = true;
        report = done;
      },
      world.clock.now());
  for (int i = 0; i < 20'000 && !flushed; ++i)
    world.step();
  ASSERT_TRUE(flushed);
  EXPECT_EQ(report.failed_objects, 0u) << report.why;
  world.cache.reset();
  world.start();
  for (int round = 0; round < 100; ++round) {
    world.check(world.random_run(chains));
    if (testing::Test::HasFatalFailure()) return;
  }
  const auto audit = world.cache->audit();
  EXPECT_TRUE(audit.has_value()) << audit.error().message();
}

TEST(KeyedRuns, EvictionKeepsTheLedgers) {
  World world(12, spec(true), 512 * kKiB, 2 * kMiB);
  const auto chains = forest(world.prng, 12, 24);
  for (int round = 0; round < 500; ++round) {
    world.save(world.random_run(chains), 1.0);
    world.step(3);
    const TicketName name = world.begin(world.random_run(chains), HoldKind::lease);
    world.step(5);
    if (const Lease* lease = world.cache->lease(name); lease != nullptr) {
      for (const Piece& piece : lease->pieces)
        ASSERT_LE(piece.first + piece.valid, lease->tokens);
    }
    ASSERT_TRUE(world.cache->cancel(world.client, name, world.clock.now()).has_value());
    if (round % 10 == 0) {
      const auto audit = world.cache->audit();
      ASSERT_TRUE(audit.has_value()) << audit.error().message();
    }
    EXPECT_LE(world.cache->tier(Tier::host).used, 512 * kKiB);
  }
}

TEST(KeyedRuns, BlocksOfSeveralPagesNeedTheirDepth) {
  World world(13, spec(false, 2 * kPage));
  const auto chains = forest(world.prng, 1, 8);
  BeginRequest request;
  request.keys = chains[0];
  EXPECT_FALSE(world.cache->begin(world.client, {1, 1}, request, world.clock.now()).has_value());
  request.first_token = 0;
  ASSERT_TRUE(world.cache->begin(world.client, {1, 2}, request, world.clock.now()).has_value());
  const std::vector<WantItem> wants{{0, 0, 2 * kPage, 0},
                                    {0, 2 * kPage, 3 * kPage, 0},
                                    {0, kPage, 2 * kPage, 0},
                                    {0, 0, kPage + 1, 0}};
  const auto slots = world.cache->reserve(world.client, {1, 2}, wants, world.clock.now());
  ASSERT_TRUE(slots.has_value());
  EXPECT_EQ((*slots)[0].grant, GrantKind::granted);
  EXPECT_EQ((*slots)[1].grant, GrantKind::granted);
  EXPECT_EQ((*slots)[2].grant, GrantKind::declined) << "not on the grid";
  EXPECT_EQ((*slots)[3].grant, GrantKind::declined) << "half a page";
}

TEST(KeyedRuns, NoDepthIsTooDeep) {
  NamespaceSpec s = spec(false, 65536);
  s.tokens_per_key = 65536;
  World world(16, s, 16 * kMiB);
  Chain chain;
  for (std::uint32_t i = 0; i < 20'000; ++i)
    chain.push_back(next_key(chain.empty() ? Digest{} : chain.back(), i, 32));
  std::size_t granted = 0, refused = 0;
  // each run goes on where the last one was
  for (std::size_t from = 0; from + 200 <= chain.size(); from += 100) {
    BeginRequest request;
    request.keys = std::span(chain).subspan(from, 200);
    const TicketName name{from + 1, 1};
    ASSERT_TRUE(world.cache->begin(world.client, name, request, world.clock.now()).has_value());
    std::vector<WantItem> wants;
    for (std::uint32_t i = 0; i < 200; ++i)
      wants.push_back({0, i * 65536, (i + 1) * 65536, 0});
    const auto slots = world.cache->reserve(world.client, name, wants, world.clock.now());
    ASSERT_TRUE(slots.has_value());
    for (const SlotGrant& slot : *slots) {
      granted += slot.grant == GrantKind::granted ? 1 : 0;
      refused += slot.grant == GrantKind::declined ? 1 : 0;
      if (slot.grant == GrantKind::granted)
        static_cast<void>(world.cache->commit(world.client, {slot.slot, 0}, world.clock.now()));
    }
    world.end(name);
  }
  EXPECT_GT(granted, 16'000u);
  EXPECT_GT(refused, 0u);
  const auto audit = world.cache->audit();
  EXPECT_TRUE(audit.has_value()) << audit.error().message();
}

class Lies : public testing::TestWithParam<std::uint32_t> {};

INSTANTIATE_TEST_SUITE_P(Blocks, Lies, testing::Values(1, 2));

TEST_P(Lies, KeysThatContradictEachOtherDoNoHarm) {
  const std::uint32_t block = GetParam() * kPage;
  World world(14, spec(true, block));
  Prng& prng = world.prng;
  Chain keys;
  for (std::uint32_t i = 0; i < 12; ++i)
    keys.push_back(next_key({}, i, 32));
  for (int round = 0; round < 2000; ++round) {  // any order, cycles and repetitions
    Chain lie;
    for (std::uint64_t i = 1 + prng.below(8); i > 0; --i)
      lie.push_back(keys[prng.below(keys.size())]);
    BeginRequest request;
    request.keys = lie;
    if (prng.chance(0.3)) request.after = keys[prng.below(keys.size())];
    if (block != kPage || prng.chance(0.3))
      request.first_token = static_cast<std::uint32_t>(prng.below(4)) * kPage;
    request.hold = HoldKind::lease;
    const TicketName name{prng.next() | 1U, prng.next()};
    ASSERT_TRUE(world.cache->begin(world.client, name, request, world.clock.now()).has_value());
    const std::uint32_t origin = request.first_token == kUnknown ? 0 : request.first_token;
    std::vector<WantItem> wants;
    const auto end = origin + static_cast<std::uint32_t>(lie.size()) * kPage;
    for (std::uint32_t first = (origin + block - 1) / block * block; first < end; first += block) {
      wants.push_back({0, first, std::min(first + block, end), 0});
    }
    wants.push_back({1, origin + kPage, origin + kPage, 0});
    const auto slots = world.cache->reserve(world.client, name, wants, world.clock.now());
    ASSERT_TRUE(slots.has_value());
    for (const SlotGrant& slot : *slots) {
      if (slot.grant == GrantKind::granted)
        static_cast<void>(world.cache->commit(world.client, {slot.slot, 0}, world.clock.now()));
    }
    ASSERT_TRUE(world.cache->cancel(world.client, name, world.clock.now()).has_value());
    if (round % 50 == 0) {
      const auto audit = world.cache->audit();
      ASSERT_TRUE(audit.has_value()) << audit.error().message();
    }
  }
}

/// Drafts that look ahead: an object that ends at e serves resuming at e - lookahead, of every
/// kind.
TEST(Lookahead, AnObjectServesSoManyTokensBeforeItsEnd) {
  NamespaceSpec s = spec(true);
  s.addressing = Addressing::tokens;
  s.tokens_per_key = s.key_bytes = 0;
  Group draft = s.groups[0];
  draft.name = "draft";
  draft.lookahead = 1;
  s.groups.push_back(draft);
  s.groups[1].lookahead = 2;
  World world(15, s);
  std::vector<Token> tokens(64);
  for (std::uint32_t i = 0; i < 64; ++i)
    tokens[i] = i;
  BeginRequest request;
  request.tokens = tokens;
  request.hold = HoldKind::none;
  ASSERT_TRUE(world.cache->begin(world.client, {1, 1}, request, world.clock.now()).has_value());
  // KV of 48 tokens in both; states that serve 46 (no draft KV is short of that), 47 and 48 (the
  // draft's is).
  std::vector<WantItem> wants;
  for (std::uint32_t first = 0; first < 48; first += kPage) {
    wants.push_back({0, first, first + kPage, 0});
    wants.push_back({2, first, first + kPage, 0});
  }
  for (const std::uint32_t end : {48U, 49U, 50U})
    wants.push_back({1, end, end, 0});
  const auto slots = world.cache->reserve(world.client, {1, 1}, wants, world.clock.now());
  ASSERT_TRUE(slots.has_value());
  for (const SlotGrant& slot : *slots) {
    ASSERT_EQ(slot.grant, GrantKind::granted);
    ASSERT_TRUE(world.cache->commit(world.client, {slot.slot, 0}, world.clock.now()));
  }
  request.hold = HoldKind::lease;
  const auto answer = world.cache->begin(world.client, {1, 2}, request, world.clock.now());
  ASSERT_TRUE(answer.has_value());
  ASSERT_EQ((*answer)->points.size(), 2u);
  EXPECT_EQ((*answer)->points[0].tokens, 46u);
  EXPECT_EQ((*answer)->points[1].tokens, 47u);
  EXPECT_EQ((*answer)->stored, 47u) << "the draft's last token serves the one before";
  const Lease* lease = world.cache->lease({1, 2});
  ASSERT_NE(lease, nullptr);
  EXPECT_EQ(lease->tokens, 47u);
  std::uint32_t kv = 0, ahead = 0;
  for (const Piece& piece : lease->pieces) {
    if (piece.group == 0) kv = piece.first + piece.valid;
    if (piece.group == 2) ahead = piece.first + piece.valid;
    if (piece.group == 1) {
      EXPECT_EQ(piece.first, 49u);
    }
  }
  EXPECT_EQ(kv, 47u);
  EXPECT_EQ(ahead, 48u);
}

}  // namespace
}  // namespace statecached

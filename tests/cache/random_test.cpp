// Random engines against the real cache over in-memory twins: after every request all ledgers add
// up, a lease covers its prefix without a gap, and capacity was never exceeded.

#include "base/prng.hpp"
#include "daemon/cache/cache.hpp"
#include "tiers/catalog/memory_catalog.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <tuple>

namespace statecached {
namespace {

constexpr std::uint32_t kBlock = 8;

NamespaceSpec spec() {
  NamespaceSpec s;
  s.name = "random";
  Group kv;
  kv.name = "kv";
  kv.block_tokens = kBlock;
  kv.max_bytes = kBlock * 1024;
  Group state;
  state.name = "state";
  state.need = Need::end;
  state.max_bytes = 12'000;
  s.groups = {kv, state};
  s.cost.c1 = 2e10;
  s.cost.c2 = 1e6;
  return s;
}

struct World {
  World(std::uint64_t seed,
        std::uint64_t device,
        std::uint64_t host,
        std::uint64_t nvme,
        PolicyName policy)
      : prng(seed),
        disk(std::max<std::uint64_t>(nvme, 2 * kMiB), clock, SimDiskOptions{}) {
    CacheOptions options;
    options.device_bytes = device;
    options.host_bytes = host;
    options.policy.name = policy;
    options.follow_verdict = false;
    CacheSeams seams;
    seams.copier = &copies;
    if (nvme > 0) {
      seams.disks = {&disk};
      seams.catalog = &catalog;
    }
    cache.emplace(options, seams, nullptr);
    EXPECT_TRUE(cache->recover(clock.now(), 0).has_value());
    MemberInfo member;
    client = cache->attach(spec(), member, clock.now()).value();
  }

  void step() {
    clock.advance(std::chrono::microseconds(50 + prng.below(2000)));
    static_cast<void>(cache->step(clock.now()));
  }

  /// A prompt that shares a random part of one of few stems.
  std::vector<Token> prompt() {
    std::vector<Token> tokens;
    const std::uint64_t stem = prng.below(4);
    const std::uint64_t length = 1 + prng.below(120);
    const std::uint64_t turn = prng.below(length + 1);
    const std::uint64_t tail = prng.below(3);
    for (std::uint64_t i = 0; i < length; ++i) {
      tokens.push_back(static_cast<Token>(i < turn ? stem * 1000 + i : 50'000 + tail * 1000 + i));
    }
    return tokens;
  }

  void check_lease(const Lease& lease, std::uint32_t have) {
    // What the engine has is not leased: the first piece follows it, or begins inside it.
    const auto kv = std::find_if(lease.pieces.begin(), lease.pieces.end(), [](const Piece& piece) {
      return piece.group == 0;
    });
    std::uint32_t covered = kv != lease.pieces.end() ? kv->first : std::min(have, lease.tokens);
    EXPECT_LE(covered, have);
    bool state = lease.tokens == 0;
    for (const Piece& piece : lease.pieces) {
      if (piece.group == 1) {
        state = state || piece.first == lease.tokens;
        continue;
      }
      EXPECT_EQ(piece.first, covered);
      covered = piece.first + piece.valid;
    }
    EXPECT_EQ(covered, lease.tokens);
    EXPECT_TRUE(state);
  }

  void run_one() {
    const std::vector<Token> tokens = prompt();
    const TicketName name{prng.next() | 1U, prng.next()};
    BeginRequest request;
    request.tokens = tokens;
    // Now and then the engine has some of it itself.
    if (prng.chance(0.2))
      request.have = {static_cast<std::uint32_t>(prng.below(tokens.size() + 1)), 0};
    request.hold = prng.chance(0.7) ? HoldKind::lease : HoldKind::soft;
    const auto answer = cache->begin(client, name, request, clock.now());
    ASSERT_TRUE(answer.has_value());
    const std::uint64_t waits = prng.below(12);
    for (std::uint64_t i = 0; i < waits; ++i)
      step();
    std::uint32_t from = 0;
    if (const Lease* lease = cache->lease(name); lease != nullptr) {
      check_lease(*lease, request.have.every);
      EXPECT_LT(lease->tokens, tokens.size());
      from = lease->tokens;
    } else if (prng.chance(0.8)) {
      const auto got = cache->acquire(client, name, kUnknown, request.have, clock.now());
      ASSERT_TRUE(got.has_value());
      check_lease(**got, request.have.every);
      from = (*got)->tokens;
    }
    std::vector<WantItem> wants;
    const auto size = static_cast<std::uint32_t>(tokens.size());
    for (std::uint32_t first = from / kBlock * kBlock; first < size; first += kBlock) {
      wants.push_back({0, first, std::min(first + kBlock, size), 0});
    }
    const auto wishes = (*cache->answer(name))->wishes;
    for (std::uint32_t at : wishes)
      wants.push_back({1, at, at, 0});
    wants.push_back({1, size, size, 0});
    const auto slots = cache->reserve(client, name, wants, clock.now());
    ASSERT_TRUE(slots.has_value());
    for (const SlotGrant& slot : *slots) {
      if (slot.grant != GrantKind::granted) continue;
      if (prng.chance(0.05)) {
        static_cast<void>(cache->abandon(client, slot.slot, clock.now()));
      } else {
        static_cast<void>(cache->commit(client, {slot.slot, 0}, clock.now()));
      }
      if (prng.chance(0.1)) step();
    }
    if (prng.chance(0.02)) {
      EXPECT_TRUE(cache->invalidate(client, clock.now()).has_value());
    }
    if (prng.chance(0.1)) {
      ASSERT_TRUE(cache->cancel(client, name, clock.now()).has_value());
    } else {
      ASSERT_TRUE(
          cache->finish(client, name, size, size - from, std::chrono::milliseconds(1), clock.now())
              .has_value());
      const auto released = cache->release(client, name, clock.now());
      static_cast<void>(released);  // gone already when nothing was left to release
    }
    step();
  }

  Prng prng;
  ManualClock clock;
  SimDisk disk;
  MemoryCatalog catalog;
  InstantCopies copies{{}};
  std::optional<Cache> cache;
  ClientIx client = 0;
};

class RandomEngines : public testing::TestWithParam<std::tuple<int, PolicyName>> {};

TEST_P(RandomEngines, LedgersAddUpAfterEveryRequest) {
  const auto [shape, policy] = GetParam();
  const std::uint64_t device = shape == 1 || shape == 3 ? 256 * kKiB : 0;
  const std::uint64_t host = shape == 3 ? 0 : 512 * kKiB;
  const std::uint64_t nvme = shape == 2 || shape == 3 ? 0 : 2 * kMiB;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed, device, host, nvme, policy);
    for (int i = 0; i < 120; ++i) {
      world.run_one();
      const auto audit = world.cache->audit();
      ASSERT_TRUE(audit.has_value()) << "request " << i << ": " << audit.error().message();
      if (testing::Test::HasFailure()) return;
    }
    for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) {
      EXPECT_LE(world.cache->tier(tier).peak, world.cache->tier(tier).capacity);
    }
    EXPECT_EQ(world.cache->tickets(), 0U);
    EXPECT_GT(world.cache->counters().hit_tokens[0] + world.cache->counters().hit_tokens[1] +
                  world.cache->counters().hit_tokens[2],
              0U);
    EXPECT_GT(world.cache->counters().evictions, 0U);
    world.cache->detach(world.client, world.clock.now());
    for (int i = 0; i < 2000 && world.cache->busy(); ++i)
      world.step();
    EXPECT_FALSE(world.cache->busy());
    EXPECT_EQ(world.cache->tier(Tier::host).held_bytes, 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         RandomEngines,
                         testing::Combine(testing::Values(0, 1, 2, 3),
                                          testing::Values(PolicyName::marconi,
                                                          PolicyName::lru,
                                                          PolicyName::marconi_paper,
                                                          PolicyName::s3fifo,
                                                          PolicyName::gdsf)));

}  // namespace
}  // namespace statecached

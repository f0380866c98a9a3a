// What a request has stored is still there when the rest of it comes, however much others store
// meanwhile.

#include "daemon/cache/cache.hpp"
#include "tiers/host/copier.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <optional>

namespace statecached {
namespace {

constexpr std::uint32_t kBlock = 16;
constexpr std::uint64_t kHostBytes = 1024 * 1024;

class Tails : public testing::Test {
 protected:
  Tails() {
    CacheOptions options;
    options.host_bytes = kHostBytes;
    CacheSeams seams;
    seams.copier = &copies;
    cache.emplace(options, seams, nullptr);
    EXPECT_TRUE(cache->recover(clock.now(), 0).has_value());
    NamespaceSpec spec;
    spec.name = "tails";
    Group kv;
    kv.name = "kv";
    kv.block_tokens = kBlock;
    kv.max_bytes = 4096;
    Group state;
    state.name = "state";
    state.need = Need::end;
    state.max_bytes = 4096;
    spec.groups = {kv, state};
    spec.cost.c1 = 2e10;
    client = cache->attach(spec, MemberInfo{}, clock.now()).value();
  }

  TicketName begin(const std::vector<Token>& tokens) {
    const TicketName name{++names, 7};
    BeginRequest request;
    request.tokens = tokens;
    request.hold = HoldKind::none;
    EXPECT_TRUE(cache->begin(client, name, request, clock.now()).has_value());
    return name;
  }

  /// Stores blocks [from, to) of it, in tokens, and a state at `to` when `state`. How many were
  /// granted.
  std::size_t store(const TicketName& name, std::uint32_t from, std::uint32_t to, bool state) {
    std::vector<WantItem> wants;
    for (std::uint32_t first = from; first < to; first += kBlock)
      wants.push_back({0, first, first + kBlock, 0});
    if (state) wants.push_back({1, to, to, 0});
    const auto slots = cache->reserve(client, name, wants, clock.now());
    EXPECT_TRUE(slots.has_value());
    std::size_t granted = 0;
    for (const SlotGrant& slot : *slots) {
      if (slot.grant == GrantKind::granted && cache->commit(client, {slot.slot, 0}, clock.now()))
        ++granted;
    }
    clock.advance(std::chrono::milliseconds(1));
    static_cast<void>(cache->step(clock.now()));
    return granted;
  }

  void end(const TicketName& name) {
    EXPECT_TRUE(cache->finish(client, name, 0, 0, Nanos{}, clock.now()).has_value());
    // gone already when nothing was left to release
    static_cast<void>(cache->release(client, name, clock.now()));
  }

  static std::vector<Token> tokens(std::uint32_t from, std::uint32_t count) {
    std::vector<Token> out(count);
    std::iota(out.begin(), out.end(), from);
    return out;
  }

  ManualClock clock;
  InstantCopies copies{{}};
  std::optional<Cache> cache;
  ClientIx client = 0;
  std::uint64_t names = 0;
};

TEST_F(Tails, WhatARequestStoredStaysUntilItIsFinished) {
  const std::uint32_t half = 16 * kBlock;
  const TicketName slow = begin(tokens(1, 2 * half));
  // KV without a state below it: by itself it is worth nothing.
  EXPECT_EQ(store(slow, 0, half, false), 16U);
  for (std::uint32_t other = 1; other <= 60; ++other) {
    const TicketName name = begin(tokens(other * 100'000, half));
    store(name, 0, half, true);
    end(name);
  }
  EXPECT_GT(cache->counters().evictions, 0U);
  EXPECT_EQ(store(slow, half, 2 * half, true), 17U);
  EXPECT_GT(cache->tier(Tier::host).held_bytes, 0U);
  end(slow);
  EXPECT_EQ(cache->tier(Tier::host).held_bytes, 0U);
  const auto audit = cache->audit();
  EXPECT_TRUE(audit.has_value()) << audit.error().message();
}

TEST_F(Tails, WhatItFoundStoredStaysToo) {
  const std::uint32_t half = 16 * kBlock;
  const TicketName first = begin(tokens(1, half));
  EXPECT_EQ(store(first, 0, half, false), 16U);
  end(first);
  const TicketName slow = begin(tokens(1, 2 * half));
  EXPECT_EQ(store(slow, 0, half, false), 0U);  // all of it exists
  for (std::uint32_t other = 1; other <= 60; ++other) {
    const TicketName name = begin(tokens(other * 100'000, half));
    store(name, 0, half, true);
    end(name);
  }
  EXPECT_EQ(store(slow, half, 2 * half, true), 17U);
  end(slow);
  EXPECT_EQ(cache->tier(Tier::host).held_bytes, 0U);
}

}  // namespace
}  // namespace statecached

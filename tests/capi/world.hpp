#pragma once
// A daemon, and sessions of the C API attached to it.

#include "tests/support/daemon_process.hpp"

#include "statecache/statecache.h"

#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace statecached::test {

inline constexpr std::uint32_t kBlock = 16;
inline constexpr std::uint64_t kTokenBytes = 512;
inline constexpr std::uint64_t kStateBytes = 9000;
inline constexpr std::int64_t kPatience = 20'000'000;

inline std::vector<std::uint32_t> counting(std::uint32_t count, std::uint32_t from) {
  std::vector<std::uint32_t> out(count);
  std::iota(out.begin(), out.end(), from);
  return out;
}

/// One byte for each object and shard: what the tests write and look for.
inline unsigned char mark_of(unsigned group, unsigned first, unsigned shard, unsigned seed) {
  return static_cast<unsigned char>(1 + (group * 83 + first * 7 + shard * 31 + seed * 13) % 251);
}

class CApi : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(daemon_.start()) << daemon_.log(); }

  void TearDown() override {
    for (statecache_session* session : sessions_)
      statecache_detach(session);
  }

  using Groups = std::array<statecache_group, 3>;

  /// Groups: 0 KV of `world` shards, 1 a sliding window, 2 a state of `world` shards; `change`
  /// makes others of them.
  statecache_session* attach(
      std::uint16_t rank = 0,
      std::uint16_t world = 1,
      const char* name = "capi",
      const std::function<void(statecache_namespace&, Groups&)>& change = {}) {
    Groups groups{};
    groups.fill(statecache_group STATECACHE_GROUP_INIT);
    groups[0].name = "kv";
    groups[0].block_tokens = kBlock;
    groups[0].max_bytes = kBlock * kTokenBytes;
    groups[0].shards = world;
    groups[1] = groups[0];
    groups[1].name = "window";
    groups[1].need = STATECACHE_LAST;
    groups[1].window = 24;
    groups[1].shards = 1;
    groups[2].name = "state";
    groups[2].need = STATECACHE_END;
    groups[2].max_bytes = kStateBytes;
    groups[2].shards = world;
    statecache_cost cost = STATECACHE_COST_INIT;
    cost.c1 = 15e9;
    statecache_namespace space = STATECACHE_NAMESPACE_INIT;
    space.name = name;
    space.model.bytes[0] = static_cast<std::uint8_t>(world);
    space.groups = groups.data();
    space.group_count = static_cast<std::uint32_t>(groups.size());
    space.cost = &cost;
    if (change) change(space, groups);
    const std::array<std::uint16_t, 3> shards{rank, 0, rank};
    statecache_member member = STATECACHE_MEMBER_INIT;
    member.engine.bytes[5] = 9;
    member.rank = rank;
    member.world = world;
    member.shards = shards.data();
    member.shard_count = 3;
    member.program = "capi test";
    statecache_session* session = nullptr;
    EXPECT_EQ(statecache_attach(daemon_.socket().c_str(), &space, &member, kPatience, &session),
              STATECACHE_OK)
        << statecache_last_error();
    sessions_.push_back(session);
    return session;
  }

  static statecache_ticket begin(statecache_session* session,
                                 const std::vector<std::uint32_t>& tokens,
                                 statecache_hold hold,
                                 const statecache_domain* domain = nullptr,
                                 const std::vector<statecache_mark>& marks = {}) {
    statecache_ask ask = STATECACHE_ASK_INIT;
    ask.tokens = tokens.data();
    ask.token_count = tokens.size();
    ask.domain = domain;
    ask.marks = marks.data();
    ask.mark_count = marks.size();
    statecache_limits limits = STATECACHE_LIMITS_INIT;
    limits.hold = hold;
    statecache_ticket ticket = 0;
    EXPECT_EQ(statecache_begin(session, &ask, &limits, &ticket), STATECACHE_OK)
        << statecache_last_error();
    return ticket;
  }

  static statecache_want want(std::uint32_t group, std::uint32_t first, std::uint32_t end) {
    statecache_want out = STATECACHE_WANT_INIT;
    out.group = group;
    out.first = first;
    out.end = end;
    return out;
  }

  /// KV, window and the state at `state` of `tokens` tokens.
  static std::vector<statecache_want> wants_of(std::uint32_t tokens, std::uint32_t state) {
    std::vector<statecache_want> out;
    for (std::uint32_t first = 0; first < tokens; first += kBlock) {
      out.push_back(want(0, first, std::min(first + kBlock, tokens)));
      out.push_back(want(1, first, std::min(first + kBlock, tokens)));
    }
    out.push_back(want(2, state, state));
    return out;
  }

  static void fill(const statecache_slot& slot, unsigned seed) {
    for (std::uint32_t e = 0; e < slot.extent_count; ++e) {
      std::memset(slot.where[e].data,
                  mark_of(slot.group, slot.first, slot.shard, seed),
                  slot.where[e].bytes);
    }
  }

  /// Takes, writes and commits what was granted; how many.
  static std::size_t write_granted(statecache_session* session,
                                   statecache_ticket ticket,
                                   unsigned seed) {
    statecache_slots slots = STATECACHE_SLOTS_INIT;
    EXPECT_EQ(statecache_wait_slots(session, ticket, kPatience, &slots), STATECACHE_OK)
        << statecache_last_error();
    std::vector<statecache_filled> filled;
    for (std::size_t i = 0; i < slots.count; ++i) {
      if (slots.items[i].grant != STATECACHE_GRANTED) continue;
      fill(slots.items[i], seed);
      statecache_filled item = STATECACHE_FILLED_INIT;
      item.slot = slots.items[i].id;
      filled.push_back(item);
    }
    statecache_slots_clear(&slots);
    EXPECT_EQ(statecache_commit(session, filled.data(), filled.size()), STATECACHE_OK);
    return filled.size();
  }

  static void end(statecache_session* session,
                  statecache_ticket ticket,
                  const statecache_report* report = nullptr) {
    EXPECT_EQ(statecache_finish(session, ticket, report), STATECACHE_OK) << statecache_last_error();
    EXPECT_EQ(statecache_settle(session, ticket, kPatience), STATECACHE_OK)
        << statecache_last_error();
    EXPECT_EQ(statecache_release(session, ticket), STATECACHE_OK) << statecache_last_error();
  }

  std::size_t store(statecache_session* session,
                    const std::vector<std::uint32_t>& tokens,
                    std::uint32_t state,
                    unsigned seed,
                    const statecache_domain* domain = nullptr,
                    const std::vector<statecache_mark>& marks = {}) {
    const statecache_ticket ticket = begin(session, tokens, STATECACHE_HOLD_NONE, domain, marks);
    const auto wants = wants_of(static_cast<std::uint32_t>(tokens.size()), state);
    EXPECT_EQ(statecache_reserve(session, ticket, wants.data(), wants.size()), STATECACHE_OK);
    const std::size_t written = write_granted(session, ticket, seed);
    statecache_report report = STATECACHE_REPORT_INIT;
    report.computed = report.prefilled = static_cast<std::uint32_t>(tokens.size());
    report.prefill_us = 100'000;
    end(session, ticket, &report);
    return written;
  }

  /// The depth of the lease; every byte of it is what store() wrote.
  static std::uint32_t restore(statecache_session* session,
                               const std::vector<std::uint32_t>& tokens,
                               unsigned seed,
                               const statecache_domain* domain = nullptr,
                               const std::vector<statecache_mark>& marks = {}) {
    const statecache_ticket ticket = begin(session, tokens, STATECACHE_HOLD_LEASE, domain, marks);
    statecache_lease lease = STATECACHE_LEASE_INIT;
    EXPECT_EQ(statecache_wait_lease(session, ticket, kPatience, &lease), STATECACHE_OK)
        << statecache_last_error();
    const std::uint32_t depth = lease.tokens;
    std::map<unsigned, std::uint32_t> seen;
    for (std::size_t i = 0; i < lease.piece_count; ++i) {
      const statecache_piece& piece = lease.pieces[i];
      ++seen[piece.group];
      std::uint64_t bytes = 0;
      for (std::uint32_t e = 0; e < piece.extent_count; ++e) {
        bytes += piece.where[e].bytes;
        const auto* data = static_cast<const unsigned char*>(piece.where[e].data);
        for (std::size_t b = 0; b < piece.where[e].bytes; b += 97) {
          EXPECT_EQ(data[b], mark_of(piece.group, piece.first, piece.shard, seed));
        }
      }
      EXPECT_EQ(bytes, piece.bytes);
    }
    if (depth != 0) {
      EXPECT_EQ(seen[0], (depth + kBlock - 1) / kBlock);
      EXPECT_LT(seen[1], seen[0]) << "a window of 24 tokens needs 2 or 3 blocks of 16";
      EXPECT_EQ(seen[2], 1u);
    }
    statecache_lease_clear(&lease);
    end(session, ticket);
    return depth;
  }

  DaemonProcess daemon_;
  std::vector<statecache_session*> sessions_;
};

}  // namespace statecached::test

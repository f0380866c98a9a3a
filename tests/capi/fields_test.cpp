// Each field of what goes in: that it arrives, by what it changes. tests/python/test_fields.py is
// the same in Python.

#include "tests/capi/world.hpp"

#include <algorithm>
#include <set>

namespace statecached::test {
namespace {

class CApiFields : public CApi {
 protected:
  static statecache_limits limits() {
    statecache_limits out = STATECACHE_LIMITS_INIT;
    out.hold = STATECACHE_HOLD_LEASE;
    return out;
  }

  /// Depth of the lease, and where the blocks of group 0 in it begin.
  static std::pair<std::uint32_t, std::set<std::uint32_t>> lease(
      statecache_session* session,
      const std::vector<std::uint32_t>& tokens,
      const statecache_limits& limits) {
    statecache_ask ask = STATECACHE_ASK_INIT;
    ask.tokens = tokens.data();
    ask.token_count = tokens.size();
    statecache_ticket ticket = 0;
    EXPECT_EQ(statecache_begin(session, &ask, &limits, &ticket), STATECACHE_OK)
        << statecache_last_error();
    statecache_lease out = STATECACHE_LEASE_INIT;
    EXPECT_EQ(statecache_wait_lease(session, ticket, kPatience, &out), STATECACHE_OK)
        << statecache_last_error();
    std::set<std::uint32_t> blocks;
    for (std::size_t i = 0; i < out.piece_count; ++i) {
      if (out.pieces[i].group == 0) blocks.insert(out.pieces[i].first);
    }
    const std::uint32_t depth = out.tokens;
    statecache_lease_clear(&out);
    end(session, ticket);
    return {depth, blocks};
  }

  /// The answer about these tokens; the caller clears it.
  static statecache_answer answer_for(statecache_session* session,
                                      const std::vector<std::uint32_t>& tokens) {
    const statecache_ticket ticket = begin(session, tokens, STATECACHE_HOLD_SOFT);
    statecache_answer out = STATECACHE_ANSWER_INIT;
    EXPECT_EQ(statecache_wait(session, ticket, kPatience, nullptr, &out), STATECACHE_OK)
        << statecache_last_error();
    end(session, ticket);
    return out;
  }

  /// What one want is answered with.
  static statecache_slot slot_for(statecache_session* session, const statecache_want& want) {
    const statecache_ticket ticket = begin(session, counting(60, 500), STATECACHE_HOLD_NONE);
    EXPECT_EQ(statecache_reserve(session, ticket, &want, 1), STATECACHE_OK);
    statecache_slots slots = STATECACHE_SLOTS_INIT;
    EXPECT_EQ(statecache_wait_slots(session, ticket, kPatience, &slots), STATECACHE_OK)
        << statecache_last_error();
    EXPECT_EQ(slots.count, 1U);
    statecache_slot out = slots.items[0];
    out.where = nullptr;
    EXPECT_EQ(statecache_abandon(session, &out.id, 1), STATECACHE_OK);
    statecache_slots_clear(&slots);
    end(session, ticket);
    return out;
  }
};

TEST_F(CApiFields, Limits) {
  statecache_session* session = attach();
  store(session, counting(64, 1), 32, 1);
  store(session, counting(64, 1), 64, 1);
  const auto longer = counting(65, 1);
  EXPECT_EQ(lease(session, counting(64, 1), limits()).first, 32U) << "one token is kept back";
  statecache_limits all = limits();
  all.keep_back = 0;
  EXPECT_EQ(lease(session, counting(64, 1), all).first, 32U)
      << "always: it is the one that gives the logits";
  EXPECT_EQ(lease(session, longer, limits()).first, 64U);
  statecache_limits two = limits();
  two.keep_back = 2;
  EXPECT_EQ(lease(session, longer, two).first, 32U);
  statecache_limits less = limits();
  less.at_most = 63;
  EXPECT_EQ(lease(session, longer, less).first, 32U);
  statecache_limits hurry = limits();
  hurry.priority = 90;
  hurry.deadline_us = 5'000'000;
  hurry.members = 1;
  EXPECT_EQ(lease(session, longer, hurry).first, 64U);
  statecache_limits own = limits();
  own.have_every = 48;
  own.have_end = 32;
  const auto [depth, blocks] = lease(session, longer, own);
  EXPECT_EQ(depth, 64U);
  EXPECT_EQ(blocks, std::set<std::uint32_t>{48}) << "what the engine has is not leased";

  const statecache_ticket ticket = begin(session, longer, STATECACHE_HOLD_SOFT);
  statecache_answer answer = STATECACHE_ANSWER_INIT;
  ASSERT_EQ(statecache_wait(session, ticket, kPatience, nullptr, &answer), STATECACHE_OK);
  EXPECT_EQ(answer.best, 64U);
  statecache_answer_clear(&answer);
  ASSERT_EQ(statecache_acquire(session, ticket, 40, nullptr), STATECACHE_OK);
  statecache_lease taken = STATECACHE_LEASE_INIT;
  ASSERT_EQ(statecache_wait_lease(session, ticket, kPatience, &taken), STATECACHE_OK)
      << statecache_last_error();
  EXPECT_EQ(taken.tokens, 32U);
  statecache_lease_clear(&taken);
  end(session, ticket);
}

TEST_F(CApiFields, RefreshFindsWhatOthersStoredSince) {
  statecache_session* session = attach();
  statecache_session* other = attach();
  const std::array<statecache_ticket, 2> tickets{
      begin(session, counting(70, 1), STATECACHE_HOLD_SOFT),
      begin(session, counting(40, 1), STATECACHE_HOLD_SOFT)};
  statecache_answer answer = STATECACHE_ANSWER_INIT;
  std::array<std::uint32_t, 2> versions{};
  for (std::size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(statecache_wait(session, tickets[i], kPatience, nullptr, &answer), STATECACHE_OK);
    EXPECT_EQ(answer.best, 0U);
    versions[i] = answer.version;
  }
  store(other, counting(64, 1), 32, 1);
  ASSERT_EQ(statecache_poll(session, tickets[0], nullptr, &answer), STATECACHE_OK);
  EXPECT_EQ(answer.version, versions[0]) << "it was asked once";
  ASSERT_EQ(statecache_refresh(session, tickets.data(), tickets.size()), STATECACHE_OK);
  for (std::size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(statecache_wait(session, tickets[i], kPatience, nullptr, &answer), STATECACHE_OK);
    EXPECT_EQ(answer.best, 32U);
    EXPECT_GT(answer.version, versions[i]);
    end(session, tickets[i]);
  }
  statecache_answer_clear(&answer);
}

TEST_F(CApiFields, Grids) {
  const auto tokens = counting(100, 1);
  statecache_session* resume =
      attach(0, 1, "resume", [](statecache_namespace& space, Groups&) { space.resume_grid = 32; });
  store(resume, tokens, 48, 1);
  EXPECT_EQ(restore(resume, tokens, 1), 0U);
  store(resume, tokens, 64, 1);
  EXPECT_EQ(restore(resume, tokens, 1), 64U);
  statecache_session* grid = attach(0, 1, "checkpoints", [](statecache_namespace& space, Groups&) {
    space.checkpoint_grid = 32;
    space.checkpoints_per_chunk = 2;
  });
  EXPECT_EQ(store(grid, tokens, 48, 1), 14U) << "all but the state";
  store(grid, tokens, 64, 1);
  auto branch = counting(80, 1);
  branch.resize(160, 7);
  statecache_answer answer = answer_for(grid, branch);
  EXPECT_GT(answer.wish_count, 0U);
  for (std::size_t i = 0; i < answer.wish_count; ++i)
    EXPECT_EQ(answer.wishes[i] % 32, 0U);
  statecache_answer_clear(&answer);
}

TEST_F(CApiFields, Lookahead) {
  statecache_session* session =
      attach(0, 1, "ahead", [](statecache_namespace&, Groups& groups) { groups[2].lookahead = 2; });
  store(session, counting(100, 1), 66, 1);
  EXPECT_EQ(lease(session, counting(100, 1), limits()).first, 64U);
}

TEST_F(CApiFields, Layouts) {
  const auto tokens = counting(60, 1);
  statecache_session* session = attach();
  store(session, tokens, 50, 1);
  EXPECT_EQ(restore(session, tokens, 1), 50U);
  statecache_session* other =
      attach(0, 1, "capi", [](statecache_namespace& space, Groups&) { space.layout.bytes[9] = 1; });
  EXPECT_EQ(restore(other, tokens, 1), 0U) << "another layout";
  EXPECT_EQ(std::string(statecache_name(other)).rfind("capi@", 0), 0U) << "two of that name";
  const std::uint64_t block = kBlock * kTokenBytes;
  EXPECT_EQ(slot_for(session, want(0, 0, 4)).bytes, block / 4);
  statecache_session* whole = attach(0, 1, "whole", [](statecache_namespace&, Groups& groups) {
    groups[1].token_major = groups[0].token_major = 0;
  });
  EXPECT_EQ(slot_for(whole, want(0, 0, 4)).bytes, block);
  statecache_want said = want(0, 0, 4);
  said.bytes = 100;
  EXPECT_EQ(slot_for(whole, said).bytes, 100U);
  statecache_session* straight =
      attach(0, 1, "straight", [](statecache_namespace&, Groups& groups) {
        groups[0].max_bytes = 5U << 20U;
        groups[0].contiguous = 1;
      });
  const statecache_slot big = slot_for(straight, want(0, 0, kBlock));
  EXPECT_EQ(big.bytes, 5U << 20U);
  EXPECT_EQ(big.extent_count, 1U);
}

TEST_F(CApiFields, FewerTokensThanReserved) {
  statecache_session* session = attach();
  const auto tokens = counting(60, 1);
  const statecache_ticket ticket = begin(session, tokens, STATECACHE_HOLD_NONE);
  const auto wants = wants_of(48, 40);
  ASSERT_EQ(statecache_reserve(session, ticket, wants.data(), wants.size()), STATECACHE_OK);
  statecache_slots slots = STATECACHE_SLOTS_INIT;
  ASSERT_EQ(statecache_wait_slots(session, ticket, kPatience, &slots), STATECACHE_OK)
      << statecache_last_error();
  std::vector<statecache_filled> filled;
  for (std::size_t i = 0; i < slots.count; ++i) {
    fill(slots.items[i], 1);
    statecache_filled item = STATECACHE_FILLED_INIT;
    item.slot = slots.items[i].id;
    if (slots.items[i].group < 2 && slots.items[i].end == 48) item.valid = 8;
    filled.push_back(item);
  }
  statecache_slots_clear(&slots);
  ASSERT_EQ(statecache_commit(session, filled.data(), filled.size()), STATECACHE_OK);
  end(session, ticket);
  statecache_answer answer = answer_for(session, tokens);
  EXPECT_EQ(answer.stored, 40U);
  statecache_answer_clear(&answer);
  EXPECT_EQ(restore(session, tokens, 1), 40U);
}

TEST_F(CApiFields, ReportsTeachWhatRecomputingCosts) {
  statecache_session* session = attach();
  store(session, counting(64, 1), 64, 1);
  const auto tokens = counting(1000, 1);
  const auto recompute = [&] {
    statecache_answer answer = answer_for(session, tokens);
    EXPECT_EQ(answer.point_count, 1U);
    const std::int64_t out = answer.point_count == 0 ? 0 : answer.points[0].recompute_us;
    statecache_answer_clear(&answer);
    return out;
  };
  const std::int64_t before = recompute();
  EXPECT_GT(before, 0);
  statecache_report report = STATECACHE_REPORT_INIT;
  report.computed = report.prefilled = 1000;
  report.prefill_us = 3'600'000'000;
  end(session, begin(session, tokens, STATECACHE_HOLD_NONE), &report);
  EXPECT_GT(recompute(), 2 * before);
}

}  // namespace
}  // namespace statecached::test

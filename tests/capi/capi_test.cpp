// Every function of the C API against a live daemon, and its rules about sizes and null pointers.

#include "tests/capi/world.hpp"

namespace statecached::test {
namespace {

TEST_F(CApi, StoresAndRestores) {
  statecache_session* session = attach();
  EXPECT_EQ(statecache_connected(session), 1);
  EXPECT_EQ(statecache_writable(session), 1);
  EXPECT_STREQ(statecache_name(session), "capi");
  EXPECT_NE(statecache_epoch(session), 0u);
  EXPECT_STREQ(statecache_version(), "0.1.0");
  const auto tokens = counting(100, 1);
  EXPECT_EQ(store(session, tokens, 90, 1), 15u);
  EXPECT_EQ(store(session, tokens, 90, 1), 0u) << "everything exists";
  EXPECT_EQ(restore(session, tokens, 1), 90u);
  EXPECT_EQ(restore(session, counting(100, 7), 1), 0u);
  statecache_counters counters = STATECACHE_COUNTERS_INIT;
  ASSERT_EQ(statecache_get_counters(session, &counters), STATECACHE_OK);
  EXPECT_EQ(counters.committed, 15u);
  EXPECT_EQ(counters.refused, 0u);
}

TEST_F(CApi, AnswersSayWhatThereIsAndWhatIsWished) {
  statecache_session* session = attach();
  store(session, counting(128, 1), 96, 2);
  auto branch = counting(80, 1);
  branch.resize(120, 5);  // parts after 80 tokens
  const statecache_ticket ticket = begin(session, branch, STATECACHE_HOLD_SOFT);
  statecache_answer answer = STATECACHE_ANSWER_INIT;
  ASSERT_EQ(statecache_wait(session, ticket, kPatience, nullptr, &answer), STATECACHE_OK);
  EXPECT_EQ(answer.state, std::uint32_t{STATECACHE_READY});
  EXPECT_EQ(answer.stored, 80u);
  EXPECT_EQ(answer.point_count, 0u) << "no state at or before the branch";
  ASSERT_GE(answer.wish_count, 1u);
  EXPECT_EQ(answer.wishes[0], 80u) << "the branch point is wanted most";
  end(session, ticket);

  const statecache_ticket again = begin(session, counting(128, 1), STATECACHE_HOLD_SOFT);
  ASSERT_EQ(statecache_wait(session, again, kPatience, nullptr, &answer), STATECACHE_OK);
  ASSERT_EQ(answer.point_count, 1u);
  EXPECT_EQ(answer.points[0].tokens, 96u);
  EXPECT_EQ(answer.points[0].tier, std::uint32_t{STATECACHE_HOST});
  EXPECT_GT(answer.points[0].recompute_us, 0);
  EXPECT_EQ(answer.best, 96u);
  statecache_have have = STATECACHE_HAVE_INIT;
  have.every = have.end = 100;
  ASSERT_EQ(statecache_poll(session, again, &have, &answer), STATECACHE_OK);
  EXPECT_EQ(answer.best, 0u) << "the engine has more itself";
  EXPECT_EQ(answer.point_count, 0u);
  statecache_answer_clear(&answer);
  EXPECT_EQ(answer.points, nullptr);
  ASSERT_EQ(statecache_refresh(session, &again, 1), STATECACHE_OK);
  ASSERT_EQ(statecache_acquire(session, again, STATECACHE_UNKNOWN, nullptr), STATECACHE_OK);
  statecache_lease lease = STATECACHE_LEASE_INIT;
  ASSERT_EQ(statecache_wait_lease(session, again, kPatience, &lease), STATECACHE_OK)
      << statecache_last_error();
  EXPECT_EQ(lease.tokens, 96u);
  statecache_lease_clear(&lease);
  EXPECT_EQ(statecache_cancel(session, again), STATECACHE_OK);
  EXPECT_EQ(statecache_cancel(session, again), STATECACHE_OK) << "may be repeated";
  EXPECT_EQ(statecache_drain(session, kPatience), STATECACHE_OK);
}

TEST_F(CApi, DomainsAndMarksSeparateContent) {
  statecache_session* session = attach();
  const auto tokens = counting(64, 1);
  statecache_domain domain = STATECACHE_DOMAIN_INIT;
  domain.adapter.bytes[3] = 4;
  std::vector<statecache_mark> image(1, statecache_mark STATECACHE_MARK_INIT);
  image[0].at = 0;
  image[0].length = 10;
  image[0].atomic = 1;
  image[0].content.bytes[0] = 1;
  store(session, tokens, 60, 3);
  store(session, tokens, 60, 4, &domain);
  store(session, tokens, 60, 5, nullptr, image);
  EXPECT_EQ(restore(session, tokens, 3), 60u);
  EXPECT_EQ(restore(session, tokens, 4, &domain), 60u);
  EXPECT_EQ(restore(session, tokens, 5, nullptr, image), 60u);
  image[0].content.bytes[0] = 2;
  EXPECT_EQ(restore(session, tokens, 5, nullptr, image), 0u) << "another image";
  domain.salt.bytes[0] = 1;
  EXPECT_EQ(restore(session, tokens, 4, &domain), 0u) << "another salt";
}

TEST_F(CApi, TwoMembersWithHalfTheShardsEach) {
  statecache_session* scheduler = attach(0, 2);
  statecache_session* worker = attach(1, 2);
  const auto tokens = counting(48, 1);
  const statecache_ticket ticket = begin(scheduler, tokens, STATECACHE_HOLD_NONE);
  statecache_ref ref{};
  ASSERT_EQ(statecache_get_ref(scheduler, ticket, &ref), STATECACHE_OK);
  statecache_ticket joined = 0;
  ASSERT_EQ(statecache_drain(scheduler, kPatience), STATECACHE_OK);
  ASSERT_EQ(statecache_join(worker, &ref, &joined), STATECACHE_OK);
  EXPECT_EQ(statecache_join(worker, &ref, &joined), STATECACHE_ALREADY_EXISTS);
  ASSERT_EQ(statecache_settle(worker, joined, kPatience), STATECACHE_OK) << statecache_last_error();
  const auto wants = wants_of(48, 48);
  ASSERT_EQ(statecache_reserve(scheduler, ticket, wants.data(), wants.size()), STATECACHE_OK);
  EXPECT_EQ(write_granted(scheduler, ticket, 6), 7u);
  ASSERT_EQ(statecache_drain(scheduler, kPatience), STATECACHE_OK);
  // Half the shards are there: nothing is visible.
  EXPECT_EQ(restore(scheduler, counting(60, 1), 6), 0u);
  // The worker's came with the reservation, unasked.
  std::size_t written = 0;
  for (int tries = 0; written < 4 && tries < 2000; ++tries) {
    written += write_granted(worker, joined, 6);
    if (written < 4) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(written, 4u) << "3 KV blocks and a state; the window has one shard";
  end(scheduler, ticket);
  end(worker, joined);
  ASSERT_EQ(statecache_drain(worker, kPatience), STATECACHE_OK);
  EXPECT_EQ(restore(scheduler, counting(60, 1), 6), 48u);
  EXPECT_EQ(restore(worker, counting(60, 1), 6), 48u);
}

TEST_F(CApi, CopiesForEnginesWithAPoolOfTheirOwn) {
  statecache_session* session = attach();
  const auto tokens = counting(32, 1);
  const statecache_ticket ticket = begin(session, tokens, STATECACHE_HOLD_NONE);
  std::vector<std::vector<unsigned char>> pool;
  std::vector<statecache_extent> extents;
  std::vector<statecache_memory> memory;
  const auto add =
      [&](std::uint16_t group, std::uint32_t at, std::uint32_t valid, std::size_t bytes) {
        pool.emplace_back(bytes, mark_of(group, at, 0, 7));
        statecache_memory item = STATECACHE_MEMORY_INIT;
        item.group = group;
        item.at = at;
        item.valid = valid;
        item.piece_count = 1;
        memory.push_back(item);
      };
  for (std::uint32_t first = 0; first < 32; first += kBlock) {
    add(0, first, kBlock, kBlock * kTokenBytes);
    add(1, first, kBlock, kBlock * kTokenBytes);
  }
  add(2, 30, 0, kStateBytes);
  for (auto& block : pool)
    extents.push_back({block.data(), block.size()});
  for (std::size_t i = 0; i < memory.size(); ++i)
    memory[i].pieces = &extents[i];
  std::vector<std::uint8_t> ok(memory.size(), 0);
  ASSERT_EQ(
      statecache_write_from(session, ticket, memory.data(), memory.size(), kPatience, ok.data()),
      STATECACHE_OK)
      << statecache_last_error();
  EXPECT_EQ(ok, std::vector<std::uint8_t>(memory.size(), 1));
  end(session, ticket);
  for (auto& block : pool)
    std::fill(block.begin(), block.end(), static_cast<unsigned char>(0));
  const statecache_ticket reader = begin(session, tokens, STATECACHE_HOLD_LEASE);
  memory.push_back(memory.back());
  memory.back().at = 31;  // not there
  ok.assign(memory.size(), 9);
  ASSERT_EQ(
      statecache_read_into(session, reader, memory.data(), memory.size(), kPatience, ok.data()),
      STATECACHE_OK);
  for (std::size_t i = 0; i + 1 < memory.size(); ++i) {
    EXPECT_EQ(ok[i], 1) << i;
    // 30 tokens: 14 of the second
    const std::size_t used = memory[i].at == 16 ? 14 * kTokenBytes : pool[i].size();
    EXPECT_EQ(pool[i].front(), mark_of(memory[i].group, memory[i].at, 0, 7));
    EXPECT_EQ(pool[i][used - 1], mark_of(memory[i].group, memory[i].at, 0, 7));
  }
  EXPECT_EQ(ok.back(), 0);
  end(session, reader);
}

TEST_F(CApi, SequencesGrowForkTaintAndAreInvalidated) {
  statecache_session* session = attach();
  const auto tokens = counting(20, 1);
  const statecache_ticket ticket = begin(session, tokens, STATECACHE_HOLD_NONE);
  const auto more = counting(28, 21);
  ASSERT_EQ(
      statecache_append(session, ticket, more.data(), more.size(), nullptr, 0, STATECACHE_UNKNOWN),
      STATECACHE_OK);
  const auto wants = wants_of(48, 48);
  ASSERT_EQ(statecache_reserve(session, ticket, wants.data(), wants.size()), STATECACHE_OK);
  EXPECT_EQ(write_granted(session, ticket, 8), 7u);
  // A fork shares the first 48 tokens.
  statecache_ask fork = STATECACHE_ASK_INIT;
  const auto other = counting(30, 900);
  fork.parent = ticket;
  fork.parent_tokens = 48;
  fork.tokens = other.data();
  fork.token_count = other.size();
  statecache_ticket child = 0;
  ASSERT_EQ(statecache_begin(session, &fork, nullptr, &child), STATECACHE_OK)
      << statecache_last_error();
  statecache_answer answer = STATECACHE_ANSWER_INIT;
  ASSERT_EQ(statecache_wait(session, child, kPatience, nullptr, &answer), STATECACHE_OK);
  EXPECT_EQ(answer.best, 48u);
  statecache_answer_clear(&answer);
  ASSERT_EQ(statecache_taint(session, child), STATECACHE_OK);
  const statecache_want late = want(0, 48, 64);
  ASSERT_EQ(statecache_reserve(session, child, &late, 1), STATECACHE_OK);
  statecache_slots slots = STATECACHE_SLOTS_INIT;
  ASSERT_EQ(statecache_wait_slots(session, child, kPatience, &slots), STATECACHE_OK);
  ASSERT_EQ(slots.count, 1u);
  EXPECT_EQ(slots.items[0].grant, std::uint32_t{STATECACHE_DECLINED}) << "tainted";
  statecache_slots_clear(&slots);
  end(session, child);
  // A slot that is given back is not stored.
  const statecache_want next = want(2, 47, 47);
  ASSERT_EQ(statecache_reserve(session, ticket, &next, 1), STATECACHE_OK);
  ASSERT_EQ(statecache_settle(session, ticket, kPatience), STATECACHE_OK);
  ASSERT_EQ(statecache_peek_slots(session, ticket, &slots), STATECACHE_OK);
  ASSERT_EQ(statecache_wait_slots(session, ticket, kPatience, &slots), STATECACHE_OK);
  ASSERT_EQ(slots.count, 1u);
  ASSERT_EQ(slots.items[0].grant, std::uint32_t{STATECACHE_GRANTED});
  EXPECT_EQ(statecache_abandon(session, &slots.items[0].id, 1), STATECACHE_OK);
  statecache_slots_clear(&slots);
  auto parted = counting(60, 1);
  parted[47] = 901;
  EXPECT_EQ(restore(session, parted, 8), 0u) << "no state at 47";
  // Nor is it in the way of one that is written.
  ASSERT_EQ(statecache_reserve(session, ticket, &next, 1), STATECACHE_OK);
  EXPECT_EQ(write_granted(session, ticket, 8), 1u);
  end(session, ticket);
  EXPECT_EQ(restore(session, parted, 8), 47u);
  EXPECT_EQ(restore(session, counting(60, 1), 8), 48u);
  ASSERT_EQ(statecache_invalidate(session), STATECACHE_OK);
  EXPECT_EQ(restore(session, counting(60, 1), 8), 0u);
}

/// Pages of 16 tokens, named by chained keys of 20 bytes; as an engine that knows no depths has
/// them.
TEST_F(CApi, RunsOfKeysWithoutTheirDepth) {
  statecache_group groups[2] = {STATECACHE_GROUP_INIT, STATECACHE_GROUP_INIT};
  groups[0].name = "kv";
  groups[0].block_tokens = kBlock;
  groups[0].max_bytes = kBlock * kTokenBytes;
  groups[1].name = "state";
  groups[1].need = STATECACHE_END;
  groups[1].max_bytes = kStateBytes;
  statecache_cost cost = STATECACHE_COST_INIT;
  cost.c1 = 15e9;
  statecache_namespace space = STATECACHE_NAMESPACE_INIT;
  space.name = "pages";
  space.groups = groups;
  space.group_count = 2;
  space.cost = &cost;
  space.addressing = STATECACHE_BY_KEYS;
  space.tokens_per_key = kBlock;
  space.key_bytes = 20;
  statecache_member member = STATECACHE_MEMBER_INIT;
  statecache_session* session = nullptr;
  ASSERT_EQ(statecache_attach(daemon_.socket().c_str(), &space, &member, kPatience, &session),
            STATECACHE_OK)
      << statecache_last_error();
  sessions_.push_back(session);
  std::vector<statecache_digest> keys(8);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    keys[i] = statecache_digest{};
    keys[i].bytes[0] = static_cast<std::uint8_t>(i + 1);
    keys[i].bytes[19] = 7;
  }
  const auto begin_run =
      [&](std::size_t from, std::size_t to, std::uint32_t first_token, statecache_hold hold) {
        statecache_key_run run = STATECACHE_KEY_RUN_INIT;
        run.keys = keys.data() + from;
        run.key_count = to - from;
        run.first_token = first_token;
        statecache_limits limits = STATECACHE_LIMITS_INIT;
        limits.hold = hold;
        statecache_ticket ticket = 0;
        EXPECT_EQ(statecache_begin_keys(session, &run, &limits, &ticket), STATECACHE_OK)
            << statecache_last_error();
        return ticket;
      };
  const auto save = [&](std::size_t from, std::size_t to, std::uint32_t first_token) {
    const statecache_ticket ticket = begin_run(from, to - 1, first_token, STATECACHE_HOLD_NONE);
    EXPECT_EQ(statecache_append_keys(session, ticket, keys.data() + to - 1, 1, STATECACHE_UNKNOWN),
              STATECACHE_OK);
    const std::uint32_t origin = first_token == STATECACHE_UNKNOWN ? 0 : first_token;
    std::vector<statecache_want> wants;
    for (std::uint32_t i = 0; i < to - from; ++i)
      wants.push_back(want(0, origin + i * kBlock, origin + (i + 1) * kBlock));
    const std::uint32_t depth = origin + static_cast<std::uint32_t>(to - from) * kBlock;
    wants.push_back(want(1, depth, depth));
    EXPECT_EQ(statecache_reserve(session, ticket, wants.data(), wants.size()), STATECACHE_OK);
    const std::size_t written = write_granted(session, ticket, 1);
    end(session, ticket);
    return written;
  };
  const auto depth_of = [&](std::size_t from, std::size_t to, std::uint32_t first_token) {
    const statecache_ticket ticket = begin_run(from, to, first_token, STATECACHE_HOLD_LEASE);
    statecache_lease lease = STATECACHE_LEASE_INIT;
    EXPECT_EQ(statecache_wait_lease(session, ticket, kPatience, &lease), STATECACHE_OK)
        << statecache_last_error();
    const std::uint32_t tokens = lease.tokens;
    statecache_lease_clear(&lease);
    end(session, ticket);
    return tokens;
  };
  EXPECT_EQ(save(4, 8, STATECACHE_UNKNOWN), 5u);
  EXPECT_EQ(depth_of(4, 8, STATECACHE_UNKNOWN), 4 * kBlock)
      << "the whole run, no token is kept back";
  EXPECT_EQ(depth_of(6, 8, STATECACHE_UNKNOWN), 2 * kBlock) << "what is before it is in the engine";
  EXPECT_EQ(depth_of(0, 8, 0), 0u) << "its beginning is not stored";
  EXPECT_EQ(save(0, 4, 0), 5u);
  EXPECT_EQ(depth_of(0, 8, 0), 8 * kBlock) << "linked up";
  EXPECT_EQ(depth_of(2, 6, 2 * kBlock), 4 * kBlock)
      << "the state after page 4, at its absolute depth";
  EXPECT_EQ(save(4, 8, STATECACHE_UNKNOWN), 0u) << "all of it exists";
  keys[0].bytes[25] = 1;
  statecache_key_run run = STATECACHE_KEY_RUN_INIT;
  run.keys = keys.data();
  run.key_count = 1;
  statecache_ticket ticket = 0;
  EXPECT_EQ(statecache_begin_keys(session, &run, nullptr, &ticket), STATECACHE_INVALID_ARGUMENT)
      << "byte 25 of 20";
  statecache_ask ask = STATECACHE_ASK_INIT;
  EXPECT_EQ(statecache_begin(session, &ask, nullptr, &ticket), STATECACHE_INVALID_ARGUMENT)
      << "tokens";
}

TEST_F(CApi, OperatorsAsk) {
  char* json = nullptr;
  ASSERT_EQ(statecache_admin(
                daemon_.socket().c_str(), "status", nullptr, 0, nullptr, 0, kPatience, &json),
            STATECACHE_OK)
      << statecache_last_error();
  EXPECT_EQ(json[0], '{');
  statecache_free(json);
  const auto each = [](void* user, const char* text) -> int {
    *static_cast<std::string*>(user) += text;
    return 0;
  };
  std::string told;
  EXPECT_EQ(statecache_admin_stream(
                daemon_.socket().c_str(), "status", nullptr, 0, nullptr, 0, each, &told, kPatience),
            STATECACHE_OK);
  EXPECT_FALSE(told.empty());
  EXPECT_EQ(statecache_admin(
                daemon_.socket().c_str(), "nonsense", nullptr, 0, nullptr, 0, kPatience, &json),
            STATECACHE_INVALID_ARGUMENT);
  EXPECT_STRNE(statecache_last_error(), "");
}

TEST_F(CApi, SizesOfStructs) {
  statecache_session* session = attach();
  statecache_counters counters = STATECACHE_COUNTERS_INIT;
  counters.struct_size = 4;
  EXPECT_EQ(statecache_get_counters(session, &counters), STATECACHE_INVALID_ARGUMENT);

  // A program of tomorrow with a longer struct: fine while what we do not know is zero.
  struct Longer {
    statecache_counters known;
    std::uint64_t tomorrow;
  } longer{STATECACHE_COUNTERS_INIT, 0};

  longer.known.struct_size = sizeof(Longer);
  longer.known.posted = 77;  // is written over
  EXPECT_EQ(statecache_get_counters(session, &longer.known), STATECACHE_OK);
  EXPECT_EQ(longer.known.posted, 0u);
  EXPECT_EQ(longer.known.struct_size, sizeof(Longer));
  longer.tomorrow = 1;
  EXPECT_EQ(statecache_get_counters(session, &longer.known), STATECACHE_UNSUPPORTED);

  // Arrays go at the size of their elements.
  struct LongWant {
    statecache_want known;
    std::uint64_t tomorrow;
  };

  std::array<LongWant, 3> wants{};
  for (std::uint32_t i = 0; i < 3; ++i) {
    wants[i].known = want(0, i * kBlock, (i + 1) * kBlock);
    wants[i].known.struct_size = sizeof(LongWant);
  }
  const statecache_ticket ticket = begin(session, counting(48, 1), STATECACHE_HOLD_NONE);
  ASSERT_EQ(statecache_reserve(session, ticket, &wants[0].known, wants.size()), STATECACHE_OK);

  struct LongSlot {
    statecache_slot known;
    std::uint64_t tomorrow;
  };

  statecache_slots slots = STATECACHE_SLOTS_INIT;
  slots.slot_size = sizeof(LongSlot);
  ASSERT_EQ(statecache_wait_slots(session, ticket, kPatience, &slots), STATECACHE_OK)
      << statecache_last_error();
  ASSERT_EQ(slots.count, 3u);
  const auto* rows = reinterpret_cast<const LongSlot*>(slots.items);
  for (std::uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(rows[i].known.first, i * kBlock);
    EXPECT_EQ(rows[i].known.grant, std::uint32_t{STATECACHE_GRANTED});
    EXPECT_EQ(rows[i].tomorrow, 0u);
  }
  statecache_slots_clear(&slots);
  wants[1].known.struct_size = sizeof(statecache_want);
  EXPECT_EQ(statecache_reserve(session, ticket, &wants[0].known, wants.size()),
            STATECACHE_INVALID_ARGUMENT);
  end(session, ticket);
}

TEST_F(CApi, NonsenseIsAnError) {
  statecache_session* session = nullptr;
  statecache_namespace space = STATECACHE_NAMESPACE_INIT;
  statecache_member member = STATECACHE_MEMBER_INIT;
  EXPECT_EQ(statecache_attach(nullptr, &space, &member, 0, &session), STATECACHE_INVALID_ARGUMENT);
  EXPECT_EQ(statecache_attach("/nowhere", &space, &member, 0, &session),
            STATECACHE_INVALID_ARGUMENT)
      << "no name";
  space.name = "x";
  EXPECT_EQ(statecache_attach("/nowhere", &space, &member, 0, &session),
            STATECACHE_INVALID_ARGUMENT)
      << "no groups";
  EXPECT_NE(std::string(statecache_last_error()).find("groups"), std::string::npos);
  statecache_detach(nullptr);
  statecache_answer_clear(nullptr);
  statecache_lease_clear(nullptr);
  statecache_slots_clear(nullptr);
  statecache_free(nullptr);
  EXPECT_EQ(statecache_connected(nullptr), 0);
  EXPECT_EQ(statecache_taint(nullptr, 1), STATECACHE_INVALID_ARGUMENT);
  EXPECT_EQ(statecache_begin(nullptr, nullptr, nullptr, nullptr), STATECACHE_INVALID_ARGUMENT);

  session = attach();
  EXPECT_EQ(statecache_taint(session, 77), STATECACHE_NOT_FOUND);
  EXPECT_EQ(statecache_reserve(session, 77, nullptr, 3), STATECACHE_INVALID_ARGUMENT);
  statecache_ticket ticket = 0;
  EXPECT_EQ(statecache_begin(session, nullptr, nullptr, &ticket), STATECACHE_INVALID_ARGUMENT);
  statecache_ask ask = STATECACHE_ASK_INIT;
  ask.token_count = 4;
  EXPECT_EQ(statecache_begin(session, &ask, nullptr, &ticket), STATECACHE_INVALID_ARGUMENT);
  ask.token_count = 0;
  statecache_limits limits = STATECACHE_LIMITS_INIT;
  limits.hold = 9;
  EXPECT_EQ(statecache_begin(session, &ask, &limits, &ticket), STATECACHE_INVALID_ARGUMENT);
  statecache_key_run run = STATECACHE_KEY_RUN_INIT;
  EXPECT_EQ(statecache_begin_keys(session, &run, nullptr, &ticket), STATECACHE_INVALID_ARGUMENT)
      << "a namespace of tokens";
  for (int code = 0; code <= STATECACHE_NO_MEMORY; ++code) {
    EXPECT_STRNE(statecache_strerror(static_cast<statecache_code>(code)), "unknown code") << code;
  }
  EXPECT_STREQ(statecache_strerror(static_cast<statecache_code>(15)), "unknown code");

  daemon_.kill9();
  statecache_answer answer = STATECACHE_ANSWER_INIT;
  EXPECT_EQ(statecache_wait(session, 1, kPatience, nullptr, &answer), STATECACHE_OK);
  EXPECT_EQ(answer.state, std::uint32_t{STATECACHE_LOST});
  statecache_answer_clear(&answer);
  EXPECT_EQ(statecache_drain(session, kPatience), STATECACHE_CLOSED);
  EXPECT_EQ(statecache_connected(session), 0);
}

}  // namespace
}  // namespace statecached::test

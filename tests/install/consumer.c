/* A program outside the tree, in C: stores two blocks and a state, reads them back in place, prints what it
 * reused. Usage: consumer SOCKET */
#include <statecache/statecache.h>

#include <stdio.h>
#include <string.h>

#define CHECK(call)                                                                       \
  do {                                                                                    \
    statecache_code code_ = (call);                                                       \
    if (code_ != STATECACHE_OK) {                                                         \
      fprintf(stderr, "%s: %s: %s\n", #call, statecache_strerror(code_), statecache_last_error()); \
      return 1;                                                                           \
    }                                                                                     \
  } while (0)

enum { kTokens = 32, kBlock = 16, kBlockBytes = 4096, kStateBytes = 5000 };
static const int64_t kSecond = 1000000;

static void write_all(const statecache_slot* slot, int value) {
  for (uint32_t i = 0; i < slot->extent_count; ++i) memset(slot->where[i].data, value, slot->where[i].bytes);
}

static int all_are(const statecache_piece* piece, int value) {
  for (uint32_t i = 0; i < piece->extent_count; ++i) {
    const unsigned char* data = (const unsigned char*)piece->where[i].data;
    for (size_t b = 0; b < piece->where[i].bytes; ++b) {
      if (data[b] != value) return 0;
    }
  }
  return 1;
}

static int store(statecache_session* cache, statecache_ticket ticket) {
  statecache_want wants[3] = {STATECACHE_WANT_INIT, STATECACHE_WANT_INIT, STATECACHE_WANT_INIT};
  statecache_slots slots = STATECACHE_SLOTS_INIT;
  statecache_filled filled[3] = {STATECACHE_FILLED_INIT, STATECACHE_FILLED_INIT, STATECACHE_FILLED_INIT};
  size_t written = 0;
  wants[0].end = kBlock;
  wants[1].first = kBlock;
  wants[1].end = 2 * kBlock;
  wants[2].group = 1;
  wants[2].first = wants[2].end = kTokens;
  CHECK(statecache_reserve(cache, ticket, wants, 3));
  CHECK(statecache_wait_slots(cache, ticket, 10 * kSecond, &slots));
  for (size_t i = 0; i < slots.count; ++i) {
    const statecache_slot* slot = &slots.items[i];
    if (slot->grant != STATECACHE_GRANTED) continue;
    write_all(slot, slot->group == 1 ? 99 : 1 + (int)(slot->first / kBlock));
    filled[written++].slot = slot->id;
  }
  statecache_slots_clear(&slots);
  CHECK(statecache_commit(cache, filled, written));
  return 0;
}

static int restore(statecache_session* cache, statecache_ticket ticket, uint32_t* depth) {
  statecache_lease lease = STATECACHE_LEASE_INIT;
  CHECK(statecache_wait_lease(cache, ticket, 10 * kSecond, &lease));
  for (size_t i = 0; i < lease.piece_count; ++i) {
    const statecache_piece* piece = &lease.pieces[i];
    if (!all_are(piece, piece->group == 1 ? 99 : 1 + (int)(piece->first / kBlock))) {
      fprintf(stderr, "piece %zu is not what was stored\n", i);
      return 1;
    }
  }
  *depth = lease.tokens;
  statecache_lease_clear(&lease);
  return 0;
}

int main(int argc, char** argv) {
  statecache_group groups[2] = {STATECACHE_GROUP_INIT, STATECACHE_GROUP_INIT};
  statecache_namespace space = STATECACHE_NAMESPACE_INIT;
  statecache_cost cost = STATECACHE_COST_INIT;
  statecache_member member = STATECACHE_MEMBER_INIT;
  statecache_limits limits = STATECACHE_LIMITS_INIT;
  statecache_ask ask = STATECACHE_ASK_INIT;
  statecache_session* cache = NULL;
  statecache_ticket ticket = 0;
  uint32_t tokens[kTokens + 1];
  uint32_t depth = 0;
  if (argc != 2) return 2;
  for (uint32_t i = 0; i <= kTokens; ++i) tokens[i] = i * i;

  groups[0].name = "kv";
  groups[0].block_tokens = kBlock;
  groups[0].max_bytes = kBlockBytes;
  groups[1].name = "state";
  groups[1].need = STATECACHE_END;
  groups[1].max_bytes = kStateBytes;
  cost.c1 = 1e12;
  space.name = "consumer";
  space.groups = groups;
  space.group_count = 2;
  space.cost = &cost;
  member.program = "consumer.c";
  CHECK(statecache_attach(argv[1], &space, &member, 0, &cache));

  limits.hold = STATECACHE_HOLD_LEASE;
  ask.tokens = tokens;
  ask.token_count = kTokens + 1;
  CHECK(statecache_begin(cache, &ask, &limits, &ticket));
  if (restore(cache, ticket, &depth) != 0) return 1;
  if (depth == 0 && store(cache, ticket) != 0) return 1;
  CHECK(statecache_finish(cache, ticket, NULL));
  CHECK(statecache_settle(cache, ticket, 10 * kSecond));
  CHECK(statecache_release(cache, ticket));
  CHECK(statecache_drain(cache, 10 * kSecond));
  statecache_detach(cache);
  printf("reused %u of %u tokens\n", (unsigned)depth, (unsigned)(kTokens + 1));
  return 0;
}

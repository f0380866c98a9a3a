/* One process of an engine of two, in C: each holds its shard of every object. It is told what to do, a line of
 * standard input each, and answers with a line; tests/python pairs it with its likes and with member.py, which says
 * the same in Python. Usage: member SOCKET NAMESPACE RANK
 *
 *   begin none|lease COUNT   a ticket of tokens 0, 1 ... COUNT - 1     "ref LOW HIGH"
 *   join LOW HIGH            becomes a member of it                    "joined"
 *   reserve COUNT            KV, window and the state of COUNT tokens  "reserved"
 *   fill N                   writes and commits the next N slots       "filled N"
 *   lease                    reads all of it, in place                 "lease TOKENS KV WINDOW STATE" (pieces)
 *   end                      finish and release                        "ended"
 */
#include <statecache/statecache.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call)                                                                                      \
  do {                                                                                                   \
    statecache_code code_ = (call);                                                                      \
    if (code_ != STATECACHE_OK) {                                                                        \
      fprintf(stderr, "%s: %s: %s\n", #call, statecache_strerror(code_), statecache_last_error());       \
      return 1;                                                                                          \
    }                                                                                                    \
  } while (0)

enum { kBlock = 16, kTokensMax = 256, kWantsMax = 2 * kTokensMax / kBlock + 1 };
static const int64_t kPatience = 20000000;

static statecache_session* cache = NULL;
static statecache_ticket ticket = 0;
static unsigned rank = 0;

/* What stands in every byte of an object's shard. */
static unsigned char content_of(unsigned group, unsigned first, unsigned shard) {
  return (unsigned char)(1 + (group * 83 + first * 7 + shard * 31) % 251);
}

static unsigned own_shard(unsigned group) { return group == 1 ? 0 : rank; }

static int attach(const char* socket, const char* name) {
  statecache_group groups[3] = {STATECACHE_GROUP_INIT, STATECACHE_GROUP_INIT, STATECACHE_GROUP_INIT};
  statecache_namespace space = STATECACHE_NAMESPACE_INIT;
  statecache_cost cost = STATECACHE_COST_INIT;
  statecache_member member = STATECACHE_MEMBER_INIT;
  uint16_t shards[3];
  groups[0].name = "kv";
  groups[0].block_tokens = kBlock;
  groups[0].max_bytes = 4096;
  groups[0].shards = 2;
  groups[1].name = "window";
  groups[1].need = STATECACHE_LAST;
  groups[1].window = 24;
  groups[1].block_tokens = kBlock;
  groups[1].max_bytes = 2048;
  groups[2].name = "state";
  groups[2].need = STATECACHE_END;
  groups[2].max_bytes = 5000;
  groups[2].shards = 2;
  cost.c1 = 15e9;
  space.name = name;
  memcpy(space.model.bytes, name, strlen(name)); /* else all of these would be one namespace */
  space.groups = groups;
  space.group_count = 3;
  space.cost = &cost;
  for (unsigned group = 0; group < 3; ++group) shards[group] = (uint16_t)own_shard(group);
  memset(member.engine.bytes, 7, sizeof member.engine.bytes);
  member.rank = (uint16_t)rank;
  member.world = 2;
  member.shards = shards;
  member.shard_count = 3;
  member.program = "member.c";
  CHECK(statecache_attach(socket, &space, &member, 0, &cache));
  return 0;
}

static int begin(const char* hold, unsigned count) {
  uint32_t tokens[kTokensMax];
  statecache_limits limits = STATECACHE_LIMITS_INIT;
  statecache_ask ask = STATECACHE_ASK_INIT;
  statecache_ref ref;
  if (count > kTokensMax) return 1;
  for (unsigned i = 0; i < count; ++i) tokens[i] = i;
  limits.hold = strcmp(hold, "lease") == 0 ? STATECACHE_HOLD_LEASE : STATECACHE_HOLD_NONE;
  ask.tokens = tokens;
  ask.token_count = count;
  CHECK(statecache_begin(cache, &ask, &limits, &ticket));
  CHECK(statecache_settle(cache, ticket, kPatience)); /* before that nobody can join */
  CHECK(statecache_get_ref(cache, ticket, &ref));
  printf("ref %" PRIu64 " %" PRIu64 "\n", ref.low, ref.high);
  return 0;
}

static int join(uint64_t low, uint64_t high) {
  statecache_ref ref;
  ref.low = low;
  ref.high = high;
  CHECK(statecache_join(cache, &ref, &ticket));
  CHECK(statecache_settle(cache, ticket, kPatience));
  printf("joined\n");
  return 0;
}

static int reserve(unsigned count) {
  statecache_want wants[kWantsMax];
  size_t n = 0;
  if (count > kTokensMax) return 1;
  memset(wants, 0, sizeof wants);
  for (unsigned first = 0; first < count; first += kBlock) {
    for (unsigned group = 0; group < 2; ++group, ++n) {
      wants[n].group = group;
      wants[n].first = first;
      wants[n].end = first + kBlock < count ? first + kBlock : count;
    }
  }
  wants[n].group = 2;
  wants[n].first = wants[n].end = count;
  ++n;
  for (size_t i = 0; i < n; ++i) wants[i].struct_size = sizeof wants[i];
  CHECK(statecache_reserve(cache, ticket, wants, n));
  CHECK(statecache_settle(cache, ticket, kPatience));
  printf("reserved\n");
  return 0;
}

/* A worker's slots come unasked: what another member reserved. */
static int fill(unsigned count) {
  statecache_slots slots = STATECACHE_SLOTS_INIT;
  unsigned done = 0;
  while (done < count) {
    CHECK(statecache_wait_slots(cache, ticket, kPatience, &slots));
    for (size_t i = 0; i < slots.count; ++i) {
      const statecache_slot* slot = &slots.items[i];
      statecache_filled filled = STATECACHE_FILLED_INIT;
      if (slot->grant != STATECACHE_GRANTED || slot->shard != own_shard(slot->group)) {
        fprintf(stderr, "slot of group %u, shard %u: grant %u\n", slot->group, slot->shard, slot->grant);
        return 1;
      }
      for (uint32_t e = 0; e < slot->extent_count; ++e)
        memset(slot->where[e].data, content_of(slot->group, slot->first, slot->shard), slot->where[e].bytes);
      filled.slot = slot->id;
      CHECK(statecache_commit(cache, &filled, 1));
      ++done;
    }
  }
  statecache_slots_clear(&slots);
  CHECK(statecache_drain(cache, kPatience));
  printf("filled %u\n", done);
  return 0;
}

static int lease(void) {
  statecache_lease all = STATECACHE_LEASE_INIT;
  unsigned seen[3] = {0, 0, 0};
  CHECK(statecache_wait_lease(cache, ticket, kPatience, &all));
  for (size_t i = 0; i < all.piece_count; ++i) {
    const statecache_piece* piece = &all.pieces[i];
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < piece->extent_count; ++e) {
      const unsigned char* data = (const unsigned char*)piece->where[e].data;
      for (size_t b = 0; b < piece->where[e].bytes; ++b, ++bytes) {
        if (data[b] == content_of(piece->group, piece->first, own_shard(piece->group))) continue;
        fprintf(stderr, "group %u at %u: byte %zu is another's\n", piece->group, (unsigned)piece->first, b);
        return 1;
      }
    }
    if (piece->shard != own_shard(piece->group) || bytes != piece->bytes || bytes == 0) return 1;
    ++seen[piece->group];
  }
  printf("lease %u %u %u %u\n", (unsigned)all.tokens, seen[0], seen[1], seen[2]);
  statecache_lease_clear(&all);
  return 0;
}

static int end(void) {
  CHECK(statecache_finish(cache, ticket, NULL));
  CHECK(statecache_release(cache, ticket));
  CHECK(statecache_drain(cache, kPatience));
  printf("ended\n");
  return 0;
}

static int obey(const char* line) {
  char word[16] = "";
  char hold[16] = "";
  unsigned count = 0;
  uint64_t low = 0, high = 0;
  if (sscanf(line, "begin %15s %u", hold, &count) == 2) return begin(hold, count);
  if (sscanf(line, "join %" SCNu64 " %" SCNu64, &low, &high) == 2) return join(low, high);
  if (sscanf(line, "reserve %u", &count) == 1) return reserve(count);
  if (sscanf(line, "fill %u", &count) == 1) return fill(count);
  if (sscanf(line, "%15s", word) != 1) return 1;
  if (strcmp(word, "lease") == 0) return lease();
  if (strcmp(word, "end") == 0) return end();
  fprintf(stderr, "not understood: %s", line);
  return 1;
}

int main(int argc, char** argv) {
  char line[128];
  if (argc != 4 || strlen(argv[2]) > sizeof(statecache_digest)) return 2;
  rank = (unsigned)strtoul(argv[3], NULL, 10);
  if (attach(argv[1], argv[2]) != 0) return 1;
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (obey(line) != 0) return 1;
    fflush(stdout);
  }
  statecache_detach(cache);
  return 0;
}

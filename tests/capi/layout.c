/* Prints size and field offsets of every struct of the C API, and its constants: half of the ABI dump. Plain C99,
 * so that it also shows that the header is. */
#include "statecache/statecache.h"

#include <stdio.h>

#define S(type) printf("struct %s %zu\n", #type, sizeof(type))
#define F(type, field) printf("  %s.%s %zu %zu\n", #type, #field, offsetof(type, field), sizeof(((type*)0)->field))
#define E(name) printf("constant %s %d\n", #name, (int)name)

int main(void) {
  S(statecache_digest);
  S(statecache_extent);
  F(statecache_extent, data); F(statecache_extent, bytes);
  S(statecache_ref);
  F(statecache_ref, low); F(statecache_ref, high);
  S(statecache_group);
  F(statecache_group, struct_size); F(statecache_group, need); F(statecache_group, name);
  F(statecache_group, block_tokens); F(statecache_group, window); F(statecache_group, lookahead);
  F(statecache_group, shards); F(statecache_group, contiguous); F(statecache_group, token_major);
  F(statecache_group, max_bytes);
  S(statecache_cost);
  F(statecache_cost, struct_size); F(statecache_cost, window); F(statecache_cost, c0); F(statecache_cost, c1);
  F(statecache_cost, c2); F(statecache_cost, window_c2);
  S(statecache_namespace);
  F(statecache_namespace, struct_size); F(statecache_namespace, group_count); F(statecache_namespace, name);
  F(statecache_namespace, model); F(statecache_namespace, layout); F(statecache_namespace, groups);
  F(statecache_namespace, resume_grid); F(statecache_namespace, checkpoint_grid);
  F(statecache_namespace, checkpoints_per_chunk); F(statecache_namespace, addressing);
  F(statecache_namespace, tokens_per_key); F(statecache_namespace, key_bytes); F(statecache_namespace, cost);
  S(statecache_member);
  F(statecache_member, struct_size); F(statecache_member, rank); F(statecache_member, world);
  F(statecache_member, engine); F(statecache_member, shards); F(statecache_member, shard_count);
  F(statecache_member, program);
  S(statecache_counters);
  F(statecache_counters, struct_size); F(statecache_counters, posted); F(statecache_counters, busy);
  F(statecache_counters, errors); F(statecache_counters, committed); F(statecache_counters, refused);
  F(statecache_counters, returned);
  S(statecache_domain);
  F(statecache_domain, struct_size); F(statecache_domain, adapter); F(statecache_domain, salt);
  S(statecache_mark);
  F(statecache_mark, struct_size); F(statecache_mark, at); F(statecache_mark, length); F(statecache_mark, atomic);
  F(statecache_mark, content);
  S(statecache_have);
  F(statecache_have, struct_size); F(statecache_have, every); F(statecache_have, end);
  S(statecache_limits);
  F(statecache_limits, struct_size); F(statecache_limits, hold); F(statecache_limits, have_every);
  F(statecache_limits, have_end); F(statecache_limits, keep_back); F(statecache_limits, at_most);
  F(statecache_limits, deadline_us); F(statecache_limits, members); F(statecache_limits, priority);
  S(statecache_ask);
  F(statecache_ask, struct_size); F(statecache_ask, parent_tokens); F(statecache_ask, tokens);
  F(statecache_ask, token_count); F(statecache_ask, marks); F(statecache_ask, mark_count);
  F(statecache_ask, domain); F(statecache_ask, parent);
  S(statecache_key_run);
  F(statecache_key_run, struct_size); F(statecache_key_run, first_token); F(statecache_key_run, keys);
  F(statecache_key_run, key_count); F(statecache_key_run, parent); F(statecache_key_run, domain);
  S(statecache_point);
  F(statecache_point, struct_size); F(statecache_point, tokens); F(statecache_point, tier);
  F(statecache_point, bytes); F(statecache_point, ready_in_us); F(statecache_point, recompute_us);
  S(statecache_answer);
  F(statecache_answer, struct_size); F(statecache_answer, point_size); F(statecache_answer, state);
  F(statecache_answer, version); F(statecache_answer, best); F(statecache_answer, usable);
  F(statecache_answer, stored); F(statecache_answer, points); F(statecache_answer, point_count);
  F(statecache_answer, wishes); F(statecache_answer, wish_count); F(statecache_answer, owner);
  S(statecache_piece);
  F(statecache_piece, struct_size); F(statecache_piece, group); F(statecache_piece, shard);
  F(statecache_piece, first); F(statecache_piece, valid); F(statecache_piece, tier);
  F(statecache_piece, extent_count); F(statecache_piece, bytes); F(statecache_piece, where);
  S(statecache_lease);
  F(statecache_lease, struct_size); F(statecache_lease, piece_size); F(statecache_lease, tokens);
  F(statecache_lease, pieces); F(statecache_lease, piece_count); F(statecache_lease, owner);
  S(statecache_memory);
  F(statecache_memory, struct_size); F(statecache_memory, group); F(statecache_memory, at);
  F(statecache_memory, valid); F(statecache_memory, pieces); F(statecache_memory, piece_count);
  S(statecache_want);
  F(statecache_want, struct_size); F(statecache_want, group); F(statecache_want, first); F(statecache_want, end);
  F(statecache_want, bytes);
  S(statecache_slot);
  F(statecache_slot, struct_size); F(statecache_slot, group); F(statecache_slot, shard); F(statecache_slot, id);
  F(statecache_slot, first); F(statecache_slot, end); F(statecache_slot, grant);
  F(statecache_slot, extent_count); F(statecache_slot, bytes); F(statecache_slot, where);
  S(statecache_slots);
  F(statecache_slots, struct_size); F(statecache_slots, slot_size); F(statecache_slots, items);
  F(statecache_slots, count); F(statecache_slots, owner);
  S(statecache_filled);
  F(statecache_filled, struct_size); F(statecache_filled, valid); F(statecache_filled, slot);
  S(statecache_report);
  F(statecache_report, struct_size); F(statecache_report, computed); F(statecache_report, prefilled);
  F(statecache_report, prefill_us);
  E(STATECACHE_OK); E(STATECACHE_INVALID_ARGUMENT); E(STATECACHE_NOT_FOUND); E(STATECACHE_ALREADY_EXISTS);
  E(STATECACHE_NO_SPACE); E(STATECACHE_PERMISSION); E(STATECACHE_UNSUPPORTED); E(STATECACHE_IO);
  E(STATECACHE_CORRUPT); E(STATECACHE_VERSION); E(STATECACHE_CLOSED); E(STATECACHE_TIMEOUT); E(STATECACHE_BUSY);
  E(STATECACHE_INTERNAL); E(STATECACHE_NO_MEMORY);
  E(STATECACHE_EVERY); E(STATECACHE_LAST); E(STATECACHE_END);
  E(STATECACHE_BY_TOKENS); E(STATECACHE_BY_KEYS);
  E(STATECACHE_HOLD_NONE); E(STATECACHE_HOLD_SOFT); E(STATECACHE_HOLD_LEASE);
  E(STATECACHE_PENDING); E(STATECACHE_LOADING); E(STATECACHE_READY); E(STATECACHE_FAILED); E(STATECACHE_LOST);
  E(STATECACHE_DEVICE); E(STATECACHE_HOST); E(STATECACHE_NVME); E(STATECACHE_NOWHERE);
  E(STATECACHE_GRANT_PENDING); E(STATECACHE_GRANTED); E(STATECACHE_EXISTS); E(STATECACHE_IN_FLIGHT);
  E(STATECACHE_DECLINED); E(STATECACHE_FULL);
  return 0;
}

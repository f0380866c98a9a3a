// Clients that write through a staging area: where their slots lie, and commits that end later.

#include "daemon/serving/conductor.hpp"

#include <algorithm>

namespace statecached {
namespace {

bool same_object(const SlotGrant& a, const SlotGrant& b) {
  return a.group == b.group && a.first == b.first && a.end == b.end;
}

/// All slots of one object: given up with the first, each must still be said to be written no more.
std::vector<SlotId> shards_of(const SlotGrant& one,
                              const std::vector<SlotGrant>& own,
                              const std::unordered_map<ClientIx, std::vector<SlotGrant>>& others) {
  std::vector<SlotId> out;
  const auto add = [&](const std::vector<SlotGrant>& grants) {
    for (const SlotGrant& grant : grants) {
      if (grant.grant == GrantKind::granted && same_object(grant, one)) out.push_back(grant.slot);
    }
  };
  add(own);
  for (const auto& [ix, grants] : others)
    add(grants);
  return out;
}

}  // namespace

/// Gives each granted slot of a client that has a staging area its place there. An object of which one
/// shard finds none is given up whole, and the reserver is told that there was no space.
void Conductor::place_in_staging(Client& reserver,
                                 std::vector<SlotGrant>& own,
                                 std::unordered_map<ClientIx, std::vector<SlotGrant>>& others,
                                 Instant at) {
  std::vector<SlotGrant> lost;
  const auto place = [&](Client& client, std::vector<SlotGrant>& grants) {
    if (client.staging == nullptr) return;
    for (SlotGrant& grant : grants) {
      if (grant.grant != GrantKind::granted) continue;
      const bool contiguous = client.contiguous[grant.group];
      if (!client.staging->place(grant, options_.staging_arena, contiguous)) lost.push_back(grant);
    }
  };
  place(reserver, own);
  for (auto& [ix, grants] : others)
    place(*find(ix), grants);
  for (const SlotGrant& gone : lost) {
    ++stats_.staging_full;
    // All shards of it end with the one; giving up a second shard of the same object finds nothing.
    static_cast<void>(cache_->abandon(reserver.ix, gone.slot, at));
    for (const SlotId slot : shards_of(gone, own, others))
      static_cast<void>(cache_->abandon(reserver.ix, slot, at));
    const auto forget = [&](Client& client, SlotGrant& grant) {
      if (client.staging) client.staging->free(grant.slot);
      client.slots.erase(grant.slot);
      grant.slot = 0;
      grant.runs.clear();
      grant.shard = 0;
      grant.grant = GrantKind::no_space;
    };
    for (SlotGrant& grant : own) {
      if (grant.grant == GrantKind::granted && same_object(grant, gone)) forget(reserver, grant);
    }
    for (auto& [ix, grants] : others) {
      for (SlotGrant& grant : grants) {
        if (same_object(grant, gone)) forget(*find(ix), grant);
      }
      std::erase_if(grants,
                    [](const SlotGrant& grant) { return grant.grant != GrantKind::granted; });
    }
  }
  std::erase_if(others, [](const auto& entry) { return entry.second.empty(); });
}

void Conductor::commit_staged(Client& client,
                              const wire::Request& record,
                              std::span<const Filled> filled,
                              Instant at) {
  const std::uint64_t number = ++last_commit_;
  StagedCommit commit;
  commit.client = client.ix;
  commit.cookie = record.cookie;
  commit.reply = encode_done(wire::Event::committed, record.ticket, Errc::ok);
  for (const Filled& item : filled) {
    const std::uint64_t token = ++last_token_;
    // Only what this very client was given: it is not believed about anybody else's slots.
    StagedBytes bytes = client.staging->bytes_of(item.slot);
    if (bytes.memory == nullptr || copying_slots_.contains(item.slot) ||
        !cache_->stage(client.ix, item, std::move(bytes), token, at)) {
      if (!copying_slots_.contains(item.slot)) {
        client.staging->free(item.slot);  // its object was given up
        client.slots.erase(item.slot);
      }
      ++commit.reply.completion.b;
      continue;
    }
    copying_slots_.insert(item.slot);
    staged_.emplace(token, StagedSlot{number, client.ix, item.slot});
    ++commit.left;
  }
  if (commit.left == 0) {
    send(client, commit.cookie, std::move(commit.reply));
    return;
  }
  commits_.emplace(number, std::move(commit));
}

/// What the copier has finished since.
void Conductor::finish_staged() {
  for (const auto& [token, committed] : staged_done_) {
    const auto found = staged_.find(token);
    SC_ASSERT(found != staged_.end());
    const StagedSlot slot = found->second;
    staged_.erase(found);
    copying_slots_.erase(slot.slot);
    Client* client = find(slot.client);
    if (client != nullptr) {
      if (client->staging) client->staging->free(slot.slot);
      client->slots.erase(slot.slot);
    }
    StagedCommit& commit = commits_.at(slot.commit);
    ++(committed ? commit.reply.completion.a : commit.reply.completion.b);
    if (--commit.left > 0) continue;
    if (client != nullptr) send(*client, commit.cookie, std::move(commit.reply));
    commits_.erase(slot.commit);
  }
  staged_done_.clear();
}

/// A client that writes nowhere but into its staging area holds no writable memory of ours: its open
/// slots need not wait for the end of its process.
void Conductor::abandon_staged(Client& client, Instant at) {
  if (client.staging == nullptr) return;
  const std::vector<SlotId> slots(client.slots.begin(), client.slots.end());
  for (const SlotId slot : slots) {
    if (copying_slots_.contains(slot)) continue;
    static_cast<void>(cache_->abandon(client.ix, slot, at));
    client.staging->free(slot);
    client.slots.erase(slot);
  }
}

}  // namespace statecached

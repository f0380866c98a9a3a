// Clients that write through a staging area: where their slots lie, and commits that end later.

#include "daemon/serving/conductor.hpp"

#include <algorithm>
#include <utility>

namespace statecached {

/// Gives each slot of a reservation, from number `from` on, its place in the staging area of who is
/// to write it. An object of which one shard finds none is given up whole, and the reserver is told
/// once that there was no space.
void Conductor::place_in_staging(Client& reserver, std::size_t from, Instant at) {
  if (!any_staged_) return;
  std::vector<SlotGrant>& grants = reserver.grants;
  const auto finds_no_room = [&](SlotGrant& grant) {
    const Client* const writer = writer_of(reserver, grant);
    return writer != nullptr && writer->staging != nullptr &&
           !writer->staging->place(grant, options_.staging_arena, writer->contiguous[grant.group]);
  };
  std::size_t kept = from;
  for (std::size_t first = from; first < grants.size();) {
    // The slots of one object follow each other, by shard.
    std::size_t end = first + 1;
    while (end < grants.size() && grants[end].grant == GrantKind::granted && grants[end].shard != 0)
      ++end;
    std::span<SlotGrant> object(grants.data() + first, end - first);
    first = end;
    const bool granted = object.front().grant == GrantKind::granted;
    if (granted && std::ranges::any_of(object, finds_no_room)) {
      ++stats_.staging_full;
      for (const SlotGrant& grant : object) {
        Client* const writer = writer_of(reserver, grant);
        if (writer != nullptr && writer->staging) writer->staging->free(grant.slot);
        // All shards of it end with the first; each must still be said to be written no more.
        static_cast<void>(cache_->abandon(reserver.ix, grant.slot, at));
      }
      object = object.first(1);
      object.front().grant = GrantKind::no_space;
      object.front().slot = 0;
      object.front().shard = 0;
      object.front().runs.clear();
    }
    for (SlotGrant& grant : object) {
      if (&grant != &grants[kept]) grants[kept] = std::move(grant);
      ++kept;
    }
  }
  grants.resize(kept);
}

void Conductor::begin_staged(Client& client) {
  client.commit = ++last_commit_;
  StagedCommit commit;
  commit.client = client.ix;
  commit.cookie = client.record.cookie;
  commit.left = 1;
  commit.reply = encode_done(wire::Event::committed, client.record.ticket, Errc::ok);
  commits_.emplace(client.commit, std::move(commit));
}

bool Conductor::commit_staged(Client& client, const Filled& item, Instant at) {
  const std::uint64_t token = ++last_token_;
  StagedCommit& commit = commits_.at(client.commit);
  const bool copying = copying_slots_.contains(item.slot);
  // Only what this very client was given: it is not believed about anybody else's slots.
  StagedBytes bytes = client.staging->bytes_of(item.slot);
  if (bytes.memory == nullptr || copying ||
      !cache_->stage(client.ix, item, std::move(bytes), token, at)) {
    if (!copying) {
      client.staging->free(item.slot);  // its object was given up
      client.slots.erase(item.slot);
    }
    ++commit.reply.completion.b;
    return false;
  }
  copying_slots_.insert(item.slot);
  staged_.emplace(token, StagedSlot{client.commit, client.ix, item.slot});
  ++commit.left;
  return true;
}

bool Conductor::abandon_one_staged(Client& client, SlotId slot, Instant at) {
  if (!client.staging->holds(slot) || copying_slots_.contains(slot)) return false;
  client.staging->free(slot);
  client.slots.erase(slot);
  return cache_->abandon(client.ix, slot, at);
}

/// All of its list is with the copier, or refused.
void Conductor::end_staged(Client& client) {
  one_staged_less(std::exchange(client.commit, 0));
}

void Conductor::one_staged_less(std::uint64_t number) {
  StagedCommit& commit = commits_.at(number);
  if (--commit.left > 0) return;
  if (Client* const client = find(commit.client)) send(*client, commit.cookie, commit.reply);
  commits_.erase(number);
}

/// What the copier has finished since.
void Conductor::finish_staged() {
  for (const auto& [token, committed] : staged_done_) {
    const auto found = staged_.find(token);
    SC_ASSERT(found != staged_.end());
    const StagedSlot slot = found->second;
    staged_.erase(found);
    copying_slots_.erase(slot.slot);
    if (Client* const client = find(slot.client)) {
      if (client->staging) client->staging->free(slot.slot);
      client->slots.erase(slot.slot);
    }
    StagedCommit& commit = commits_.at(slot.commit);
    ++(committed ? commit.reply.completion.a : commit.reply.completion.b);
    one_staged_less(slot.commit);
  }
  staged_done_.clear();
}

/// A client that writes nowhere but into its staging area holds no writable memory of ours: its
/// open slots need not wait for the end of its process.
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

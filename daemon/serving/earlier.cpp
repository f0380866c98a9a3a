// Processes that were attached to an earlier daemon and may still use its memory, and the entries
// of our own clients in the table that a later daemon will find.

#include "base/log.hpp"
#include "daemon/serving/conductor.hpp"

#include <algorithm>

namespace statecached {

void Conductor::adopt(HostTable& table) {
  for (const auto& [entry, kept] : table.clients()) {
    if (!kept.holds) {
      table.remove_client(entry);
      continue;
    }
    earlier_.push_back({entry, kept, false, {}, 0});
  }
  cache_->adopt(now());
  settle_earlier();
}

std::vector<KeptClient> Conductor::earlier() const {
  std::vector<KeptClient> out;
  for (const Earlier& one : earlier_)
    out.push_back(one.who);
  return out;
}

void Conductor::earlier_gone(std::int32_t pid, std::uint64_t started) {
  const auto gone = [&](const Earlier& one) {
    if (one.who.pid != pid || one.who.started != started) return false;
    table_->remove_client(one.entry);
    return true;
  };
  if (std::erase_if(earlier_, gone) > 0) settle_earlier();
}

/// It attached anew and said what it still uses.
void Conductor::earlier_declared(ClientIx client, const MemberInfo& member) {
  bool changed = false;
  for (Earlier& one : earlier_) {
    if (one.who.session != member.session || one.who.pid != member.pid) continue;
    one.declared = true;
    one.now_client = client;
    one.in_use = member.in_use;
    changed = true;
  }
  if (!changed) return;
  if (member.in_use.empty()) return earlier_done(client);
  settle_earlier();
}

/// It uses nothing of before any more.
void Conductor::earlier_done(ClientIx client) {
  const auto done = [&](const Earlier& one) {
    if (!one.declared || one.now_client != client) return false;
    table_->remove_client(one.entry);
    return true;
  };
  if (std::erase_if(earlier_, done) > 0) settle_earlier();
}

void Conductor::settle_earlier() {
  std::vector<Extent> in_use;
  bool all = true;
  for (const Earlier& one : earlier_) {
    all = all && one.declared;
    in_use.insert(in_use.end(), one.in_use.begin(), one.in_use.end());
  }
  cache_->settle(in_use, all, now());
  if (earlier_.empty()) log::info("nothing of before is in use any more");
}

void Conductor::may_hold(Client& client) {
  if (client.may_hold || table_ == nullptr) return;
  client.may_hold = true;
  table_->set_holds(client.table_entry, true);
}

void Conductor::holds_nothing(Client& client) {
  if (!client.may_hold || !client.tickets.empty() || !client.slots.empty()) return;
  client.may_hold = false;
  table_->set_holds(client.table_entry, false);
}

}  // namespace statecached

// Members that end, and what they were writing: nothing comes back while somebody may still write
// there.

#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {

void CacheImpl::detach(ClientIx ix, Instant now) {
  ClientInfo& client = clients_.at(ix);
  if (!client.attached) return;
  client.attached = false;
  // What is with the copier was committed while it lived.
  std::erase_if(client.slots,
                [&](std::uint64_t id) { return slots_[static_cast<std::uint32_t>(id)].copying; });
  while (!client.slots.empty()) {
    const std::uint64_t id = *client.slots.begin();
    if (!abandon(ix, id, now)) client.slots.erase(id);
  }
  while (!client.tickets.empty()) {
    const TicketName name = *client.tickets.begin();
    client.tickets.erase(name);
    Ticket* ticket = find_ticket(name);
    if (ticket == nullptr) continue;
    std::erase(ticket->joined, ix);
    if (ticket->joined.empty()) {
      end_ticket(name, now);
      continue;
    }
    // One that had released its part is counted already.
    const bool had = std::find(ticket->released_by.begin(), ticket->released_by.end(), ix) !=
                     ticket->released_by.end();
    if (!had && ticket->members > 1) --ticket->members;
    if (ticket->released >= ticket->members) {
      ticket->want_lease = false;
      let_go(*ticket, now);
    }
    maybe_end(*ticket, now);
  }
  --spaces_[client.space].clients;
}

/// An object that is given up while somebody writes into its space: that comes back afterwards. A
/// client that writes in place says by commit, abandon or its end that it does so no more.
void CacheImpl::condemn(ObjectIx o) {
  Resident& resident = residents_[o];
  const std::uint64_t number = next_condemned_++;
  Condemned waiting;
  waiting.tier = resident.home;
  waiting.runs = std::move(resident.runs[index(resident.home)]);
  for (auto& [tag, job] : stage_jobs_) {
    if (job.object != o) continue;
    job.object = kNil;
    job.condemned = number;
    jobs_.at(tag).objects.clear();
    ++waiting.writers;
  }
  SC_ASSERT(waiting.writers == resident.copies_in);
  while (!resident.slots.empty()) {
    const std::uint32_t s = resident.slots.back();
    Slot& slot = slots_[s];
    const ClientInfo& writer = clients_[slot.client];
    if (slot.copying || !writer.attached || !writer.member.may_write) {
      close_slot(s);
      continue;
    }
    resident.slots.pop_back();
    if (Ticket* ticket = find_ticket(slot.ticket); ticket != nullptr) --ticket->open_slots;
    slot.object = kNil;
    slot.condemned = number;
    ++waiting.writers;
  }
  if (waiting.writers == 0) {
    space_of(waiting.tier).free(waiting.runs);
  } else {
    condemned_.emplace(number, std::move(waiting));
  }
}

void CacheImpl::one_writer_less(std::uint64_t condemned) {
  const auto waiting = condemned_.find(condemned);
  SC_ASSERT(waiting != condemned_.end());
  if (--waiting->second.writers > 0) return;
  space_of(waiting->second.tier).free(waiting->second.runs);
  condemned_.erase(waiting);
}

/// The writer of a slot whose object was given up says that it writes there no more. False: it is
/// no such slot.
bool CacheImpl::end_condemned(std::uint32_t s) {
  Slot& slot = slots_[s];
  if (slot.object != kNil) return false;
  const std::uint64_t condemned = slot.condemned;
  slot.open = false;
  slot.condemned = 0;
  clients_[slot.client].slots.erase(std::uint64_t{slot.generation} << 32U | s);
  free_slots_.push_back(s);
  one_writer_less(condemned);
  return true;
}

bool CacheImpl::hand(SlotId id, ClientIx to) {
  const auto s = static_cast<std::uint32_t>(id);
  if (s >= slots_.size() || !slots_[s].open || slots_[s].generation != id >> 32U) return false;
  clients_[slots_[s].client].slots.erase(id);
  slots_[s].client = to;
  clients_.at(to).slots.insert(id);
  return true;
}

}  // namespace statecached

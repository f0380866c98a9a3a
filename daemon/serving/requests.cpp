// One record of a client: checked, turned into a call of the Cache, answered.

#include "base/log.hpp"
#include "daemon/serving/conductor.hpp"

namespace statecached {

void Conductor::handle(Client& client,
                       const wire::Request& record,
                       std::span<const std::byte> payload,
                       Instant at) {
  ++client.records;
  ++stats_.records[record.op < kOps ? record.op : 0];
  const auto done = dispatch(client, record, payload, at);
  if (done) return;
  const Error& error = done.error();
  if (error.code == Errc::invalid_argument) {
    ++stats_.bad_records;
    log::debug("client {}: bad record (op {}): {}", client.ix, record.op, error.text);
  }
  send_done(client, record, error.code);
}

Result<> Conductor::dispatch(Client& client,
                             const wire::Request& record,
                             std::span<const std::byte> payload,
                             Instant at) {
  if (record.flags != 0)
    return fail(Errc::invalid_argument, "flags that this version does not know");
  switch (static_cast<wire::Op>(record.op)) {
    case wire::Op::begin:
      return begin(client, record, payload, at);
    case wire::Op::join:
      return join(client, record, at);
    case wire::Op::refresh:
      return refresh(client, record, at);
    case wire::Op::acquire:
      return acquire(client, record, at);
    case wire::Op::append:
      return append(client, record, payload, at);
    case wire::Op::reserve:
      return reserve(client, record, payload, at);
    case wire::Op::commit:
      return commit(client, record, payload, at);
    case wire::Op::abandon:
      return abandon(client, record, payload, at);
    case wire::Op::taint:
    case wire::Op::finish:
    case wire::Op::release:
    case wire::Op::cancel:
    case wire::Op::invalidate:
      return end(client, record, at);
    case wire::Op::let_go:
      earlier_done(client.ix);
      send_done(client, record, Errc::ok);
      return {};
  }
  return fail(Errc::invalid_argument, fmt::format("op {} is unknown", record.op));
}

Result<> Conductor::begin(Client& client,
                          const wire::Request& record,
                          std::span<const std::byte> payload,
                          Instant at) {
  if (client.tickets.size() >= options_.tickets_max) {
    return fail(Errc::busy,
                fmt::format("{} requests are open, limits.inflight", client.tickets.size()));
  }
  SC_ASSIGN(const BeginRequest request,
            client.keyed ? decode_begin_keys(record, payload) : decode_begin(record, payload));
  SC_ASSIGN(const Answer* answer, cache_->begin(client.ix, record.ticket, request, at));
  client.tickets.insert(record.ticket);
  send_answer(client, record.cookie, record.ticket, *answer);
  if (const Lease* lease = cache_->lease(record.ticket))
    send_lease(client, record.cookie, record.ticket, *lease);
  stats_.begin_ns.record(static_cast<std::uint64_t>((now() - at).count()));
  return {};
}

Result<> Conductor::join(Client& client, const wire::Request& record, Instant at) {
  SC_TRY(cache_->join(client.ix, record.ticket, at));
  client.tickets.insert(record.ticket);
  SC_ASSIGN(const Answer* answer, cache_->answer(record.ticket));
  // Exactly one completion carries the cookie: the lease where there is one, else the answer so
  // far.
  const Lease* lease = cache_->lease(record.ticket);
  send_answer(client, lease == nullptr ? record.cookie : 0, record.ticket, *answer);
  if (lease != nullptr) send_lease(client, record.cookie, record.ticket, *lease);
  if (!unclaimed_.empty()) claim(client, record.ticket, at);
  return {};
}

Result<> Conductor::refresh(Client& client, const wire::Request& record, Instant at) {
  SC_ASSIGN(const Answer* answer, cache_->refresh(client.ix, record.ticket, at));
  send_answer(client, record.cookie, record.ticket, *answer);
  return {};
}

Result<> Conductor::acquire(Client& client, const wire::Request& record, Instant at) {
  SC_ASSIGN(const Lease* lease,
            cache_->acquire(client.ix, record.ticket, record.a, Have{record.b, record.c}, at));
  send_lease(client, record.cookie, record.ticket, *lease);
  for (const ClientIx ix : cache_->members(record.ticket)) {
    if (ix == client.ix) continue;
    if (Client* other = find(ix)) send_lease(*other, 0, record.ticket, *lease);
  }
  return {};
}

Result<> Conductor::append(Client& client,
                           const wire::Request& record,
                           std::span<const std::byte> payload,
                           Instant at) {
  if (client.keyed) {
    SC_ASSIGN(const auto keys, decode_keys(record, payload));
    SC_TRY(cache_->append_keys(client.ix, record.ticket, keys, record.b));
    send_done(client, record, Errc::ok);
    return {};
  }
  SC_ASSIGN(const AppendArgs args, decode_append(record, payload));
  SC_TRY(cache_->append(client.ix, record.ticket, args.tokens, args.marks, record.b, at));
  send_done(client, record, Errc::ok);
  return {};
}

Result<> Conductor::reserve(Client& client,
                            const wire::Request& record,
                            std::span<const std::byte> payload,
                            Instant at) {
  SC_ASSIGN(client.wants, decode_wants(record, payload, client.groups, std::move(client.wants)));
  client.grants.clear();
  client.grants.reserve(client.wants.size());  // growing it would copy all of them in one step
  begin_list(client, Client::Doing::reserve);
  go_on(client, at);
  return {};
}

Result<> Conductor::commit(Client& client,
                           const wire::Request& record,
                           std::span<const std::byte> payload,
                           Instant at) {
  SC_ASSIGN(client.filled, decode_filled(record, payload, std::move(client.filled)));
  begin_list(client, Client::Doing::commit);
  if (client.staging) begin_staged(client);
  go_on(client, at);
  return {};
}

Result<> Conductor::abandon(Client& client,
                            const wire::Request& record,
                            std::span<const std::byte> payload,
                            Instant at) {
  SC_ASSIGN(client.abandoned, decode_slots(record, payload, std::move(client.abandoned)));
  begin_list(client, Client::Doing::abandon);
  go_on(client, at);
  return {};
}

void Conductor::begin_list(Client& client, Client::Doing doing) {
  client.doing = doing;
  client.done = 0;
  client.accepted = 0;
  client.refused = 0;
}

Result<bool> Conductor::some_wants(Client& client, Instant at) {
  constexpr std::size_t kAtOnce = 2;  // between two looks at the clock
  const std::span<const WantItem> wants(client.wants);
  const Instant until = now() + options_.slice;
  do {
    const auto part = wants.subspan(client.done, std::min(kAtOnce, wants.size() - client.done));
    const std::size_t before = client.grants.size();
    SC_TRY(cache_->reserve(client.ix, client.record.ticket, part, at, client.grants));
    place_in_staging(client, before, at);
    client.done += part.size();
  } while (client.done < wants.size() && now() < until);
  return client.done == wants.size();
}

void Conductor::go_on(Client& client, Instant at) {
  const Instant until = now() + options_.slice;
  if (client.doing == Client::Doing::reserve) {
    const auto whole = some_wants(client, at);
    if (whole && !*whole) return;
    client.doing = Client::Doing::nothing;
    if (whole) {
      send_slots(client);
    } else {
      give_back_grants(client, at);
      send_done(client, client.record, whole.error().code);
    }
    return;
  }
  const bool committing = client.doing == Client::Doing::commit;
  const std::size_t count = committing ? client.filled.size() : client.abandoned.size();
  while (client.done < count) {
    const std::size_t i = client.done++;
    const SlotId slot = committing ? client.filled[i].slot : client.abandoned[i];
    if (client.staging) {
      const bool accepted = committing ? commit_staged(client, client.filled[i], at)
                                       : abandon_one_staged(client, slot, at);
      if (!committing) ++(accepted ? client.accepted : client.refused);
    } else {
      const bool accepted = committing ? cache_->commit(client.ix, client.filled[i], at)
                                       : cache_->abandon(client.ix, slot, at);
      ++(accepted ? client.accepted : client.refused);
      client.slots.erase(slot);
    }
    if (client.done < count && now() >= until) return;
  }
  client.doing = Client::Doing::nothing;
  if (client.commit != 0) return end_staged(client);
  Reply reply = encode_done(
      committing ? wire::Event::committed : wire::Event::done, client.record.ticket, Errc::ok);
  reply.completion.a = client.accepted;
  reply.completion.b = client.refused;
  send(client, client.record.cookie, reply);
}

/// The ticket ended between two slices of its own reservation (another member cancelled it): what
/// was granted so far is told to nobody.
void Conductor::give_back_grants(Client& client, Instant at) {
  for (const SlotGrant& grant : client.grants) {
    if (grant.grant != GrantKind::granted) continue;
    Client* const writer = writer_of(client, grant);
    if (writer != nullptr && writer->staging) writer->staging->free(grant.slot);
    static_cast<void>(cache_->abandon(client.ix, grant.slot, at));
  }
  client.grants.clear();
}

void Conductor::send_slots(Client& client) {
  // Each granted shard goes to one process: the reserver's own to it, another to the member that
  // has it.
  std::unordered_map<ClientIx, std::vector<SlotGrant>> others;
  std::size_t own = 0;
  for (std::size_t i = 0; i < client.grants.size(); ++i) {
    SlotGrant& grant = client.grants[i];
    if (grant.grant != GrantKind::granted || grant.shard == shard_of(client.member, grant.group)) {
      if (grant.grant == GrantKind::granted) client.slots.insert(grant.slot);
      if (own != i) client.grants[own] = std::move(grant);
      ++own;
      continue;
    }
    if (Client* const other = writer_of(client, grant)) {
      // false: its object was given up meanwhile
      static_cast<void>(cache_->hand(grant.slot, other->ix));
      other->slots.insert(grant.slot);
      others[other->ix].push_back(std::move(grant));
    } else {
      Unclaimed& waiting = unclaimed_[client.record.ticket];
      waiting.reserver = client.ix;
      waiting.since = now();
      waiting.grants.push_back(std::move(grant));
    }
  }
  may_hold(client);
  const TicketName ticket = client.record.ticket;
  reply_ = encode_slots(
      ticket, std::span(client.grants).first(own), client.member.host_base, std::move(reply_));
  send(client, client.record.cookie, reply_);
  for (auto& [ix, list] : others) {
    Client& other = *find(ix);
    may_hold(other);
    reply_ = encode_slots(ticket, list, other.member.host_base, std::move(reply_));
    send(other, 0, reply_);
  }
}

Conductor::Client* Conductor::writer_of(Client& reserver, const SlotGrant& grant) {
  if (grant.shard == shard_of(reserver.member, grant.group)) return &reserver;
  for (const ClientIx ix : cache_->members(reserver.record.ticket)) {
    Client* const other = ix == reserver.ix ? nullptr : find(ix);
    if (other != nullptr && grant.shard == shard_of(other->member, grant.group)) return other;
  }
  return nullptr;
}

/// Who joins a ticket after something was reserved gets its shards of that now.
void Conductor::claim(Client& client, const TicketName& ticket, Instant at) {
  const auto found = unclaimed_.find(ticket);
  if (found == unclaimed_.end()) return;
  std::vector<SlotGrant>& grants = found->second.grants;
  std::vector<SlotGrant> mine;
  std::erase_if(grants, [&](SlotGrant& grant) {
    if (grant.shard != shard_of(client.member, grant.group)) return false;
    if (!cache_->hand(grant.slot, client.ix)) return true;  // its object was given up meanwhile
    if (client.staging &&
        !client.staging->place(grant, options_.staging_arena, client.contiguous[grant.group])) {
      ++stats_.staging_full;
      static_cast<void>(cache_->abandon(client.ix, grant.slot, at));
      return true;
    }
    client.slots.insert(grant.slot);
    mine.push_back(std::move(grant));
    return true;
  });
  if (grants.empty()) unclaimed_.erase(found);
  if (mine.empty()) return;
  may_hold(client);
  reply_ = encode_slots(ticket, mine, client.member.host_base, std::move(reply_));
  send(client, 0, reply_);
}

/// An object of which a shard will be written by nobody is given up whole.
void Conductor::give_up_unclaimed(const TicketName& ticket, Instant at) {
  const auto found = unclaimed_.find(ticket);
  if (found == unclaimed_.end()) return;
  const Unclaimed waiting = std::move(found->second);
  unclaimed_.erase(found);
  for (const SlotGrant& grant : waiting.grants)
    static_cast<void>(cache_->abandon(waiting.reserver, grant.slot, at));
}

void Conductor::expire_unclaimed(Instant at) {
  if (at - unclaimed_seen_ < std::chrono::milliseconds(100)) return;
  unclaimed_seen_ = at;
  std::vector<TicketName> late;
  for (const auto& [ticket, waiting] : unclaimed_) {
    if (at - waiting.since > reservation_age_ || !cache_->answer(ticket)) late.push_back(ticket);
  }
  for (const TicketName& ticket : late)
    give_up_unclaimed(ticket, at);
}

Result<> Conductor::end(Client& client, const wire::Request& record, Instant at) {
  switch (static_cast<wire::Op>(record.op)) {
    case wire::Op::taint:
      SC_TRY(cache_->taint(client.ix, record.ticket, at));
      break;
    case wire::Op::finish: {
      constexpr std::uint64_t kLongest = 24ULL * 3600 * 1'000'000'000;
      if (record.d > kLongest) return fail(Errc::invalid_argument, "a prefill of more than a day");
      SC_TRY(cache_->finish(client.ix,
                            record.ticket,
                            record.a,
                            record.b,
                            Nanos{static_cast<std::int64_t>(record.d)},
                            at));
      break;
    }
    case wire::Op::release:
      client.tickets.erase(record.ticket);
      SC_TRY(cache_->release(client.ix, record.ticket, at));
      break;
    case wire::Op::cancel:
      client.tickets.erase(record.ticket);
      SC_TRY(cache_->cancel(client.ix, record.ticket, at));
      if (!unclaimed_.empty()) give_up_unclaimed(record.ticket, at);
      break;
    case wire::Op::invalidate:
      SC_TRY(cache_->invalidate(client.ix, at));
      break;
    default:
      SC_ASSERT(false);
  }
  send_done(client, record, Errc::ok);
  return {};
}

void Conductor::send_done(Client& client, const wire::Request& record, Errc code) {
  Reply reply = encode_done(wire::Event::done, record.ticket, code);
  send(client, record.cookie, reply);
}

void Conductor::send_answer(Client& client,
                            std::uint32_t cookie,
                            const TicketName& ticket,
                            const Answer& answer) {
  answer_reply_ = encode_answer(ticket, answer, std::move(answer_reply_));
  send(client, cookie, answer_reply_);
}

void Conductor::send_lease(Client& client,
                           std::uint32_t cookie,
                           const TicketName& ticket,
                           const Lease& lease) {
  may_hold(client);
  reply_ = encode_lease(ticket, lease, client.member, std::move(reply_));
  send(client, cookie, reply_);
}

}  // namespace statecached

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
  if (client.keyed) return fail(Errc::unsupported, "this version serves token namespaces only");
  if (client.tickets.size() >= options_.tickets_max) {
    return fail(Errc::busy,
                fmt::format("{} requests are open, limits.inflight", client.tickets.size()));
  }
  SC_ASSIGN(const BeginRequest request, decode_begin(record, payload));
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
  SC_ASSIGN(const AppendArgs args, decode_append(record, payload));
  SC_TRY(cache_->append(client.ix, record.ticket, args.tokens, args.marks, record.b, at));
  send_done(client, record, Errc::ok);
  return {};
}

Result<> Conductor::reserve(Client& client,
                            const wire::Request& record,
                            std::span<const std::byte> payload,
                            Instant at) {
  SC_ASSIGN(const std::vector<WantItem> wants, decode_wants(record, payload, client.groups));
  SC_ASSIGN(const std::vector<SlotGrant> grants,
            cache_->reserve(client.ix, record.ticket, wants, at));
  // Each granted shard goes to one process: the reserver's own to it, another to the member that
  // has it.
  std::vector<SlotGrant> own;
  std::unordered_map<ClientIx, std::vector<SlotGrant>> others;
  const std::vector<ClientIx> members = cache_->members(record.ticket);
  for (const SlotGrant& grant : grants) {
    if (grant.grant != GrantKind::granted || grant.shard == shard_of(client.member, grant.group)) {
      own.push_back(grant);
      if (grant.grant == GrantKind::granted) client.slots.insert(grant.slot);
      continue;
    }
    for (const ClientIx ix : members) {
      Client* other = ix == client.ix ? nullptr : find(ix);
      if (other == nullptr || grant.shard != shard_of(other->member, grant.group)) continue;
      static_cast<void>(cache_->hand(grant.slot, ix));  // granted just now: it is open
      others[ix].push_back(grant);
      other->slots.insert(grant.slot);
      break;
    }
  }
  place_in_staging(client, own, others, at);
  may_hold(client);
  for (const auto& [ix, list] : others)
    may_hold(*find(ix));
  send(client, record.cookie, encode_slots(record.ticket, own, client.member.host_base));
  for (auto& [ix, list] : others)
    send(*find(ix), 0, encode_slots(record.ticket, list, find(ix)->member.host_base));
  return {};
}

Result<> Conductor::commit(Client& client,
                           const wire::Request& record,
                           std::span<const std::byte> payload,
                           Instant at) {
  SC_ASSIGN(const std::vector<Filled> filled, decode_filled(record, payload));
  if (client.staging) {
    commit_staged(client, record, filled, at);
    return {};
  }
  Reply reply = encode_done(wire::Event::committed, record.ticket, Errc::ok);
  for (const Filled& item : filled) {
    ++(cache_->commit(client.ix, item, at) ? reply.completion.a : reply.completion.b);
    client.slots.erase(item.slot);
  }
  send(client, record.cookie, std::move(reply));
  return {};
}

Result<> Conductor::abandon(Client& client,
                            const wire::Request& record,
                            std::span<const std::byte> payload,
                            Instant at) {
  SC_ASSIGN(const std::vector<SlotId> slots, decode_slots(record, payload));
  Reply reply = encode_done(wire::Event::done, record.ticket, Errc::ok);
  for (const SlotId slot : slots) {
    if (client.staging) {
      if (!client.staging->holds(slot) || copying_slots_.contains(slot)) {
        ++reply.completion.b;
        continue;
      }
      client.staging->free(slot);
    }
    ++(cache_->abandon(client.ix, slot, at) ? reply.completion.a : reply.completion.b);
    client.slots.erase(slot);
  }
  send(client, record.cookie, std::move(reply));
  return {};
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
  send(client, record.cookie, encode_done(wire::Event::done, record.ticket, code));
}

void Conductor::send_answer(Client& client,
                            std::uint32_t cookie,
                            const TicketName& ticket,
                            const Answer& answer) {
  send(client, cookie, encode_answer(ticket, answer));
}

void Conductor::send_lease(Client& client,
                           std::uint32_t cookie,
                           const TicketName& ticket,
                           const Lease& lease) {
  may_hold(client);
  send(client, cookie, encode_lease(ticket, lease, client.member));
}

}  // namespace statecached

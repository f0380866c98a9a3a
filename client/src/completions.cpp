// What the daemon says: completions, checked and turned into the state of tickets.

#include "client/src/impl.hpp"

#include <algorithm>
#include <cstring>

namespace statecache {
namespace {

/// Takes `count` records off the front; false when there are not so many bytes.
template <class T>
bool read_records(std::span<const std::byte>& from, std::size_t count, std::vector<T>& out) {
  if (count > from.size() / sizeof(T)) return false;
  out.resize(count);
  if (count != 0) std::memcpy(out.data(), from.data(), count * sizeof(T));
  from = from.subspan(count * sizeof(T));
  return true;
}

void mark_lost(Ticket& ticket) {
  ticket.lost_heard = true;
  ++ticket.answer.version;
  ticket.answer.state = State::lost;
  ticket.answer.best = 0;
  ticket.answer.usable = 0;
  ticket.answer.points.clear();
}

}  // namespace

void Session::Impl::on_completion(const wire::Completion& completion, std::span<const std::byte> payload) {
  Pending answered;
  bool known = false;
  if (const auto found = pending.find(completion.cookie); found != pending.end()) {
    answered = found->second;
    pending.erase(found);
    known = true;
  }
  TicketId id = answered.ticket;
  if (id == 0 && !completion.ticket.is_zero()) {
    const auto named = by_name.find(completion.ticket);
    if (named != by_name.end()) id = named->second;
  }
  Ticket* ticket = find(id);
  if (known && ticket != nullptr) {
    --ticket->unanswered;
    if (answered.op == wire::Op::begin || answered.op == wire::Op::refresh) --ticket->asks_unanswered;
    if (answered.op == wire::Op::reserve && !answered.internal) --ticket->reserves_unanswered;
  }
  if (completion.code != 0) {
    if (known) {
      on_failure(answered, ticket, completion.cookie, to_errc(completion.code));
    } else if (ticket != nullptr && ticket->lease_wanted && !ticket->leased) {
      // News of a lease that could not be told (too many pieces for the reply area).
      ticket->lease_error = failure(to_errc(completion.code), "the daemon could not hand out the lease");
    }
    forget_if_done(id);
    return;
  }
  switch (static_cast<wire::Event>(completion.event)) {
    case wire::Event::answer:
      if (ticket != nullptr) on_answer(*ticket, payload);
      break;
    case wire::Event::leased:
      if (ticket != nullptr) on_leased(*ticket, completion, payload);
      break;
    case wire::Event::slots:
      on_slots(completion, known ? &answered : nullptr, ticket, payload);
      break;
    case wire::Event::committed:
      counters.committed += completion.a;
      counters.refused += completion.b;
      break;
    case wire::Event::done: break;
    case wire::Event::lost:
      if (ticket != nullptr) mark_lost(*ticket);
      break;
    default: distrust(); break;
  }
  forget_if_done(id);
}

void Session::Impl::on_failure(const Pending& answered, Ticket* ticket, std::uint32_t cookie, Errc code) {
  ++counters.errors;
  Status error = failure(code, "the daemon refused this request");
  if (answered.internal) {
    if (const auto found = internal.find(cookie); found != internal.end()) {
      found->second.answered = true;
      found->second.error = error;
    }
  }
  if (ticket == nullptr) return;
  switch (answered.op) {
    case wire::Op::begin:
      ticket->answer.state = State::failed;
      ++ticket->answer.version;
      ticket->lease_error = error;
      break;
    case wire::Op::join: mark_lost(*ticket); break;
    case wire::Op::refresh:
      if (code == Errc::not_found) mark_lost(*ticket);
      break;
    case wire::Op::acquire: ticket->lease_error = error; break;
    case wire::Op::reserve:
      if (!answered.internal) ticket->reserve_error = error;
      break;
    case wire::Op::finish:
    case wire::Op::release:
    case wire::Op::cancel:
      // The ticket ended by itself meanwhile: that is what was wanted.
      if (code == Errc::not_found) return;
      break;
    default: break;
  }
  if (ticket->first_error.ok()) ticket->first_error = std::move(error);
}

void Session::Impl::on_answer(Ticket& ticket, std::span<const std::byte> payload) {
  std::vector<wire::AnswerRecord> head;
  std::vector<wire::PointRecord> points;
  Answer out;
  if (!read_records(payload, 1, head) || !read_records(payload, head[0].points, points) ||
      !read_records(payload, head[0].wishes, out.wishes) || !payload.empty() ||
      head[0].state > static_cast<std::uint8_t>(State::lost)) {
    distrust();
    return;
  }
  out.state = static_cast<State>(head[0].state);
  out.version = head[0].version;
  out.best = head[0].best;
  out.usable = head[0].usable;
  out.stored = head[0].stored;
  out.points.reserve(points.size());
  for (const wire::PointRecord& point : points) {
    out.points.push_back(Point{.tokens = point.tokens,
                               .tier = static_cast<Tier>(point.tier),
                               .bytes = point.bytes,
                               .ready_in = Micros(point.ready_in_us),
                               .recompute = Micros(point.recompute_us)});
  }
  if (out.state == State::lost) ticket.lost_heard = true;
  ticket.answer = std::move(out);
}

void Session::Impl::on_leased(Ticket& ticket, const wire::Completion& completion,
                              std::span<const std::byte> payload) {
  std::vector<wire::PieceRecord> records;
  std::vector<wire::ExtentRecord> table;
  if (!read_records(payload, completion.b, records) || !read_records(payload, completion.c, table) ||
      !payload.empty()) {
    distrust();
    return;
  }
  Lease lease;
  lease.tokens = completion.a;
  lease.pieces.reserve(records.size());
  for (const wire::PieceRecord& record : records) {
    Piece piece{.group = record.group,
                .shard = record.shard,
                .first = record.first,
                .valid = record.valid,
                .tier = static_cast<Tier>(record.tier_at_begin),
                .bytes = record.bytes,
                .where = {}};
    if (!resolve(record.arena, record.extents, record.offset, record.bytes, table, piece.where)) {
      distrust();
      return;
    }
    lease.pieces.push_back(std::move(piece));
  }
  ticket.lease = std::move(lease);
  ticket.leased = true;
  ticket.lease_error = {};
}

void Session::Impl::on_slots(const wire::Completion& completion, const Pending* answered, Ticket* ticket,
                             std::span<const std::byte> payload) {
  std::vector<wire::SlotRecord> records;
  std::vector<wire::ExtentRecord> table;
  if (!read_records(payload, completion.a, records) || !read_records(payload, completion.b, table) ||
      !payload.empty()) {
    distrust();
    return;
  }
  std::vector<Slot> slots;
  slots.reserve(records.size());
  for (const wire::SlotRecord& record : records) {
    Slot slot{.id = record.slot,
              .group = record.group,
              .shard = record.shard,
              .first = record.first,
              .end = record.end,
              .grant = static_cast<Grant>(record.grant),
              .bytes = record.bytes,
              .where = {}};
    if (record.grant > static_cast<std::uint8_t>(Grant::no_space)) {
      distrust();
      return;
    }
    if (slot.grant == Grant::granted) {
      const bool there = resolve(record.arena, record.extents, record.offset, record.bytes, table, slot.where);
      if (!there || !arenas[record.arena].writable) {
        distrust();
        return;
      }
      OpenSlot& open = open_slots[slot.id];
      open.run = run_;
      open.where.clear();
      if (record.arena == 0 && !arenas[0].staging) {
        for (const Extent& extent : slot.where)
          open.where.push_back({static_cast<std::uint64_t>(extent.data - arenas[0].map.data()), extent.bytes});
      }
    } else {
      slot.id = 0;
    }
    slots.push_back(std::move(slot));
  }
  if (answered != nullptr && answered->internal) {
    const auto found = internal.find(completion.cookie);
    if (found == internal.end()) {  // write_from gave up waiting
      give_back(slots);
      return;
    }
    found->second.answered = true;
    found->second.slots = std::move(slots);
  } else if (ticket == nullptr) {
    give_back(slots);
  } else {
    std::ranges::move(slots, std::back_inserter(ticket->slots));
  }
}

bool Session::Impl::resolve(std::uint8_t arena, std::uint16_t extents, std::uint64_t offset, std::uint64_t bytes,
                            std::span<const wire::ExtentRecord> table, std::vector<Extent>& out) const {
  if (arena >= arenas.size()) return false;
  const base::Mapping& map = arenas[arena].map;
  std::uint64_t left = bytes;
  const auto add = [&](std::uint64_t at, std::uint64_t size) {
    if (at > map.size() || size > map.size() - at) return false;
    // An extent may be padded; the payload ends where `bytes` says.
    const std::uint64_t used = std::min(size, left);
    if (used != 0) out.push_back(Extent{map.data() + at, used});
    left -= used;
    return true;
  };
  if (extents == 1) return add(offset, bytes);
  if (offset > table.size() || extents > table.size() - offset) return false;
  for (const wire::ExtentRecord& extent : table.subspan(offset, extents)) {
    if (!add(extent.offset, extent.bytes)) return false;
  }
  return left == 0;
}

}  // namespace statecache

// What the daemon says: completions, checked and turned into the state of tickets.

#include "client/src/impl.hpp"

#include <algorithm>
#include <cstring>

namespace statecache {
namespace {

/// The first `count` records of `from`, which is left with what follows them; false when there are
/// not so many bytes. They are plain bytes still: record_at() copies one out.
template <class T>
bool take_records(std::span<const std::byte>& from,
                  std::size_t count,
                  std::span<const std::byte>& out) {
  if (count > from.size() / sizeof(T)) return false;
  out = from.first(count * sizeof(T));
  from = from.subspan(count * sizeof(T));
  return true;
}

template <class T>
T record_at(std::span<const std::byte> records, std::size_t at) noexcept {
  T out;
  std::memcpy(&out, records.data() + at * sizeof(T), sizeof(T));
  return out;
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

void Session::Impl::on_completion(const wire::Completion& completion,
                                  std::span<const std::byte> payload) {
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
    if (answered.op == wire::Op::begin || answered.op == wire::Op::refresh)
      --ticket->asks_unanswered;
    if (answered.op == wire::Op::reserve && !answered.internal) --ticket->reserves_unanswered;
  }
  if (completion.code != 0) {
    if (known) {
      on_failure(answered, ticket, completion.cookie, to_errc(completion.code));
    } else if (ticket != nullptr && ticket->lease_wanted && !ticket->leased) {
      // News of a lease that could not be told (too many pieces for the reply area).
      ticket->lease_error =
          failure(to_errc(completion.code), "the daemon could not hand out the lease");
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
    case wire::Event::done:
      break;
    case wire::Event::lost:
      if (ticket != nullptr) mark_lost(*ticket);
      break;
    default:
      distrust();
      break;
  }
  forget_if_done(id);
}

void Session::Impl::on_failure(const Pending& answered,
                               Ticket* ticket,
                               std::uint32_t cookie,
                               Errc code) {
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
    case wire::Op::join:
      mark_lost(*ticket);
      break;
    case wire::Op::refresh:
      if (code == Errc::not_found) mark_lost(*ticket);
      break;
    case wire::Op::acquire:
      ticket->lease_error = error;
      break;
    case wire::Op::reserve:
      if (!answered.internal) ticket->reserve_error = error;
      break;
    case wire::Op::finish:
    case wire::Op::release:
    case wire::Op::cancel:
      // The ticket ended by itself meanwhile: that is what was wanted.
      if (code == Errc::not_found) return;
      break;
    default:
      break;
  }
  if (ticket->first_error.ok()) ticket->first_error = std::move(error);
}

void Session::Impl::on_answer(Ticket& ticket, std::span<const std::byte> payload) {
  std::span<const std::byte> head_bytes;
  std::span<const std::byte> points;
  std::span<const std::byte> wishes;
  if (!take_records<wire::AnswerRecord>(payload, 1, head_bytes)) {
    distrust();
    return;
  }
  const auto head = record_at<wire::AnswerRecord>(head_bytes, 0);
  if (!take_records<wire::PointRecord>(payload, head.points, points) ||
      !take_records<std::uint32_t>(payload, head.wishes, wishes) || !payload.empty() ||
      head.state > static_cast<std::uint8_t>(State::lost)) {
    distrust();
    return;
  }
  Answer& out = ticket.answer;
  out.state = static_cast<State>(head.state);
  out.version = head.version;
  out.best = head.best;
  out.usable = head.usable;
  out.stored = head.stored;
  out.points.clear();
  for (std::uint32_t i = 0; i < head.points; ++i) {
    const auto point = record_at<wire::PointRecord>(points, i);
    out.points.push_back(Point{.tokens = point.tokens,
                               .tier = static_cast<Tier>(point.tier),
                               .bytes = point.bytes,
                               .ready_in = Micros(point.ready_in_us),
                               .recompute = Micros(point.recompute_us)});
  }
  out.wishes.clear();
  for (std::uint32_t i = 0; i < head.wishes; ++i)
    out.wishes.push_back(record_at<std::uint32_t>(wishes, i));
  if (out.state == State::lost) ticket.lost_heard = true;
}

void Session::Impl::on_leased(Ticket& ticket,
                              const wire::Completion& completion,
                              std::span<const std::byte> payload) {
  std::span<const std::byte> records;
  std::span<const std::byte> table;
  if (!take_records<wire::PieceRecord>(payload, completion.b, records) ||
      !take_records<wire::ExtentRecord>(payload, completion.c, table) || !payload.empty()) {
    distrust();
    return;
  }
  Lease& lease = ticket.lease;
  lease.tokens = completion.a;
  lease.pieces.resize(completion.b);
  for (std::uint32_t i = 0; i < completion.b; ++i) {
    const auto record = record_at<wire::PieceRecord>(records, i);
    Piece& piece = lease.pieces[i];
    piece.group = record.group;
    piece.shard = record.shard;
    piece.first = record.first;
    piece.valid = record.valid;
    piece.tier = static_cast<Tier>(record.tier_at_begin);
    piece.bytes = record.bytes;
    piece.where.clear();
    if (!resolve(record.arena, record.extents, record.offset, record.bytes, table, piece.where)) {
      lease.pieces.clear();
      distrust();
      return;
    }
  }
  ticket.leased = true;
  ticket.lease_error = {};
}

void Session::Impl::on_slots(const wire::Completion& completion,
                             const Pending* answered,
                             Ticket* ticket,
                             std::span<const std::byte> payload) {
  std::span<const std::byte> records;
  std::span<const std::byte> table;
  if (!take_records<wire::SlotRecord>(payload, completion.a, records) ||
      !take_records<wire::ExtentRecord>(payload, completion.b, table) || !payload.empty()) {
    distrust();
    return;
  }
  arrived_.clear();
  arrived_.reserve(completion.a);
  for (std::uint32_t i = 0; i < completion.a; ++i) {
    const auto record = record_at<wire::SlotRecord>(records, i);
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
      const bool there =
          resolve(record.arena, record.extents, record.offset, record.bytes, table, slot.where);
      if (!there || !arenas[record.arena].writable) {
        distrust();
        return;
      }
      OpenSlot& open = open_slots[slot.id];
      open = OpenSlot{};
      open.run = run_;
      if (record.arena == 0 && !arenas[0].staging) {
        for (const Extent& extent : slot.where) {
          const wire::ExtentRecord at{
              static_cast<std::uint64_t>(extent.data - arenas[0].map.data()), extent.bytes};
          if (open.first.bytes == 0) {
            open.first = at;
          } else {
            open.more.push_back(at);
          }
        }
      }
    } else {
      slot.id = 0;
    }
    arrived_.push_back(std::move(slot));
  }
  if (answered != nullptr && answered->internal) {
    const auto found = internal.find(completion.cookie);
    if (found == internal.end()) {  // write_from gave up waiting
      give_back(arrived_);
      return;
    }
    found->second.answered = true;
    std::ranges::move(arrived_, std::back_inserter(*found->second.slots));
  } else if (ticket == nullptr) {
    give_back(arrived_);
  } else {
    std::ranges::move(arrived_, std::back_inserter(ticket->slots));
  }
}

bool Session::Impl::resolve(std::uint8_t arena,
                            std::uint16_t extents,
                            std::uint64_t offset,
                            std::uint64_t bytes,
                            std::span<const std::byte> table,
                            Extents& out) const {
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
  const std::size_t entries = table.size() / sizeof(wire::ExtentRecord);
  if (offset > entries || extents > entries - offset) return false;
  for (std::uint64_t i = offset; i < offset + extents; ++i) {
    const auto extent = record_at<wire::ExtentRecord>(table, i);
    if (!add(extent.offset, extent.bytes)) return false;
  }
  return left == 0;
}

}  // namespace statecache

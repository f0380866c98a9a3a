// The C API: what comes in arrays. Answers, leases, slots, and the caller's memory.

#include "client/c/structs.hpp"

#include <span>

using namespace statecache;     // NOLINT(google-build-using-namespace): this file is its mirror
using namespace statecache::c;  // NOLINT(google-build-using-namespace)

namespace {

static_assert(sizeof(statecache_extent) == sizeof(Extent) &&
              offsetof(statecache_extent, bytes) == offsetof(Extent, bytes));

struct AnswerOwner {
  Rows<statecache_point> points;
  std::vector<std::uint32_t> wishes;
};

struct LeaseOwner {
  std::vector<Piece> pieces;
  Rows<statecache_piece> rows;
};

struct SlotsOwner {
  std::vector<Slot> slots;
  Rows<statecache_slot> rows;
};

/// std::byte* of the C++ API is void* of the C API.
const statecache_extent* extents_of(std::span<const Extent> where) noexcept {
  return where.empty() ? nullptr : reinterpret_cast<const statecache_extent*>(where.data());
}

/// Frees what the caller's struct held and puts the new content there.
template <class Owner, class T>
void hand_out(std::unique_ptr<Owner> owner, T& ours, T* to) noexcept {
  delete static_cast<Owner*>(ours.owner);
  ours.owner = owner.release();
  write_output(ours, to);
}

template <class Owner, class T>
void clear(T* list) noexcept {
  if (list == nullptr) return;
  delete static_cast<Owner*>(list->owner);
  list->owner = nullptr;
}

statecache_code give_answer(const Answer& answer, statecache_answer& ours, statecache_answer* to) {
  auto owner = std::make_unique<AnswerOwner>(
      AnswerOwner{Rows<statecache_point>(ours.point_size, answer.points.size()), answer.wishes});
  for (std::size_t i = 0; i < answer.points.size(); ++i) {
    const Point& point = answer.points[i];
    owner->points.put(i,
                      statecache_point{0,
                                       point.tokens,
                                       static_cast<std::uint32_t>(point.tier),
                                       0,
                                       point.bytes,
                                       point.ready_in.count(),
                                       point.recompute.count()});
  }
  ours.state = static_cast<std::uint32_t>(answer.state);
  ours.version = answer.version;
  ours.best = answer.best;
  ours.usable = answer.usable;
  ours.stored = answer.stored;
  ours.points = owner->points.data();
  ours.point_count = answer.points.size();
  ours.wishes = owner->wishes.empty() ? nullptr : owner->wishes.data();
  ours.wish_count = owner->wishes.size();
  hand_out(std::move(owner), ours, to);
  return STATECACHE_OK;
}

statecache_code ask_answer(const statecache_session* session,
                           const statecache_have* have,
                           statecache_answer* to,
                           auto&& get) noexcept {
  if (session == nullptr || to == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    statecache_have own = STATECACHE_HAVE_INIT;
    statecache_answer ours = STATECACHE_ANSWER_INIT;
    if (have != nullptr) SC_C_TRY(take(have, own));
    SC_C_TRY(open_output(to, ours));
    if (!Rows<statecache_point>::fits(ours.point_size))
      return bad_argument("point_size: use STATECACHE_ANSWER_INIT");
    return give_answer(get(Have{own.every, own.end}), ours, to);
  });
}

statecache_code give_slots(Result<std::vector<Slot>> slots,
                           statecache_slots& ours,
                           statecache_slots* to) {
  if (!slots) return failed(slots.status());
  const std::size_t count = slots->size();
  auto owner = std::make_unique<SlotsOwner>(
      SlotsOwner{std::move(*slots), Rows<statecache_slot>(ours.slot_size, count)});
  for (std::size_t i = 0; i < count; ++i) {
    const Slot& slot = owner->slots[i];
    owner->rows.put(i,
                    statecache_slot{0,
                                    slot.group,
                                    slot.shard,
                                    slot.id,
                                    slot.first,
                                    slot.end,
                                    static_cast<std::uint32_t>(slot.grant),
                                    static_cast<std::uint32_t>(slot.where.size()),
                                    slot.bytes,
                                    extents_of(slot.where)});
  }
  ours.items = owner->rows.data();
  ours.count = count;
  hand_out(std::move(owner), ours, to);
  return STATECACHE_OK;
}

statecache_code open_slots(statecache_slots* to, statecache_slots& ours) noexcept {
  SC_C_TRY(open_output(to, ours));
  return Rows<statecache_slot>::fits(ours.slot_size)
             ? STATECACHE_OK
             : bad_argument("slot_size: use STATECACHE_SLOTS_INIT");
}

/// The caller's memory, and one flag for each.
struct Memories {
  std::vector<std::vector<Extent>> pieces;
  std::vector<Memory> items;
  std::unique_ptr<bool[]> ok;

  statecache_code take_from(const statecache_memory* from, std::size_t count) {
    std::vector<statecache_memory> rows;
    SC_C_TRY(take_all(from, count, rows));
    pieces.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const statecache_memory& row = rows[i];
      if (row.piece_count != 0 && row.pieces == nullptr)
        return bad_argument("memory without pieces");
      for (std::size_t p = 0; p < row.piece_count; ++p) {
        if (row.pieces[p].data == nullptr && row.pieces[p].bytes != 0)
          return bad_argument("a null piece of memory");
        pieces[i].push_back(
            Extent{static_cast<std::byte*>(row.pieces[p].data), row.pieces[p].bytes});
      }
      items.push_back(Memory{row.group, row.at, row.valid, pieces[i]});
    }
    ok = std::make_unique<bool[]>(count);
    return STATECACHE_OK;
  }

  void tell(std::uint8_t* flags) const noexcept {
    for (std::size_t i = 0; i < items.size(); ++i)
      flags[i] = ok[i] ? 1 : 0;
  }

  [[nodiscard]] std::span<bool> flags() noexcept { return {ok.get(), items.size()}; }
};

}  // namespace

extern "C" {

statecache_code statecache_poll(const statecache_session* session,
                                statecache_ticket ticket,
                                const statecache_have* have,
                                statecache_answer* answer) noexcept {
  return ask_answer(
      session, have, answer, [&](Have own) { return session->session.poll(ticket, own); });
}

statecache_code statecache_wait(const statecache_session* session,
                                statecache_ticket ticket,
                                int64_t timeout_us,
                                const statecache_have* have,
                                statecache_answer* answer) noexcept {
  return ask_answer(session, have, answer, [&](Have own) {
    return session->session.wait(ticket, to_micros(timeout_us), own);
  });
}

void statecache_answer_clear(statecache_answer* answer) noexcept {
  clear<AnswerOwner>(answer);
  if (answer == nullptr) return;
  answer->points = nullptr;
  answer->wishes = nullptr;
  answer->point_count = answer->wish_count = 0;
}

statecache_code statecache_wait_lease(const statecache_session* session,
                                      statecache_ticket ticket,
                                      int64_t timeout_us,
                                      statecache_lease* lease) noexcept {
  if (session == nullptr || lease == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    statecache_lease ours = STATECACHE_LEASE_INIT;
    SC_C_TRY(open_output(lease, ours));
    if (!Rows<statecache_piece>::fits(ours.piece_size))
      return bad_argument("piece_size: use STATECACHE_LEASE_INIT");
    auto got = session->session.wait_lease(ticket, to_micros(timeout_us));
    if (!got) return failed(got.status());
    const std::size_t count = got->pieces.size();
    auto owner = std::make_unique<LeaseOwner>(
        LeaseOwner{std::move(got->pieces), Rows<statecache_piece>(ours.piece_size, count)});
    for (std::size_t i = 0; i < count; ++i) {
      const Piece& piece = owner->pieces[i];
      owner->rows.put(i,
                      statecache_piece{0,
                                       piece.group,
                                       piece.shard,
                                       piece.first,
                                       piece.valid,
                                       static_cast<std::uint32_t>(piece.tier),
                                       static_cast<std::uint32_t>(piece.where.size()),
                                       piece.bytes,
                                       extents_of(piece.where)});
    }
    ours.tokens = got->tokens;
    ours.pieces = owner->rows.data();
    ours.piece_count = count;
    hand_out(std::move(owner), ours, lease);
    return STATECACHE_OK;
  });
}

void statecache_lease_clear(statecache_lease* lease) noexcept {
  clear<LeaseOwner>(lease);
  if (lease == nullptr) return;
  lease->pieces = nullptr;
  lease->piece_count = 0;
}

statecache_code statecache_read_into(const statecache_session* session,
                                     statecache_ticket ticket,
                                     const statecache_memory* memory,
                                     size_t count,
                                     int64_t timeout_us,
                                     uint8_t* ok) noexcept {
  if (session == nullptr || (count != 0 && ok == nullptr)) return null_pointer();
  return guarded([&]() -> statecache_code {
    Memories to;
    SC_C_TRY(to.take_from(memory, count));
    const Status status =
        session->session.read_into(ticket, to.items, to_micros(timeout_us), to.flags());
    if (status.ok()) to.tell(ok);
    return failed(status);
  });
}

statecache_code statecache_reserve(statecache_session* session,
                                   statecache_ticket ticket,
                                   const statecache_want* wants,
                                   size_t count) noexcept {
  if (session == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    std::vector<statecache_want> rows;
    SC_C_TRY(take_all(wants, count, rows));
    std::vector<Want> converted;
    converted.reserve(count);
    for (const statecache_want& row : rows) {
      if (row.group > UINT16_MAX) return bad_argument("no such group");
      converted.push_back(
          Want{static_cast<std::uint16_t>(row.group), row.first, row.end, row.bytes});
    }
    return failed(session->session.reserve(ticket, converted));
  });
}

statecache_code statecache_peek_slots(const statecache_session* session,
                                      statecache_ticket ticket,
                                      statecache_slots* slots) noexcept {
  if (session == nullptr || slots == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    statecache_slots ours = STATECACHE_SLOTS_INIT;
    SC_C_TRY(open_slots(slots, ours));
    return give_slots(session->session.slots(ticket), ours, slots);
  });
}

statecache_code statecache_wait_slots(statecache_session* session,
                                      statecache_ticket ticket,
                                      int64_t timeout_us,
                                      statecache_slots* slots) noexcept {
  if (session == nullptr || slots == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    statecache_slots ours = STATECACHE_SLOTS_INIT;
    SC_C_TRY(open_slots(slots, ours));
    return give_slots(session->session.wait_slots(ticket, to_micros(timeout_us)), ours, slots);
  });
}

void statecache_slots_clear(statecache_slots* slots) noexcept {
  clear<SlotsOwner>(slots);
  if (slots == nullptr) return;
  slots->items = nullptr;
  slots->count = 0;
}

statecache_code statecache_commit(statecache_session* session,
                                  const statecache_filled* filled,
                                  size_t count) noexcept {
  if (session == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    std::vector<statecache_filled> rows;
    SC_C_TRY(take_all(filled, count, rows));
    std::vector<Filled> converted;
    converted.reserve(count);
    for (const statecache_filled& row : rows)
      converted.push_back(Filled{row.slot, row.valid});
    return failed(session->session.commit(converted));
  });
}

statecache_code statecache_abandon(statecache_session* session,
                                   const statecache_slot_id* slots,
                                   size_t count) noexcept {
  if (session == nullptr || (count != 0 && slots == nullptr)) return null_pointer();
  return failed(session->session.abandon(std::span<const SlotId>(slots, count)));
}

statecache_code statecache_write_from(statecache_session* session,
                                      statecache_ticket ticket,
                                      const statecache_memory* memory,
                                      size_t count,
                                      int64_t timeout_us,
                                      uint8_t* ok) noexcept {
  if (session == nullptr || (count != 0 && ok == nullptr)) return null_pointer();
  return guarded([&]() -> statecache_code {
    Memories from;
    SC_C_TRY(from.take_from(memory, count));
    const Status status =
        session->session.write_from(ticket, from.items, to_micros(timeout_us), from.flags());
    if (status.ok()) from.tell(ok);
    return failed(status);
  });
}

}  // extern "C"

// The public functions: check, post, and wait where their name says so. Copies are in copies.cpp.

#include "client/src/impl.hpp"

#include <algorithm>

namespace statecache {
namespace {

Status no_ticket() {
  return failure(Errc::not_found, "no such ticket");
}

base::Digest to_base(const Digest& digest) {
  base::Digest out;
  out.bytes = digest;
  return out;
}

std::vector<base::Mark> to_base(std::span<const Mark> marks) {
  std::vector<base::Mark> out;
  out.reserve(marks.size());
  for (const Mark& mark : marks) {
    base::Mark m;
    m.at = mark.at;
    m.length = mark.length;
    m.content = to_base(mark.content);
    m.atomic = mark.atomic ? 1 : 0;
    out.push_back(m);
  }
  return out;
}

wire::Request request_of(wire::Op op) {
  wire::Request out;
  out.op = static_cast<std::uint16_t>(op);
  return out;
}

wire::BeginArgs begin_args(const Domain& domain, const Limits& limits) {
  wire::BeginArgs args;
  args.domain.adapter = to_base(domain.adapter);
  args.domain.salt = to_base(domain.salt);
  args.have_every = limits.have.every;
  args.have_end = limits.have.end;
  args.keep_back = limits.keep_back;
  args.at_most = limits.at_most;
  args.deadline_us = static_cast<std::uint32_t>(
      std::clamp<std::int64_t>(limits.deadline.count(), 0, std::int64_t{kUnknown} - 1));
  args.members = limits.members;
  args.hold = static_cast<std::uint8_t>(limits.hold);
  args.priority = limits.priority;
  return args;
}

template <class T>
Status check_count(std::span<const T> items) {
  if (items.size() < kUnknown) return {};
  return failure(Errc::invalid_argument, "more items than a record can count");
}

bool lease_settled(const Ticket& ticket) {
  return ticket.leased || !ticket.lease_error.ok() || ticket.lost_heard || !ticket.lease_wanted;
}

Status lease_status(const Ticket& ticket) {
  if (ticket.leased) return {};
  if (!ticket.lease_error.ok()) return ticket.lease_error;
  if (ticket.lost_heard) return failure(Errc::not_found, "the ticket is lost: compute it");
  if (!ticket.lease_wanted) return failure(Errc::invalid_argument, "no lease was asked for");
  return failure(Errc::busy, "the lease is not there yet");
}

void end_reading(Ticket& ticket) {
  ticket.released = true;
  ticket.leased = ticket.lease_wanted = false;
  ticket.lease.tokens = 0;
  ticket.lease.pieces.clear();  // keeps its memory, as a renewed ticket does
  ticket.was_leased.clear();
}

Answer lost_answer() {
  Answer out;
  out.state = State::lost;
  return out;
}

}  // namespace

Session::Session(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}

Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

bool Session::connected() const noexcept {
  Impl::Lock lock;
  return impl_->enter(lock, true).ok();
}

const std::string& Session::name() const noexcept {
  return impl_->shown_as;
}

std::uint64_t Session::epoch() const noexcept {
  if (impl_->forked()) return 0;
  const Impl::Lock lock(impl_->mutex);
  return impl_->attached.epoch;
}

bool Session::writable() const noexcept {
  if (impl_->forked()) return false;
  const Impl::Lock lock(impl_->mutex);
  return std::ranges::any_of(
      impl_->arenas, [](const ArenaMap& arena) { return arena.writable && !arena.staging; });
}

Counters Session::counters() const noexcept {
  Impl::Lock lock;
  // Also after the daemon's end: what was counted stays true.
  if (impl_->forked()) return {};
  static_cast<void>(impl_->enter(lock).ok());
  return impl_->counters;
}

// ---- find --------------------------------------------------------------------------------------

Result<TicketId> Session::begin(const Ask& ask, const Limits& limits) noexcept {
  if (impl_->keyed())
    return failure(Errc::invalid_argument, "this namespace is addressed by keys: begin(KeyRun)");
  if (Status ok = check_count(ask.tokens); !ok) return ok;
  if (Status ok = check_count(ask.marks); !ok) return ok;
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  wire::BeginArgs args = begin_args(ask.domain, limits);
  if (ask.parent != 0) {
    const Ticket* parent = impl_->find(ask.parent);
    if (parent == nullptr) return failure(Errc::not_found, "no such parent ticket");
    args.parent = parent->name;
    args.parent_tokens = ask.parent_tokens;
  }
  args.tokens = static_cast<std::uint32_t>(ask.tokens.size());
  args.marks = static_cast<std::uint32_t>(ask.marks.size());
  const std::vector<base::Mark> marks = to_base(ask.marks);
  const std::array<std::span<const std::byte>, 3> parts{
      bytes_of(std::span<const wire::BeginArgs>(&args, 1)),
      std::as_bytes(ask.tokens),
      bytes_of(std::span<const base::Mark>(marks))};
  return impl_->post_begin(parts, limits.hold);
}

Result<TicketId> Session::begin(const KeyRun& run, const Limits& limits) noexcept {
  if (Status ok = impl_->check_keys(run.keys); !ok) return ok;
  const std::optional<Digest>& parent = run.parent;
  if (parent) {
    if (Status ok = impl_->check_keys(std::span(&*parent, 1)); !ok) return ok;
  }
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  wire::BeginArgs args = begin_args(run.domain, limits);
  args.parent_tokens = run.first_token;
  args.tokens = static_cast<std::uint32_t>(run.keys.size());
  args.marks = parent ? 1 : 0;
  const std::array<std::span<const std::byte>, 3> parts{
      bytes_of(std::span<const wire::BeginArgs>(&args, 1)),
      std::as_bytes(run.keys),
      parent ? std::as_bytes(std::span(&*parent, 1)) : std::span<const std::byte>{}};
  return impl_->post_begin(parts, limits.hold);
}

Answer Session::poll(TicketId id, Have have) const noexcept {
  Impl::Lock lock;
  static_cast<void>(impl_->enter(lock).ok());
  if (impl_->forked()) return lost_answer();
  const Ticket* ticket = impl_->find(id);
  return ticket == nullptr ? lost_answer() : impl_->judged(*ticket, have);
}

Answer Session::wait(TicketId id, Micros timeout, Have have) const noexcept {
  Impl::Lock lock;
  static_cast<void>(impl_->enter(lock).ok());
  if (impl_->forked()) return lost_answer();
  const auto settled = [&] {
    const Ticket* ticket = impl_->find(id);
    if (ticket == nullptr) return true;
    if (ticket->asks_unanswered != 0) return false;
    const State state = impl_->judged_state(*ticket, have);
    return state != State::pending && state != State::loading;
  };
  impl_->wait_until(lock, deadline_after(timeout), settled);
  const Ticket* ticket = impl_->find(id);
  return ticket == nullptr ? lost_answer() : impl_->judged(*ticket, have);
}

Status Session::refresh(std::span<const TicketId> ids) noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  Status first;
  for (const TicketId id : ids) {
    Ticket* ticket = impl_->find(id);
    Status sent = ticket == nullptr
                      ? no_ticket()
                      : impl_->post_for(id, *ticket, request_of(wire::Op::refresh), {});
    if (first.ok()) first = std::move(sent);
  }
  return first;
}

Status Session::acquire(TicketId id, std::uint32_t at_most, Have have) noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  wire::Request record = request_of(wire::Op::acquire);
  record.a = at_most;
  record.b = have.every;
  record.c = have.end;
  if (Status sent = impl_->post_for(id, *ticket, record, {}); !sent) return sent;
  ticket->lease_wanted = true;
  ticket->lease_error = {};
  return {};
}

// ---- read --------------------------------------------------------------------------------------

Result<TicketRef> Session::ref(TicketId id) const noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  const Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  return TicketRef{ticket->name.low, ticket->name.high};
}

Result<TicketId> Session::join(const TicketRef& ref) noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  const base::TicketName name{ref.low, ref.high};
  if (name.is_zero()) return failure(Errc::invalid_argument, "the zero ticket");
  if (impl_->by_name.contains(name)) {
    return failure(Errc::already_exists, "this Session has that ticket already");
  }
  const TicketId id = impl_->add_ticket(name);
  Ticket& ticket = *impl_->find(id);
  ticket.joined = true;
  ticket.lease_wanted = true;
  if (Status sent = impl_->post_for(id, ticket, request_of(wire::Op::join), {}); !sent) {
    Ticket& unsent = *impl_->find(id);
    unsent.finished = unsent.released = true;
    impl_->forget_if_done(id);
    return sent;
  }
  return id;
}

Result<Lease> Session::wait_lease(TicketId id, Micros timeout) const noexcept {
  Lease out;
  if (Status status = wait_lease(id, timeout, out); !status) return status;
  return out;
}

Status Session::wait_lease(TicketId id, Micros timeout, Lease& into) const noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  const auto settled = [&] {
    const Ticket* ticket = impl_->find(id);
    return ticket == nullptr || lease_settled(*ticket);
  };
  const bool in_time = impl_->wait_until(lock, deadline_after(timeout), settled);
  if (impl_->down()) return impl_->closed();
  if (!in_time) return failure(Errc::timeout, "the lease did not come in time");
  const Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  if (Status status = lease_status(*ticket); !status) return status;
  into.tokens = ticket->lease.tokens;
  into.pieces.assign(ticket->lease.pieces.begin(), ticket->lease.pieces.end());
  return {};
}

Result<std::vector<Piece>> Session::pieces(TicketId id) const noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  const Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  if (Status status = lease_status(*ticket); !status) return status;
  return ticket->lease.pieces;
}

// ---- grow and save -----------------------------------------------------------------------------

Status Session::append(TicketId id,
                       std::span<const Token> tokens,
                       std::span<const Mark> marks,
                       std::uint32_t computed) noexcept {
  if (impl_->keyed())
    return failure(Errc::invalid_argument, "this namespace is addressed by keys: append_keys");
  if (Status ok = check_count(tokens); !ok) return ok;
  if (Status ok = check_count(marks); !ok) return ok;
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  wire::Request record = request_of(wire::Op::append);
  record.a = static_cast<std::uint32_t>(tokens.size());
  record.b = computed;
  record.c = static_cast<std::uint32_t>(marks.size());
  const std::vector<base::Mark> converted = to_base(marks);
  const std::array<std::span<const std::byte>, 2> parts{
      std::as_bytes(tokens), bytes_of(std::span<const base::Mark>(converted))};
  return impl_->post_for(id, *ticket, record, parts);
}

Status Session::append_keys(TicketId id,
                            std::span<const Digest> keys,
                            std::uint32_t computed) noexcept {
  if (Status ok = impl_->check_keys(keys); !ok) return ok;
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  wire::Request record = request_of(wire::Op::append);
  record.a = static_cast<std::uint32_t>(keys.size());
  record.b = computed;
  const auto part = std::as_bytes(keys);
  return impl_->post_for(id, *ticket, record, std::span(&part, 1));
}

Status Session::reserve(TicketId id, std::span<const Want> wants) noexcept {
  if (Status ok = check_count(wants); !ok) return ok;
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  std::vector<wire::WantRecord>& records = impl_->wants;
  records.clear();
  for (const Want& want : wants) {
    wire::WantRecord record;
    record.group = want.group;
    record.first = want.first;
    record.end = want.end;
    record.bytes = want.bytes;
    records.push_back(record);
  }
  wire::Request record = request_of(wire::Op::reserve);
  record.a = static_cast<std::uint32_t>(records.size());
  const auto part = bytes_of(std::span<const wire::WantRecord>(records));
  return impl_->post_for(id, *ticket, record, std::span(&part, 1));
}

Result<std::vector<Slot>> Session::slots(TicketId id) const noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  const Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  return ticket->slots;
}

Result<std::vector<Slot>> Session::wait_slots(TicketId id, Micros timeout) noexcept {
  std::vector<Slot> out;
  if (Status status = wait_slots(id, timeout, out); !status) return status;
  return out;
}

Status Session::wait_slots(TicketId id, Micros timeout, std::vector<Slot>& into) noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  const auto settled = [&] {
    const Ticket* ticket = impl_->find(id);
    return ticket == nullptr || ticket->reserves_unanswered == 0;
  };
  const bool in_time = impl_->wait_until(lock, deadline_after(timeout), settled);
  if (impl_->down()) return impl_->closed();
  if (!in_time) return failure(Errc::timeout, "the slots did not come in time");
  Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  if (!ticket->reserve_error.ok()) return std::exchange(ticket->reserve_error, Status{});
  into.clear();
  into.swap(ticket->slots);
  impl_->forget_if_done(id);
  return {};
}

Status Session::commit(std::span<const Filled> filled) noexcept {
  if (filled.empty()) return {};
  if (Status ok = check_count(filled); !ok) return ok;
  Impl::Lock lock;
  const Status in = impl_->enter(lock);
  if (impl_->forked()) return in;
  std::vector<wire::FilledRecord>& records = impl_->filled;
  records.clear();
  for (const Filled& item : filled) {
    if (impl_->close_slot(item.slot)) {
      records.push_back(wire::FilledRecord{.slot = item.slot, .valid = item.valid});
    } else {
      ++impl_->counters.refused;  // the daemon that granted it has gone
    }
  }
  if (!in) return in;
  impl_->let_go_of_former();
  if (records.empty()) return {};
  wire::Request record = request_of(wire::Op::commit);
  record.a = static_cast<std::uint32_t>(records.size());
  const auto part = bytes_of(std::span<const wire::FilledRecord>(records));
  return impl_->post(record, std::span(&part, 1), Pending{wire::Op::commit, 0});
}

Status Session::abandon(std::span<const SlotId> slots) noexcept {
  if (slots.empty()) return {};
  if (Status ok = check_count(slots); !ok) return ok;
  Impl::Lock lock;
  const Status in = impl_->enter(lock);
  if (impl_->forked()) return in;
  std::vector<SlotId>& known = impl_->given_up;
  known.clear();
  std::ranges::copy_if(
      slots, std::back_inserter(known), [&](SlotId slot) { return impl_->close_slot(slot); });
  if (!in) return in;
  impl_->let_go_of_former();
  if (known.empty()) return {};
  wire::Request record = request_of(wire::Op::abandon);
  record.a = static_cast<std::uint32_t>(known.size());
  const auto part = bytes_of(std::span<const SlotId>(known));
  return impl_->post(record, std::span(&part, 1), Pending{wire::Op::abandon, 0});
}

Status Session::taint(TicketId id) noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return no_ticket();
  return impl_->post_for(id, *ticket, request_of(wire::Op::taint), {});
}

// ---- end ---------------------------------------------------------------------------------------

Status Session::finish(TicketId id, const Report& report) noexcept {
  Impl::Lock lock;
  const Status in = impl_->enter(lock);
  if (impl_->forked()) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket != nullptr && impl_->outlived(*ticket)) {
    ticket->finished = true;
    impl_->forget_if_done(id);
    return in;
  }
  if (ticket == nullptr) return id != 0 && id <= impl_->last_ticket ? Status{} : no_ticket();
  if (ticket->finished) return {};
  if (!ticket->joined) {
    wire::Request record = request_of(wire::Op::finish);
    record.a = report.computed;
    record.b = report.prefilled;
    record.d = static_cast<std::uint64_t>(std::max<std::int64_t>(0, report.prefill.count())) * 1000;
    if (Status sent = impl_->post_for(id, *ticket, record, {}); !sent) return sent;
  }
  ticket->finished = true;
  impl_->forget_if_done(id);
  return {};
}

Status Session::release(TicketId id) noexcept {
  Impl::Lock lock;
  const Status in = impl_->enter(lock);
  if (impl_->forked()) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket != nullptr && impl_->outlived(*ticket)) {
    end_reading(*ticket);
    impl_->forget_if_done(id);
    if (in) impl_->let_go_of_former();
    return in;
  }
  if (ticket == nullptr) return id != 0 && id <= impl_->last_ticket ? Status{} : no_ticket();
  if (ticket->released) return {};
  if (Status sent = impl_->post_for(id, *ticket, request_of(wire::Op::release), {}); !sent)
    return sent;
  end_reading(*ticket);
  return {};
}

Status Session::cancel(TicketId id) noexcept {
  Impl::Lock lock;
  const Status in = impl_->enter(lock);
  if (impl_->forked()) return in;
  Ticket* ticket = impl_->find(id);
  if (ticket != nullptr && impl_->outlived(*ticket)) {
    end_reading(*ticket);
    ticket->finished = true;
    impl_->forget_if_done(id);
    if (in) impl_->let_go_of_former();
    return in;
  }
  if (ticket == nullptr) return id != 0 && id <= impl_->last_ticket ? Status{} : no_ticket();
  if (ticket->finished && ticket->released) return {};
  if (Status sent = impl_->post_for(id, *ticket, request_of(wire::Op::cancel), {}); !sent)
    return sent;
  ticket->finished = true;
  end_reading(*ticket);
  return {};
}

Status Session::invalidate() noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  return impl_->post(request_of(wire::Op::invalidate), {}, Pending{wire::Op::invalidate, 0});
}

// ---- order -------------------------------------------------------------------------------------

Status Session::settle(TicketId id, Micros timeout) noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock); !in) return in;
  const auto settled = [&] {
    const Ticket* ticket = impl_->find(id);
    return ticket == nullptr || ticket->unanswered == 0;
  };
  const bool in_time = impl_->wait_until(lock, deadline_after(timeout), settled);
  if (impl_->down()) return impl_->closed();
  if (!in_time) return failure(Errc::timeout, "the daemon did not answer in time");
  Ticket* ticket = impl_->find(id);
  if (ticket == nullptr) return id != 0 && id <= impl_->last_ticket ? Status{} : no_ticket();
  return std::exchange(ticket->first_error, Status{});
}

Status Session::drain(Micros timeout) noexcept {
  Impl::Lock lock;
  if (Status in = impl_->enter(lock, true); !in) return in;
  const std::uint64_t run = impl_->run();
  // Up to here: what other threads post meanwhile is not waited for.
  std::vector<std::uint32_t> cookies;
  cookies.reserve(impl_->pending.size());
  for (const auto& [cookie, entry] : impl_->pending)
    cookies.push_back(cookie);
  const auto settled = [&] {
    while (!cookies.empty() && !impl_->pending.contains(cookies.back()))
      cookies.pop_back();
    return cookies.empty();
  };
  const bool in_time = impl_->wait_until(lock, deadline_after(timeout), settled);
  if (impl_->down() || impl_->run() != run) return impl_->closed();
  return in_time ? Status{} : failure(Errc::timeout, "the daemon did not answer in time");
}

}  // namespace statecache

#include "client/src/impl.hpp"

#include "client/wire/socket.hpp"

#include <pthread.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

namespace statecache {
namespace {

/// A sleeping waiter looks at the socket this often: the end of the daemon rings no bell.
constexpr auto kSlice = std::chrono::milliseconds(5);
constexpr auto kLookEvery = std::chrono::milliseconds(2);
constexpr auto kSpin = std::chrono::microseconds(50);
/// The daemon slept when we posted: it takes a wake-up (25 to 50 us in a virtual machine) before it
/// begins. To sleep meanwhile would cost a second one.
constexpr auto kSpinAfterBell = std::chrono::microseconds(200);
constexpr std::uint32_t kTryAgain = 16;
constexpr std::uint32_t kHalvings = 6;
constexpr std::size_t kSpareTickets = 64;
constexpr std::size_t kNamesAtOnce = 64;

std::atomic<unsigned> forks_seen{0};

void in_forked_child() noexcept {
  forks_seen.fetch_add(1, std::memory_order_relaxed);
}

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Status failure(Errc code, std::string text) {
  return Status{code, std::move(text)};
}

Status to_status(const base::Error& error) {
  return Status{to_errc(static_cast<std::uint16_t>(error.code)), error.message()};
}

Errc to_errc(std::uint16_t code) noexcept {
  return code > static_cast<std::uint16_t>(Errc::internal) ? Errc::internal
                                                           : static_cast<Errc>(code);
}

unsigned fork_generation() noexcept {
  static const int registered = ::pthread_atfork(nullptr, nullptr, in_forked_child);
  static_cast<void>(registered);
  return forks_seen.load(std::memory_order_relaxed);
}

SteadyTime deadline_after(Micros timeout) noexcept {
  constexpr auto kForever = std::chrono::hours(24 * 365);
  return std::chrono::steady_clock::now() + std::clamp<Micros>(timeout, Micros::zero(), kForever);
}

Status Session::Impl::enter(Lock& lock, bool look) {
  // Another thread may have held the mutex at the fork: it is not touched in the child.
  if (forked()) return failure(Errc::closed, "this Session was made before a fork");
  lock = Lock(mutex);
  if (look) socket_looked_at_ = {};
  drain();
  if (down_) return closed();
  return {};
}

Status Session::Impl::post(wire::Request record, Parts parts, Pending entry) {
  if (down_) return closed();
  std::size_t bytes = 0;
  for (const auto part : parts)
    bytes += part.size();
  if (bytes > channel->payload_max()) {
    return failure(Errc::invalid_argument,
                   "one call may carry " + std::to_string(channel->payload_max()) +
                       " bytes, this one has " + std::to_string(bytes));
  }
  do {
    record.cookie = ++last_cookie;
  } while (record.cookie == 0 || pending.contains(record.cookie));
  if (!channel->post(record, parts)) {
    // The daemon stops taking while its completions find no room: make room, then try once more.
    drain();
    if (down_) return closed();
    if (!channel->post(record, parts)) {
      if (channel->broken()) {
        distrust();
        return closed();
      }
      ++counters.busy;
      return failure(Errc::busy, "the request ring is full");
    }
  }
  ++counters.posted;
  pending.emplace(record.cookie, entry);
  return {};
}

Status Session::Impl::post_for(TicketId id, Ticket& ticket, wire::Request record, Parts parts) {
  // Such a ticket lives on only for what is still to come, and may end inside post().
  if (ticket.finished && ticket.released) return failure(Errc::not_found, "this ticket has ended");
  if (outlived(ticket)) return closed();
  record.ticket = ticket.name;
  const auto op = static_cast<wire::Op>(record.op);
  if (Status sent = post(record, parts, Pending{op, id}); !sent) return sent;
  ++ticket.unanswered;
  if (op == wire::Op::begin || op == wire::Op::refresh) ++ticket.asks_unanswered;
  if (op == wire::Op::reserve) ++ticket.reserves_unanswered;
  return {};
}

Ticket* Session::Impl::find(TicketId id) {
  const auto found = tickets.find(id);
  return found == tickets.end() ? nullptr : &found->second;
}

void Ticket::renew(const base::TicketName& new_name) {
  Answer kept_answer = std::move(answer);
  Lease kept_lease = std::move(lease);
  std::vector<Slot> kept_slots = std::move(slots);
  *this = Ticket{};
  name = new_name;
  kept_answer.points.clear();
  kept_answer.wishes.clear();
  answer.points = std::move(kept_answer.points);
  answer.wishes = std::move(kept_answer.wishes);
  kept_lease.pieces.clear();
  lease.pieces = std::move(kept_lease.pieces);
  kept_slots.clear();
  slots = std::move(kept_slots);
}

TicketId Session::Impl::add_ticket(const base::TicketName& name) {
  const TicketId id = ++last_ticket;
  if (spare_tickets_.empty()) {
    tickets[id].name = name;
  } else {
    auto node = std::move(spare_tickets_.back());
    spare_tickets_.pop_back();
    node.key() = id;
    node.mapped().renew(name);
    tickets.insert(std::move(node));
  }
  tickets[id].run = run_;
  by_name[name] = id;
  return id;
}

void Session::Impl::erase_ticket(TicketId id) {
  auto node = tickets.extract(id);
  if (node.empty()) return;
  by_name.erase(node.mapped().name);
  if (spare_tickets_.size() < kSpareTickets) spare_tickets_.push_back(std::move(node));
}

base::TicketName Session::Impl::random_name() {
  if (names_.empty()) {
    names_.resize(kNamesAtOnce);
    auto* at = reinterpret_cast<char*>(names_.data());
    for (std::size_t left = names_.size() * sizeof(base::TicketName); left > 0;) {
      const ssize_t n = ::getrandom(at, left, 0);
      SC_ASSERT(n > 0 || errno == EINTR);
      if (n < 0) continue;
      at += n;
      left -= static_cast<std::size_t>(n);
    }
  }
  const base::TicketName out = names_.back();
  names_.pop_back();
  return out.is_zero() ? base::TicketName{1, 1} : out;
}

void Session::Impl::forget_if_done(TicketId id) {
  Ticket* ticket = find(id);
  if (ticket == nullptr || !ticket->finished || !ticket->released || ticket->unanswered != 0)
    return;
  const auto open = [](const Slot& slot) { return slot.grant == Grant::granted; };
  if (std::ranges::any_of(ticket->slots, open)) return;
  erase_ticket(id);
}

void Session::Impl::give_back(std::span<const Slot> slots) {
  std::vector<std::uint64_t> ids;
  for (const Slot& slot : slots) {
    if (slot.grant == Grant::granted && close_slot(slot.id)) ids.push_back(slot.id);
  }
  if (ids.empty()) return;
  wire::Request record;
  record.op = static_cast<std::uint16_t>(wire::Op::abandon);
  record.a = static_cast<std::uint32_t>(ids.size());
  const auto part = bytes_of(std::span<const std::uint64_t>(ids));
  // Not post(): this may run inside drain(). What finds no room here the daemon takes back by its
  // age.
  record.cookie = 0;
  if (channel->post(record, std::span(&part, 1))) counters.returned += ids.size();
}

Result<TicketId> Session::Impl::post_begin(Parts parts, Hold hold) {
  const TicketId id = add_ticket(random_name());
  Ticket& ticket = *find(id);
  ticket.lease_wanted = hold == Hold::lease;
  wire::Request record;
  record.op = static_cast<std::uint16_t>(wire::Op::begin);
  if (Status sent = post_for(id, ticket, record, parts); !sent) {
    // post_for may have drained, which never adds or removes another ticket than one that ended.
    Ticket& unsent = *find(id);
    unsent.finished = unsent.released = true;
    forget_if_done(id);
    return sent;
  }
  return id;
}

Status Session::Impl::check_keys(std::span<const Digest> keys) const {
  if (!keyed()) return failure(Errc::invalid_argument, "this namespace is addressed by tokens");
  if (keys.size() >= kUnknown)
    return failure(Errc::invalid_argument, "more keys than a record can count");
  for (const Digest& key : keys) {
    if (std::any_of(key.begin() + spec.key_bytes, key.end(), [](std::byte b) {
          return b != std::byte{0};
        })) {
      return failure(Errc::invalid_argument,
                     "a key with bytes that are not zero after its key_bytes");
    }
  }
  return {};
}

std::uint32_t Session::Impl::own_tokens(Have have) const {
  std::uint32_t own = kUnknown;
  if (has_block_groups) own = std::min(own, have.every);
  if (has_end_groups) own = std::min(own, have.end);
  return own == kUnknown ? 0 : own;
}

State Session::Impl::judged_state(const Ticket& ticket, Have have) const {
  if (down_) return State::lost;
  const std::uint32_t own = own_tokens(have);
  // A load that would bring nothing new is not worth a wait.
  const bool idle = own != 0 && ticket.answer.best <= own && ticket.answer.state == State::loading;
  return idle ? State::ready : ticket.answer.state;
}

Answer Session::Impl::judged(const Ticket& ticket, Have have) const {
  Answer out = ticket.answer;
  out.state = judged_state(ticket, have);
  if (down_) {
    out.best = out.usable = 0;
    out.points.clear();
    return out;
  }
  const std::uint32_t own = own_tokens(have);
  if (out.best <= own) out.best = 0;
  if (out.usable <= own) out.usable = 0;
  std::erase_if(out.points, [own](const Point& point) { return point.tokens <= own; });
  return out;
}

// ---- waiting -----------------------------------------------------------------------------------

void Session::Impl::drain() {
  if (down_) return;
  wire::Completion completion;
  bool progress = false;
  while (!down_ && channel->take(completion, payload_)) {
    progress = true;
    on_completion(completion, payload_);
  }
  if (channel->broken()) distrust();
  if (!down_) look_at_socket(std::chrono::steady_clock::now());
  if (!progress && !down_) return;
  if (leader_) channel->poke();
  if (followers_ != 0) changed_.notify_all();
}

void Session::Impl::look_at_socket(SteadyTime now) {
  if (now - socket_looked_at_ < kLookEvery) return;
  socket_looked_at_ = now;
  if (!wire::hung_up(socket.get())) return;
  // What it said before it went still counts.
  wire::Completion completion;
  while (channel->take(completion, payload_))
    on_completion(completion, payload_);
  down_ = true;
}

/// Spinning pays only while answers come that soon: each miss halves it, and from then on one wait
/// in kTryAgain tries the whole again.
std::chrono::nanoseconds Session::Impl::spin_limit() noexcept {
  const std::chrono::nanoseconds whole = channel->take_rang() ? kSpinAfterBell : kSpin;
  if (misses_ % kTryAgain == 0) return whole;
  return misses_ < kHalvings ? whole / (1U << misses_) : std::chrono::nanoseconds::zero();
}

bool Session::Impl::spin_for(const wire::ClientChannel& on,
                             std::uint32_t seen,
                             std::chrono::nanoseconds limit) noexcept {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < until) {
    for (int i = 0; i < 16; ++i) {
      if (on.has_completions() || on.bell() != seen) return true;
      relax();
    }
  }
  return false;
}

void Session::Impl::wait_once(Lock& lock, SteadyTime deadline) {
  if (leader_) {
    ++followers_;
    changed_.wait_until(lock, deadline);
    --followers_;
    return;
  }
  leader_ = true;
  // Read before the mutex goes: whoever drains from now on rings it.
  const std::shared_ptr<wire::ClientChannel> on = channel;
  const std::uint32_t seen = on->bell();
  const auto limit = spin_limit();
  lock.unlock();
  const bool saw = spin && spin_for(*on, seen, limit);
  if (!saw) {
    const auto left = deadline - std::chrono::steady_clock::now();
    on->wait(std::min<base::Nanos>(left, kSlice), seen);
  }
  lock.lock();
  misses_ = saw ? 0 : misses_ + 1;
  leader_ = false;
}

void Session::Impl::pass_on() {
  if (!leader_ && followers_ != 0) changed_.notify_all();
}

}  // namespace statecache

// The daemon's end and its return. A thread of each Session sleeps on the socket; when that ends,
// every ticket is lost, calls say so at once, and the thread attaches again until it succeeds. What
// the process still reads or writes of before is declared, so that nobody else gets that memory.

#include "client/src/impl.hpp"
#include "client/wire/socket.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>

namespace statecache {
namespace {

constexpr auto kPause = std::chrono::milliseconds(20);
/// Of a daemon that refuses, or goes again at once.
constexpr auto kLongPause = std::chrono::milliseconds(500);
/// Short: the end of a Session waits for it at worst. What is late is tried again.
constexpr auto kHandshake = std::chrono::seconds(1);

}  // namespace

Session::Impl::~Impl() {
  if (keeper_ == nullptr) return;
  if (forked()) {
    // The thread is the parent's; in this process there is nothing to join.
    static_cast<void>(keeper_.release());
    return;
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof one);
  keeper_->join();
}

void Session::Impl::install(Connection&& connection) {
  ++run_;
  socket = std::move(connection.socket);
  channel = std::move(connection.channel);
  arenas = std::move(connection.arenas);
  attached = std::move(connection.attached);
  down_ = false;
}

base::Result<> Session::Impl::start_keeper() {
  stop_ = base::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_) return base::fail_errno("attach: eventfd");
  try {
    keeper_ = std::make_unique<std::thread>([this] { keep_attached(); });
  } catch (const std::system_error& error) {
    return base::fail(base::Errc::no_space, "attach: no thread to be had", error.code().value());
  }
  static_cast<void>(::pthread_setname_np(keeper_->native_handle(), "statecache"));
  return {};
}

/// True: the daemon has gone. False: this Session is being destroyed.
bool Session::Impl::wait_for_end() const {
  while (true) {
    std::array<pollfd, 2> watched{pollfd{stop_.get(), POLLIN, 0},
                                  pollfd{socket.get(), POLLRDHUP, 0}};
    const int ready = ::poll(watched.data(), watched.size(), -1);
    if (ready < 0 && errno == EINTR) continue;
    if (watched[0].revents != 0) return false;
    if (watched[1].revents != 0) return true;
  }
}

/// False: this Session is being destroyed.
bool Session::Impl::pause(std::chrono::milliseconds time) const {
  pollfd stop{stop_.get(), POLLIN, 0};
  return ::poll(&stop, 1, static_cast<int>(time.count())) <= 0;
}

void Session::Impl::keep_attached() {
  auto attached_at = std::chrono::steady_clock::now() - kLongPause;
  while (wait_for_end()) {
    {
      const Lock lock(mutex);
      on_end();
      if (distrusted_) return;
    }
    if (std::chrono::steady_clock::now() - attached_at < kLongPause && !pause(kLongPause)) return;
    while (true) {
      wire::AttachMessage again = message;
      {
        const Lock lock(mutex);
        again.again = true;
        again.in_use = in_use();
      }
      auto connection = connect_to(path, again, kHandshake);
      if (connection) {
        const Lock lock(mutex);
        // Older mappings stay for as long as somebody reads or writes them.
        former_.push_back(std::move(arenas));
        install(std::move(*connection));
        declared_ = !again.in_use.empty();
        let_go_of_former();
        attached_at = std::chrono::steady_clock::now();
        changed_.notify_all();
        break;
      }
      // Not there yet, or not ready to take us: a full daemon may have room later.
      const bool absent = connection.error().code == base::Errc::not_found ||
                          connection.error().code == base::Errc::closed ||
                          connection.error().code == base::Errc::io;
      if (!pause(absent ? kPause : kLongPause)) return;
    }
  }
}

void Session::Impl::on_end() {
  drain();
  // What it said before it went still counts.
  wire::Completion completion;
  while (!distrusted_ && channel->take(completion, payload_))
    on_completion(completion, payload_);
  down_ = true;
  lose_everything();
  channel->poke();
  changed_.notify_all();
}

/// Every ticket is lost. A lease stays readable, a slot writable, until they are given back: the
/// memory is declared to the next daemon.
void Session::Impl::lose_everything() {
  const Status gone = closed();
  for (auto& [id, ticket] : tickets) {
    if (ticket.run != run_) continue;
    for (const Slot& slot : ticket.slots)
      open_slots.erase(slot.id);  // nobody was told of them
    ticket.slots.clear();
    ticket.lost_heard = true;
    ++ticket.answer.version;
    ticket.answer.state = State::lost;
    ticket.answer.best = ticket.answer.usable = 0;
    ticket.answer.points.clear();
    if (ticket.leased) ticket.was_leased = offsets_of(ticket.lease);
    if (ticket.reserves_unanswered != 0) ticket.reserve_error = gone;
    if (ticket.unanswered != 0 && ticket.first_error.ok()) ticket.first_error = gone;
    ticket.unanswered = ticket.asks_unanswered = ticket.reserves_unanswered = 0;
  }
  for (auto& [cookie, reserve] : internal) {
    reserve.answered = true;
    reserve.error = gone;
  }
  pending.clear();
  std::erase_if(tickets, [&](const auto& entry) {
    const Ticket& ticket = entry.second;
    if (!ticket.finished || !ticket.released) return false;
    by_name.erase(ticket.name);
    return true;
  });
}

std::vector<wire::ExtentRecord> Session::Impl::offsets_of(const Lease& lease) const {
  std::vector<wire::ExtentRecord> out;
  if (arenas.empty()) return out;
  const base::Mapping& host = arenas.front().map;
  for (const Piece& piece : lease.pieces) {
    for (const Extent& extent : piece.where) {
      // Another arena is a GPU's, or the emulated one: the next daemon has a new one.
      if (extent.data < host.data() || extent.data >= host.data() + host.size()) continue;
      out.push_back({static_cast<std::uint64_t>(extent.data - host.data()), extent.bytes});
    }
  }
  return out;
}

std::vector<wire::ExtentRecord> Session::Impl::in_use() const {
  std::vector<wire::ExtentRecord> out;
  for (const auto& [id, ticket] : tickets)
    out.insert(out.end(), ticket.was_leased.begin(), ticket.was_leased.end());
  for (const auto& [id, slot] : open_slots) {
    if (slot.first.bytes != 0) out.push_back(slot.first);
    out.insert(out.end(), slot.more.begin(), slot.more.end());
  }
  return out;
}

bool Session::Impl::close_slot(SlotId id) {
  const auto found = open_slots.find(id);
  if (found == open_slots.end()) return !down_;  // the daemon knows what to say
  const bool known = !down_ && found->second.run == run_;
  open_slots.erase(found);
  return known;
}

void Session::Impl::let_go_of_former() {
  if (former_.empty() || down_) return;
  const bool used =
      std::ranges::any_of(tickets,
                          [](const auto& entry) { return !entry.second.was_leased.empty(); }) ||
      std::ranges::any_of(open_slots,
                          [this](const auto& entry) { return entry.second.run != run_; });
  if (used) return;
  if (declared_) {
    wire::Request record;
    record.op = static_cast<std::uint16_t>(wire::Op::let_go);
    // A full ring: the next call that ends something tries again.
    if (!post(record, {}, Pending{wire::Op::let_go, 0}).ok()) return;
    declared_ = false;
  }
  former_.clear();
}

}  // namespace statecache

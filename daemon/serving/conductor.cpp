#include "daemon/serving/conductor.hpp"

#include "base/log.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

namespace statecached {
namespace {

/// Longest sleep: timers of the Cache (soft holds, reservations) are this exact.
constexpr int kSleepMs = 100;
/// A client that does not take its completions rings no bell when it does: look again this soon.
constexpr int kBacklogMs = 1;
constexpr std::uint64_t kBellTag = ~std::uint64_t{0};

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

Result<UniqueFd> duplicate(int fd) {
  UniqueFd out(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!out) return fail_errno("duplicating a descriptor for a client");
  return out;
}

Result<> watch(int epoll, int fd, std::uint64_t tag) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno("watching a doorbell");
  return {};
}

}  // namespace

Conductor::Conductor(ServingOptions options, const Clock& clock, Bell& bell, UniqueFd epoll)
    : options_(options),
      clock_(clock),
      bell_(bell),
      epoll_(std::move(epoll)) {
  events_.reserve(options.events_kept);
}

Conductor::~Conductor() = default;

Result<std::unique_ptr<Conductor>> Conductor::create(ServingOptions options,
                                                     CacheOptions cache,
                                                     CacheSeams seams,
                                                     const Clock& clock,
                                                     Bell& bell) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("making an epoll set");
  SC_TRY(watch(epoll.get(), bell.fd(), kBellTag));
  std::unique_ptr<Conductor> out(new Conductor(options, clock, bell, std::move(epoll)));
  out->table_ = seams.table;
  out->reservation_age_ = cache.reservation_age;
  out->cache_ =
      std::make_unique<Cache>(cache, std::move(seams), static_cast<CacheListener*>(out.get()));
  return out;
}

bool Conductor::post(Command command) {
  if (!open_.load()) return false;
  if (!mailbox_.push(std::move(command))) return false;
  bell_.wake();
  return true;
}

// ---- clients -----------------------------------------------------------------------------------

Result<AttachedClient> Conductor::attach(const NamespaceSpec& spec, MemberInfo member) {
  if (stopping_) return fail(Errc::closed, "the daemon is stopping");
  if (clients_.size() >= options_.clients_max) {
    return fail(Errc::no_space,
                fmt::format("this daemon serves at most {} clients; raise limits.clients",
                            options_.clients_max));
  }
  SC_TRY(spec.validate());
  auto client = std::make_unique<Client>(&pool_);
  client->doorbell = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!client->doorbell) return fail_errno("making a client's doorbell");
  SC_ASSIGN(client->channel, wire::DaemonChannel::create(options_.channel, options_.epoch));
  AttachedClient out;
  SC_ASSIGN(out.channel, duplicate(client->channel.fd()));
  SC_ASSIGN(out.doorbell, duplicate(client->doorbell.get()));
  if (member.staged) {
    any_staged_ = true;
    std::uint64_t largest = 0;
    for (const Group& group : spec.groups)
      largest = std::max(largest, group.max_bytes);
    SC_ASSIGN(client->staging, StagingArea::create(std::max(options_.staging_bytes, largest)));
    SC_ASSIGN(out.staging, duplicate(client->staging->fd()));
    out.staging_bytes = client->staging->bytes();
    for (const Group& group : spec.groups)
      client->contiguous.push_back(group.contiguous);
  }
  client->member = member;
  client->groups = spec.groups.size();
  client->keyed = spec.addressing == Addressing::keys;
  SC_ASSIGN(out.client, cache_->attach(spec, std::move(member), now()));
  client->ix = out.client;
  if (auto watched = watch(epoll_.get(), client->doorbell.get(), out.client); !watched) {
    cache_->detach(out.client, now());
    return tl::unexpected<Error>(std::move(watched.error()));
  }
  const NamespaceIx ns = cache_->namespace_of(out.client);
  out.name = cache_->display_name(ns);
  out.generation = cache_->generation(ns);
  if (table_ != nullptr) {
    const MemberInfo& who = client->member;
    client->table_entry = table_->add_client({who.session, who.pid, who.started, false});
    // Whom a later daemon could not ask must not come to hold anything.
    if (client->table_entry == HostTable::kNone) {
      cache_->detach(out.client, now());
      return fail(Errc::no_space, "the table of clients is full");
    }
    if (who.again) earlier_declared(out.client, who);
  }
  by_ix_.emplace(out.client, client.get());
  clients_.push_back(std::move(client));
  ++stats_.attached;
  return out;
}

Conductor::Client* Conductor::find(ClientIx client) {
  const auto found = by_ix_.find(client);
  return found == by_ix_.end() ? nullptr : found->second;
}

bool Conductor::close(ClientIx ix) {
  Client* client = find(ix);
  if (client == nullptr) return true;
  const Instant at = now();
  if (!client->closed) {
    // A session that ends in order posts its releases and goes: they count. One lap of the ring at
    // most.
    for (std::uint32_t n = 0; n < options_.channel.request_slots && !client->closed; ++n) {
      if (!serve_step(*client, at)) break;
      while (client->doing != Client::Doing::nothing && !client->closed) {
        if (!serve_step(*client, at)) break;
      }
    }
    client->closed = true;
    client->backlog.clear();
    client->backlog_bytes = 0;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, client->doorbell.get(), nullptr);
  }
  // Dropped in the middle of a list: what it asked for so far is told to nobody.
  if (client->doing == Client::Doing::reserve) give_back_grants(*client, at);
  if (client->commit != 0) end_staged(*client);
  client->doing = Client::Doing::nothing;
  abandon_staged(*client, at);
  // Loads for it stop; leases stay, for its process may be reading them.
  const std::vector<TicketName> tickets(client->tickets.begin(), client->tickets.end());
  for (const TicketName& ticket : tickets) {
    // A member of a ticket that another began reads as well.
    const Lease* const lease = cache_->lease(ticket);
    if (lease != nullptr && !lease->pieces.empty()) continue;
    // It may have gone by itself meanwhile: nothing to cancel then.
    static_cast<void>(cache_->cancel(ix, ticket, at).has_value());
    client->tickets.erase(ticket);
  }
  deliver_news();
  // Slots of a staged client that are left are with the copier, whose business they are alone.
  return client->tickets.empty() && (client->slots.empty() || client->staging != nullptr);
}

void Conductor::detach(ClientIx ix) {
  const Client* const leaving = find(ix);
  if (leaving == nullptr) return;
  cache_->detach(ix, now());
  if (table_ != nullptr) table_->remove_client(leaving->table_entry);
  by_ix_.erase(ix);
  std::erase_if(clients_, [ix](const auto& client) { return client->ix == ix; });
  deliver_news();
}

void Conductor::drop(Client& client, const std::string& why) {
  log::warn("client {} ({}, pid {}) is no longer served: {}",
            client.ix,
            client.member.program,
            client.member.pid,
            why);
  client.closed = true;
  client.backlog.clear();
  client.backlog_bytes = 0;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, client.doorbell.get(), nullptr);
  ++stats_.clients_dropped;
  if (dropped_) dropped_(client.ix, why);
}

std::vector<ClientStatus> Conductor::client_statuses() const {
  std::vector<ClientStatus> out;
  out.reserve(clients_.size());
  for (const auto& client : clients_) {
    ClientStatus status;
    status.client = client->ix;
    status.ns = cache_->namespace_of(client->ix);
    status.member = client->member;
    status.bytes_held = cache_->bytes_held(client->ix);
    status.tickets = client->tickets.size();
    status.slots = client->slots.size();
    status.records = client->records;
    status.backlog = client->backlog.size();
    status.closed = client->closed;
    out.push_back(std::move(status));
  }
  return out;
}

// ---- news --------------------------------------------------------------------------------------

void Conductor::on_event(const CacheEvent& event) {
  if (options_.events_kept == 0) return;
  const KeptEvent kept{++event_number_, wall_seconds(), event};
  if (events_.size() < options_.events_kept) {
    events_.push_back(kept);
  } else {
    events_[(kept.number - 1) % options_.events_kept] = kept;
  }
}

std::vector<KeptEvent> Conductor::events(std::uint64_t since, std::size_t limit) const {
  const std::uint64_t oldest = event_number_ - events_.size();  // numbers above it are kept
  std::uint64_t from = std::max(since, oldest);
  if (event_number_ - std::min(from, event_number_) > limit) from = event_number_ - limit;
  std::vector<KeptEvent> out;
  for (std::uint64_t number = from + 1; number <= event_number_; ++number)
    out.push_back(events_[(number - 1) % options_.events_kept]);
  return out;
}

void Conductor::deliver_news() {
  if (answered_.empty() && leased_.empty()) return;
  // Sending can drop a client but never calls the Cache, so these lists do not grow meanwhile.
  const auto distinct = [](std::vector<TicketName>& list) {
    std::ranges::sort(list);
    list.erase(std::unique(list.begin(), list.end()), list.end());
  };
  distinct(answered_);
  distinct(leased_);
  for (const TicketName& ticket : answered_) {
    const auto answer = cache_->answer(ticket);
    if (!answer) {
      for (const auto& client : clients_) {
        if (client->tickets.erase(ticket) != 0) send_lost(*client, ticket);
      }
      continue;
    }
    for (const ClientIx ix : cache_->members(ticket)) {
      if (Client* client = find(ix)) send_answer(*client, 0, ticket, **answer);
    }
  }
  for (const TicketName& ticket : leased_) {
    const Lease* lease = cache_->lease(ticket);
    if (lease == nullptr) continue;
    for (const ClientIx ix : cache_->members(ticket)) {
      if (Client* client = find(ix)) send_lease(*client, 0, ticket, *lease);
    }
  }
  answered_.clear();
  leased_.clear();
}

void Conductor::send_lost(Client& client, const TicketName& ticket) {
  Reply reply = encode_done(wire::Event::lost, ticket, Errc::ok);
  send(client, 0, reply);
}

void Conductor::send(Client& client, std::uint32_t cookie, Reply& reply) {
  if (client.closed) return;
  if (reply.payload.size() > client.channel.reply_max()) {
    log::warn("an answer of {} bytes does not fit client {}'s reply area",
              reply.payload.size(),
              client.ix);
    reply = encode_done(wire::Event::done, reply.completion.ticket, Errc::no_space);
  }
  reply.completion.cookie = cookie;
  ++stats_.completions;
  if (client.backlog.empty()) {
    const std::span<const std::byte> part(reply.payload);
    if (client.channel.post(reply.completion, std::span(&part, 1))) {
      client.posted = true;
      return;
    }
  }
  ++stats_.backlogged;
  client.backlog_bytes += reply.payload.size();
  client.backlog.push_back(std::move(reply));
  if (client.backlog.size() > options_.backlog_replies ||
      client.backlog_bytes > options_.backlog_bytes) {
    drop(client, fmt::format("{} completions wait and it takes none", client.backlog.size()));
  }
}

bool Conductor::drain_backlog(Client& client) {
  while (!client.backlog.empty()) {
    Reply& reply = client.backlog.front();
    const std::span<const std::byte> part(reply.payload);
    if (!client.channel.post(reply.completion, std::span(&part, 1))) return false;
    client.posted = true;
    client.backlog_bytes -= reply.payload.size();
    client.backlog.pop_front();
  }
  return true;
}

// ---- the loop ----------------------------------------------------------------------------------

void Conductor::run() {
  Instant last_work = now();
  while (!finished_) {
    bell_.take();
    const Instant at = now();
    meter_.start(at);
    if (turn(at) != 0) {
      last_work = now();
      stats_.turn_ns.record(static_cast<std::uint64_t>((last_work - at).count()));
    } else if (at - last_work < options_.spin) {
      relax();
    } else {
      sleep(at);
    }
    if (stopping_ && !finished_ && now() >= stop_deadline_) {
      log::warn("the time to stop is over before everything was written");
      finished_ = true;
    }
  }
  open_.store(false);
}

void Conductor::step_done() {
  meter_.done(stats_.step_cpu_ns, stats_.step_wall_ns);
}

std::size_t Conductor::turn(Instant at) {
  std::size_t work = run_commands();
  const std::size_t count = clients_.size();
  for (std::size_t i = 0; i < count; ++i)
    work += serve(*clients_[(first_ + i) % count], at);
  first_ = count == 0 ? 0 : (first_ + 1) % count;
  if (work != 0) meter_.start(now());
  const std::size_t completed = cache_->step(at);
  finish_staged();
  if (!unclaimed_.empty()) expire_unclaimed(at);
  deliver_news();
  for (const auto& client : clients_) {
    if (!std::exchange(client->posted, false)) continue;
    client->channel.ring();
    ++work;
  }
  // A look that found nothing is no step.
  if (work + completed != 0) step_done();
  return work + completed;
}

std::size_t Conductor::run_commands() {
  commands_.clear();
  if (!mailbox_.take(commands_)) return 0;
  for (Command& command : commands_) {
    command(*this);
    deliver_news();
    step_done();
  }
  stats_.commands += commands_.size();
  return commands_.size();
}

std::size_t Conductor::serve(Client& client, Instant at) {
  if (client.closed) return 0;
  if (!client.backlog.empty() && !drain_backlog(client) && !client.channel.broken()) return 0;
  std::size_t taken = 0;
  if (client.doing != Client::Doing::nothing || client.channel.has_requests()) {
    const Instant began = now();
    meter_.start(began);
    // A turn of a client is over after so many records or so much time, whichever comes first.
    const Instant until = began + options_.slice;
    while (taken < options_.batch && !client.closed && client.backlog.empty()) {
      if (!serve_step(client, at)) break;
      ++taken;
      deliver_news();
      step_done();
      if (meter_.started() >= until) break;
    }
    // Whoever sleeps for an answer need not wait for the others' turns.
    if (client.posted) client.channel.ring();
  }
  if (client.channel.broken() && !client.closed) drop(client, "its ring says what cannot be");
  holds_nothing(client);
  return taken;
}

/// Larger payloads are taken in parts: a copy out of another process's memory moves 10 bytes a
/// nanosecond.
constexpr std::size_t kTakeBytes = 256U << 10U;
/// A client's own buffer that is larger goes back when its request is done.
constexpr std::size_t kKeptPayload = 1U << 20U;

bool Conductor::serve_step(Client& client, Instant at) {
  if (client.doing == Client::Doing::nothing || client.doing == Client::Doing::taking)
    return take_record(client, at);
  ++stats_.slices;
  go_on(client, at);
  return true;
}

bool Conductor::take_record(Client& client, Instant at) {
  const bool again = client.doing == Client::Doing::taking;
  std::vector<std::byte>& payload = again ? client.payload : payload_;
  switch (client.channel.take_part(client.record, payload, kTakeBytes)) {
    case wire::DaemonChannel::Taken::nothing:
      return false;
    case wire::DaemonChannel::Taken::part:
      if (!again) client.payload.swap(payload_);
      client.doing = Client::Doing::taking;
      ++stats_.slices;
      return true;
    case wire::DaemonChannel::Taken::whole:
      break;
  }
  client.doing = Client::Doing::nothing;
  handle(client, client.record, payload, at);
  if (again && client.payload.capacity() > kKeptPayload) client.payload = {};
  return true;
}

int Conductor::sleep_limit_ms(Instant at) const {
  int limit = kSleepMs;
  for (const auto& client : clients_) {
    if (!client->backlog.empty()) limit = kBacklogMs;
  }
  if (stopping_) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(stop_deadline_ - at).count() + 1;
    limit = static_cast<int>(std::clamp<std::int64_t>(left, 0, limit));
  }
  return limit;
}

void Conductor::sleep(Instant at) {
  for (const auto& client : clients_) {
    if (!client->closed) client->channel.set_sleeping(true);
  }
  bell_.set_sleeping(true);
  const bool again =
      bell_.pending() || std::ranges::any_of(clients_, [](const auto& client) {
        return !client->closed && client->backlog.empty() &&
               (client->doing != Client::Doing::nothing || client->channel.has_requests());
      });
  if (!again) {
    ++stats_.sleeps;
    std::array<epoll_event, 16> fired{};
    const int count = ::epoll_wait(
        epoll_.get(), fired.data(), static_cast<int>(fired.size()), sleep_limit_ms(at));
    SC_ASSERT(count >= 0 || errno == EINTR);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t tag = fired[static_cast<std::size_t>(i)].data.u64;
      if (tag == kBellTag) {
        bell_.drain();
      } else if (Client* client = find(static_cast<ClientIx>(tag))) {
        std::uint64_t rings = 0;
        [[maybe_unused]] const ssize_t got = ::read(client->doorbell.get(), &rings, sizeof rings);
      }
    }
  }
  bell_.set_sleeping(false);
  for (const auto& client : clients_) {
    if (!client->closed) client->channel.set_sleeping(false);
  }
}

// ---- stop --------------------------------------------------------------------------------------

void Conductor::set_draining(bool draining) {
  draining_ = draining;
  cache_->set_draining(draining);
}

void Conductor::stop(Nanos limit) {
  if (stopping_) return;
  stopping_ = true;
  stop_deadline_ = now() + limit;
  set_draining(true);
  cache_->flush(
      [this](const FlushReport& report) {
        log::info("stopping: {} objects are on NVMe, {} are not{}{}",
                  report.durable_objects,
                  report.failed_objects,
                  report.why.empty() ? "" : ": ",
                  report.why);
        finished_ = true;
      },
      now());
}

}  // namespace statecached

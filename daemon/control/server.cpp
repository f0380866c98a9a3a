#include "daemon/control/server.hpp"

#include "base/log.hpp"

// clang-format off
#include <utility>  // before asio: its 1.74 headers use std::exchange without it
// clang-format on

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>
#include <unordered_map>

namespace statecached {
namespace {

namespace asio = boost::asio;
using asio::posix::stream_descriptor;
using ErrorCode = boost::system::error_code;

constexpr std::size_t kReadChunk = 64 * 1024;
constexpr std::size_t kHttpRequestMax = 8 * 1024;
constexpr auto kHttpPatience = std::chrono::seconds(5);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

/// Bytes on their way out, with descriptors beside the first of them.
struct Outgoing {
  std::vector<std::byte> bytes;
  std::vector<UniqueFd> fds;
  std::size_t sent = 0;
};

/// 1: all sent. 0: the socket is full. -1: it is broken.
int send_some(int socket, Outgoing& out) {
  while (out.sent < out.bytes.size()) {
    iovec part{out.bytes.data() + out.sent, out.bytes.size() - out.sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * wire::kFrameFdsMax)> control{};
    if (!out.fds.empty()) {
      SC_ASSERT(out.fds.size() <= wire::kFrameFdsMax);
      std::array<int, wire::kFrameFdsMax> numbers{};
      for (std::size_t i = 0; i < out.fds.size(); ++i)
        numbers[i] = out.fds[i].get();
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(sizeof(int) * out.fds.size());
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int) * out.fds.size());
      std::memcpy(CMSG_DATA(header), numbers.data(), sizeof(int) * out.fds.size());
    }
    const ssize_t n = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    }
    out.fds.clear();  // they travel with the first byte
    out.sent += static_cast<std::size_t>(n);
  }
  return 1;
}

/// Appends what is there. 1: more may come. 0: end of stream. -1: broken.
int receive_some(int socket, std::vector<std::byte>& into, std::size_t limit) {
  while (into.size() < limit) {
    const std::size_t before = into.size();
    into.resize(std::min(before + kReadChunk, limit));
    const ssize_t n = ::recv(socket, into.data() + before, into.size() - before, MSG_DONTWAIT);
    into.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (n == 0) return 0;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 1 : -1;
  }
  return 1;
}

}  // namespace

class ControlServer::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(ControlOptions options, Conductor& conductor, Admin& admin, std::vector<ArenaShare> arenas)
      : options_(std::move(options)),
        conductor_(conductor),
        admin_(admin),
        arenas_(std::move(arenas)) {}

  class Connection;
  class Page;

  struct Door {
    Listener listener;
    stream_descriptor socket;
    asio::steady_timer pause;
    bool metrics = false;

    Door(asio::io_context& io, Listener from, bool pages)
        : listener(std::move(from)),
          socket(io, listener.fd.release()),
          pause(io),
          metrics(pages) {}
  };

  void add_door(Listener listener, bool metrics) {
    doors_.push_back(std::make_unique<Door>(io_, std::move(listener), metrics));
  }

  void start();
  void stop_accepting();
  void stop();
  void client_dropped(ClientIx client);

 private:
  friend class Connection;
  friend class Page;

  void accept(Door& door);
  void accept_all(Door& door);
  void watch(ClientIx client, UniqueFd pidfd);
  void watch_earlier(const KeptClient& earlier);
  void forget(ClientIx client);
  void close_doors();

  ControlOptions options_;
  Conductor& conductor_;
  Admin& admin_;
  std::vector<ArenaShare> arenas_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::vector<std::unique_ptr<Door>> doors_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::unordered_map<ClientIx, std::weak_ptr<Connection>> by_client_;
  std::unordered_map<ClientIx, std::unique_ptr<stream_descriptor>> processes_;
  std::unordered_map<Page*, std::weak_ptr<Page>> pages_;
  std::vector<std::unique_ptr<stream_descriptor>> earlier_;
  std::thread thread_;
};

// ---- one client or operator --------------------------------------------------------------------

class ControlServer::Impl::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Impl> server, UniqueFd fd, Peer peer)
      : server_(std::move(server)),
        socket_(server_->io_, fd.release()),
        peer_(std::move(peer)) {}

  void start() { read(); }

  void close(const std::string& why);

 private:
  void read();
  void on_readable();
  void next_message();
  void on_request(wire::RequestMessage message);
  void on_attach(std::uint64_t id, const wire::AttachMessage& attach);
  void on_attached(std::uint64_t id, Result<AttachedClient> attached, bool trusted);
  void on_admin(std::uint64_t id, wire::AdminMessage admin);
  void reply(std::uint64_t id, const wire::ReplyBody& body, std::vector<UniqueFd> fds = {});

  void refuse(std::uint64_t id, const Error& error) {
    // The code travels beside the text, so not within it.
    reply(id,
          wire::FailureReply{error.code,
                             error.os == 0
                                 ? error.text
                                 : fmt::format("{}: {}", error.text, std::strerror(error.os))});
  }

  void write();
  void proceed();
  [[nodiscard]] bool trusted(std::uint32_t tenant) const;

  [[nodiscard]] bool operates() const { return peer_.uid == ::geteuid() || peer_.uid == 0; }

  std::shared_ptr<Impl> server_;  // outlives it in commands that wait with the conductor
  stream_descriptor socket_;
  Peer peer_;
  std::vector<std::byte> in_;
  std::deque<Outgoing> out_;
  bool writing_ = false;
  bool busy_ = false;  ///< a request is with the conductor; the next is read afterwards
  bool closed_ = false;
  bool attaching_ = false;
  std::uint32_t trust_domain_ = 0;
  std::optional<ClientIx> client_;
};

void ControlServer::Impl::Connection::read() {
  if (closed_ || busy_) return;
  socket_.async_wait(stream_descriptor::wait_read,
                     [self = shared_from_this()](const ErrorCode& error) {
                       if (!error) self->on_readable();
                     });
}

void ControlServer::Impl::Connection::on_readable() {
  // No more than this frame, so that a peer that sends many costs no memory until its turn.
  std::size_t limit = wire::kFramePrefix;
  if (in_.size() >= wire::kFramePrefix) {
    const auto length =
        wire::frame_length(std::span<const std::byte>(in_).first<wire::kFramePrefix>());
    SC_ASSERT(length.has_value());  // next_message() has looked
    limit += *length;
  }
  const int state = receive_some(socket_.native_handle(), in_, limit);
  if (state > 0) return next_message();
  if (!in_.empty() && state == 0) server_->admin_.garbage.fetch_add(1);
  close(state == 0 ? "" : "its socket broke");
}

void ControlServer::Impl::Connection::next_message() {
  if (in_.size() < wire::kFramePrefix) return read();
  const auto garbage = [this](const Error& error) {
    server_->admin_.garbage.fetch_add(1);
    close(fmt::format("what it sent is no message: {}", error.text));
  };
  const auto length =
      wire::frame_length(std::span<const std::byte>(in_).first<wire::kFramePrefix>());
  if (!length) return garbage(length.error());
  const std::size_t whole = wire::kFramePrefix + *length;
  if (in_.size() < whole) return read();
  auto message =
      wire::decode_request(std::span<const std::byte>(in_).subspan(wire::kFramePrefix, *length));
  if (!message) return garbage(message.error());
  SC_ASSERT(in_.size() == whole);
  in_ = {};
  busy_ = true;
  on_request(std::move(*message));
}

void ControlServer::Impl::Connection::on_request(wire::RequestMessage message) {
  if (const auto* attach = std::get_if<wire::AttachMessage>(&message.body))
    return on_attach(message.id, *attach);
  on_admin(message.id, std::move(std::get<wire::AdminMessage>(message.body)));
}

bool ControlServer::Impl::Connection::trusted(std::uint32_t tenant) const {
  if (!server_->options_.trust_own_user) return false;
  if (peer_.uid == ::geteuid()) return true;
  return tenant != kDefaultTenant && server_->options_.tenants[tenant].trusted;
}

void ControlServer::Impl::Connection::on_attach(std::uint64_t id,
                                                const wire::AttachMessage& attach) {
  const auto refused = [&](Errc code, std::string text) {
    server_->admin_.refused.fetch_add(1);
    refuse(id, Error{code, 0, std::move(text)});
  };
  if (attach.version_max < wire::kProtocolMin || attach.version_min > wire::kProtocolMax ||
      attach.version_min > attach.version_max) {
    return refused(Errc::version,
                   fmt::format("this daemon speaks versions {} to {}, the client {} to {}",
                               wire::kProtocolMin,
                               wire::kProtocolMax,
                               attach.version_min,
                               attach.version_max));
  }
  if (attaching_ || client_)
    return refused(Errc::already_exists, "this connection is attached already");
  if (!attach.shard.empty() && attach.shard.size() != attach.space.groups.size()) {
    return refused(
        Errc::invalid_argument,
        fmt::format("{} shards for {} groups", attach.shard.size(), attach.space.groups.size()));
  }
  const std::uint32_t tenant = tenant_of(peer_, server_->options_.tenants);
  MemberInfo member;
  member.engine = attach.engine;
  member.rank = attach.rank;
  member.world = attach.world;
  member.shard = attach.shard;
  member.tenant = tenant == kDefaultTenant
                      ? static_cast<std::uint32_t>(server_->options_.tenants.size())
                      : tenant;
  member.trust_domain =
      tenant == kDefaultTenant ? 0 : server_->options_.tenants[tenant].trust_domain;
  member.may_write = trusted(tenant);
  member.staged = !member.may_write;
  member.program = attach.program.substr(0, 256);
  member.pid = peer_.pid;
  member.started = process_started(peer_.pid);
  member.session = attach.session;
  member.again = attach.again;
  for (const ArenaShare& arena : server_->arenas_) {
    if (arena.tier == wire::TierName::host && arena.trust_domain == member.trust_domain) {
      member.host_base = arena.base;
      for (const wire::ExtentRecord& extent : attach.in_use) {
        // Only within its own arena can it have been given anything.
        if (extent.offset < arena.bytes && extent.bytes <= arena.bytes - extent.offset)
          member.in_use.push_back({arena.base + extent.offset, extent.bytes});
      }
    }
  }
  trust_domain_ = member.trust_domain;
  attaching_ = true;
  const bool may_write = member.may_write;
  const bool sent = server_->conductor_.post(
      [self = shared_from_this(), space = attach.space, member = std::move(member), id, may_write](
          Conductor& conductor) mutable {
        // A shared pointer because asio's handlers may be copied and fds may not.
        auto result =
            std::make_shared<Result<AttachedClient>>(conductor.attach(space, std::move(member)));
        asio::post(self->server_->io_, [self, id, result, may_write] {
          self->on_attached(id, std::move(*result), may_write);
        });
      });
  if (!sent) {
    attaching_ = false;
    refused(Errc::busy, "the daemon is stopping or overloaded");
  }
}

void ControlServer::Impl::Connection::on_attached(std::uint64_t id,
                                                  Result<AttachedClient> attached,
                                                  bool may_write) {
  attaching_ = false;
  if (!attached) {
    server_->admin_.refused.fetch_add(1);
    return refuse(id, attached.error());
  }
  client_ = attached->client;
  server_->by_client_[attached->client] = weak_from_this();
  server_->watch(attached->client, watch_process(peer_.pid));
  if (closed_) return server_->forget(attached->client);
  wire::AttachedReply body;
  body.epoch = server_->options_.epoch;
  body.client = attached->client;
  body.name = attached->name;
  body.generation = attached->generation;
  body.cores = server_->options_.cores;
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(attached->channel));
  fds.push_back(std::move(attached->doorbell));
  for (const ArenaShare& arena : server_->arenas_) {
    if (arena.tier == wire::TierName::host && arena.trust_domain != trust_domain_) continue;
    body.arenas.push_back({arena.tier, arena.bytes, may_write});
    fds.emplace_back(
        ::fcntl(may_write ? arena.writable_fd : arena.readable_fd, F_DUPFD_CLOEXEC, 3));
    if (!fds.back()) return close("no descriptor is left to hand it the arena");
  }
  if (attached->staging) {
    body.arenas.push_back({wire::TierName::host, attached->staging_bytes, true, true});
    fds.push_back(std::move(attached->staging));
  }
  log::info("client {} attached: {} (pid {}, uid {}){} to {}",
            attached->client,
            peer_.pid == 0 ? "?" : "process",
            peer_.pid,
            peer_.uid,
            may_write ? "" : ", staged",
            body.name);
  reply(id, body, std::move(fds));
}

void ControlServer::Impl::Connection::on_admin(std::uint64_t id, wire::AdminMessage admin) {
  if (!Admin::open_to_all(admin.command) && !operates()) {
    return refuse(id,
                  Error{Errc::permission,
                        0,
                        fmt::format("{} is for the daemon's own user and root", admin.command)});
  }
  const bool sent = server_->conductor_.post(
      [self = shared_from_this(), admin = std::move(admin), id](Conductor& conductor) {
        self->server_->admin_.execute(conductor, admin, [self, id](Result<Admin::Render> render) {
          asio::post(self->server_->io_, [self, id, render = std::move(render)] {
            if (!render) return self->refuse(id, render.error());
            self->reply(id, wire::AdminReply{(*render)()});
          });
        });
      });
  if (!sent) refuse(id, Error{Errc::busy, 0, "the daemon is stopping or overloaded"});
}

void ControlServer::Impl::Connection::reply(std::uint64_t id,
                                            const wire::ReplyBody& body,
                                            std::vector<UniqueFd> fds) {
  busy_ = false;
  if (closed_) return;
  out_.push_back({wire::encode_reply(id, body), std::move(fds), 0});
  write();
  proceed();
}

void ControlServer::Impl::Connection::proceed() {
  // Posted, not called: a peer that sends many requests at once must not grow the stack.
  if (closed_ || busy_ || !out_.empty()) return;
  asio::post(server_->io_, [self = shared_from_this()] {
    if (!self->closed_) self->next_message();
  });
}

void ControlServer::Impl::Connection::write() {
  if (writing_) return;
  while (!out_.empty()) {
    const int state = send_some(socket_.native_handle(), out_.front());
    if (state < 0) return close("its socket broke");
    if (state == 0) {
      writing_ = true;
      socket_.async_wait(stream_descriptor::wait_write,
                         [self = shared_from_this()](const ErrorCode& error) {
                           self->writing_ = false;
                           if (error || self->closed_) return;
                           self->write();
                           self->proceed();
                         });
      return;
    }
    out_.pop_front();
  }
}

void ControlServer::Impl::Connection::close(const std::string& why) {
  if (closed_) return;
  closed_ = true;
  if (!why.empty())
    log::warn("connection of pid {} (uid {}) closed: {}", peer_.pid, peer_.uid, why);
  ErrorCode ignored;
  socket_.close(ignored);
  if (client_) server_->forget(*client_);
  server_->connections_.erase(this);  // the caller's handler still holds a reference
}

// ---- one reader of the metrics page ------------------------------------------------------------

class ControlServer::Impl::Page : public std::enable_shared_from_this<Page> {
 public:
  Page(std::shared_ptr<Impl> server, UniqueFd fd)
      : server_(std::move(server)),
        socket_(server_->io_, fd.release()),
        patience_(server_->io_) {}

  void start() {
    server_->pages_.emplace(this, weak_from_this());
    patience_.expires_after(kHttpPatience);
    patience_.async_wait([self = shared_from_this()](const ErrorCode& error) {
      if (!error) self->finish();
    });
    read();
  }

  void finish() {
    patience_.cancel();
    ErrorCode ignored;
    socket_.close(ignored);
    server_->pages_.erase(this);
  }

 private:
  void read() {
    socket_.async_wait(stream_descriptor::wait_read,
                       [self = shared_from_this()](const ErrorCode& error) {
                         if (!error) self->on_readable();
                       });
  }

  void on_readable() {
    const int state = receive_some(socket_.native_handle(), in_, kHttpRequestMax);
    const std::string_view text(reinterpret_cast<const char*>(in_.data()), in_.size());
    const bool whole = text.find("\r\n\r\n") != std::string_view::npos ||
                       text.find("\n\n") != std::string_view::npos;
    if (!whole) return state > 0 && in_.size() < kHttpRequestMax ? read() : finish();
    const std::string_view line = text.substr(0, text.find_first_of("\r\n"));
    if (line.starts_with("GET /metrics ") || line.starts_with("GET / ")) return ask();
    answer(line.starts_with("GET ") ? "404 Not Found" : "405 Method Not Allowed",
           "metrics are at /metrics\n");
  }

  void ask() {
    const bool sent = server_->conductor_.post([self = shared_from_this()](Conductor& conductor) {
      auto snapshot = std::make_shared<Snapshot>(self->server_->admin_.snapshot(conductor));
      asio::post(self->server_->io_, [self, snapshot] {
        self->server_->admin_.complete(*snapshot);
        self->answer("200 OK", prometheus_text(*snapshot));
      });
    });
    if (!sent) answer("503 Service Unavailable", "the daemon is stopping\n");
  }

  void answer(std::string_view status, const std::string& body) {
    const std::string text = fmt::format(
        "HTTP/1.0 {}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: "
        "{}\r\nConnection: close\r\n\r\n{}",
        status,
        body.size(),
        body);
    const auto bytes = std::as_bytes(std::span(text));
    out_.bytes.assign(bytes.begin(), bytes.end());
    write();
  }

  void write() {
    if (!socket_.is_open()) return;
    if (send_some(socket_.native_handle(), out_) != 0) return finish();
    socket_.async_wait(stream_descriptor::wait_write,
                       [self = shared_from_this()](const ErrorCode& error) {
                         if (!error) self->write();
                       });
  }

  std::shared_ptr<Impl> server_;  // outlives it in commands that wait with the conductor
  stream_descriptor socket_;
  asio::steady_timer patience_;
  std::vector<std::byte> in_;
  Outgoing out_;
};

// ---- the server --------------------------------------------------------------------------------

void ControlServer::Impl::start() {
  for (const KeptClient& earlier : options_.earlier)
    watch_earlier(earlier);
  for (const auto& door : doors_)
    accept(*door);
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "control");
    for (;;) {
      try {
        io_.run();
        return;
      } catch (const std::exception& error) {
        // Out of memory for one message, say: that handler is lost, the others go on.
        log::error("control plane: {}", error.what());
      }
    }
  });
}

void ControlServer::Impl::accept(Door& door) {
  door.socket.async_wait(stream_descriptor::wait_read,
                         [self = shared_from_this(), &door](const ErrorCode& error) {
                           if (!error) self->accept_all(door);
                         });
}

void ControlServer::Impl::accept_all(Door& door) {
  for (;;) {
    UniqueFd fd(
        ::accept4(door.socket.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return accept(door);
      log::error("accepting a connection: {}", std::strerror(errno));
      door.pause.expires_after(kAcceptPause);  // no descriptors: do not spin on the ready socket
      door.pause.async_wait([self = shared_from_this(), &door](const ErrorCode& error) {
        if (!error) self->accept(door);
      });
      return;
    }
    if (connections_.size() + pages_.size() >= options_.connections_max) {
      admin_.refused.fetch_add(1);
      continue;  // closed at once: the other side sees the end of the stream
    }
    if (door.metrics) {
      std::make_shared<Page>(shared_from_this(), std::move(fd))->start();
      continue;
    }
    auto peer = peer_of(fd.get());
    if (!peer) {
      log::warn("{}", peer.error().message());
      continue;
    }
    auto connection =
        std::make_shared<Connection>(shared_from_this(), std::move(fd), std::move(*peer));
    connections_.emplace(connection.get(), connection);
    connection->start();
  }
}

void ControlServer::Impl::watch(ClientIx client, UniqueFd pidfd) {
  if (!pidfd) return;
  auto process = std::make_unique<stream_descriptor>(io_, pidfd.release());
  process->async_wait(
      stream_descriptor::wait_read, [self = shared_from_this(), client](const ErrorCode& error) {
        if (error) return;
        self->processes_.erase(client);
        // A child may have inherited the socket: it is of no use to it.
        if (const auto at = self->by_client_.find(client); at != self->by_client_.end()) {
          if (const auto connection = at->second.lock()) connection->close("");
          self->by_client_.erase(client);
        }
        if (!self->conductor_.post([client](Conductor& conductor) { conductor.detach(client); })) {
          log::warn("client {} is gone but the daemon is stopping", client);
        }
      });
  processes_.emplace(client, std::move(process));
}

/// A process of before: it attaches again and says what it uses, or it ends.
void ControlServer::Impl::watch_earlier(const KeptClient& earlier) {
  const auto gone = [self = shared_from_this(), pid = earlier.pid, started = earlier.started] {
    static_cast<void>(self->conductor_.post(
        [pid, started](Conductor& conductor) { conductor.earlier_gone(pid, started); }));
  };
  UniqueFd pidfd = watch_process(earlier.pid);
  // Its number may be another's by now: only the time when it began tells.
  if (!pidfd || process_started(earlier.pid) != earlier.started) return gone();
  log::info("process {} was attached before and may still use host memory: waiting for it",
            earlier.pid);
  earlier_.push_back(std::make_unique<stream_descriptor>(io_, pidfd.release()));
  earlier_.back()->async_wait(stream_descriptor::wait_read, [gone](const ErrorCode& error) {
    if (!error) gone();
  });
}

void ControlServer::Impl::forget(ClientIx client) {
  by_client_.erase(client);
  const bool watched = processes_.contains(client);
  static_cast<void>(
      conductor_.post([self = shared_from_this(), client, watched](Conductor& conductor) {
        const bool free = conductor.close(client);
        if (!free && watched) {
          log::info("client {} closed its socket; what it holds waits for the end of its process",
                    client);
          return;
        }
        conductor.detach(client);
        asio::post(self->io_, [self, client] { self->processes_.erase(client); });
      }));
}

void ControlServer::Impl::client_dropped(ClientIx client) {
  asio::post(io_, [self = shared_from_this(), client] {
    const auto at = self->by_client_.find(client);
    if (at == self->by_client_.end()) return;
    if (const auto connection = at->second.lock())
      connection->close("it broke the protocol of its ring");
  });
}

void ControlServer::Impl::close_doors() {
  for (const auto& door : doors_) {
    ErrorCode ignored;
    door->listener.remove_path();
    door->socket.close(ignored);
    door->pause.cancel();
  }
}

void ControlServer::Impl::stop_accepting() {
  asio::post(io_, [self = shared_from_this()] { self->close_doors(); });
}

void ControlServer::Impl::stop() {
  if (!thread_.joinable()) return;
  asio::post(io_, [self = shared_from_this()] {
    self->close_doors();
    // Closing cancels what waits; the handlers run and let go of the last references, then run()
    // returns.
    const auto connections = std::exchange(self->connections_, {});
    for (const auto& [key, connection] : connections)
      connection->close("");
    const auto pages = std::exchange(self->pages_, {});
    for (const auto& [key, page] : pages) {
      if (const auto alive = page.lock()) alive->finish();
    }
    self->processes_.clear();
    self->earlier_.clear();
    self->work_.reset();
  });
  thread_.join();
}

ControlServer::ControlServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

ControlServer::~ControlServer() {
  impl_->stop();
}

Result<std::unique_ptr<ControlServer>> ControlServer::create(ControlOptions options,
                                                             Conductor& conductor,
                                                             Admin& admin,
                                                             std::vector<ArenaShare> arenas,
                                                             Listener listener,
                                                             std::vector<Listener> metrics) {
  if (arenas.size() > 1024) return fail(Errc::invalid_argument, "too many arenas to hand out");
  auto impl = std::make_shared<Impl>(std::move(options), conductor, admin, std::move(arenas));
  impl->add_door(std::move(listener), false);
  for (Listener& door : metrics)
    impl->add_door(std::move(door), true);
  conductor.on_dropped([weak = std::weak_ptr(impl)](ClientIx client, const std::string&) {
    if (const auto alive = weak.lock()) alive->client_dropped(client);
  });
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(impl)));
}

void ControlServer::start() {
  impl_->start();
}

void ControlServer::stop_accepting() {
  impl_->stop_accepting();
}

void ControlServer::stop() {
  impl_->stop();
}

}  // namespace statecached

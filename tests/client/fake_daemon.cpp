#include "tests/client/fake_daemon.hpp"

#include "client/wire/socket.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>

namespace statecached::fake {
namespace {

template <class T>
std::span<const std::byte> part(const std::vector<T>& items) {
  return std::as_bytes(std::span<const T>(items));
}

wire::Completion reply(wire::Event event, std::uint32_t cookie, const TicketName& name) {
  wire::Completion out;
  out.event = static_cast<std::uint16_t>(event);
  out.cookie = cookie;
  out.ticket = name;
  return out;
}

}  // namespace

Daemon::Daemon(bool writable) : writable_(writable) {
  static std::atomic<int> number{0};
  path_ = "/tmp/statecached-test-" + std::to_string(::getpid()) + "-" + std::to_string(++number);
  listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.data(), path_.size());
  SC_ASSERT(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  SC_ASSERT(::listen(listener_.get(), 4) == 0);
  arena_fd_ = UniqueFd(::memfd_create("arena", MFD_CLOEXEC));
  SC_ASSERT(::ftruncate(arena_fd_.get(), kArenaBytes) == 0);
  arena_ =
      Mapping(::mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_SHARED, arena_fd_.get(), 0),
              kArenaBytes);
  bell_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  thread_ = std::thread([this] { run(); });
}

Daemon::~Daemon() {
  stop_ = true;
  ::eventfd_write(bell_.get(), 1);
  ::shutdown(listener_.get(), SHUT_RDWR);
  thread_.join();
  ::unlink(path_.c_str());
}

void Daemon::run() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket || !attach(socket.get())) return;
  wire::Request record;
  std::vector<std::byte> payload;
  while (!stop_ && !hang_up) {
    if (silent) {
      quiet_ = true;
    } else {
      while (channel_.take(record, payload))
        handle(record, payload);
      if (!withhold) {
        for (const TicketName& name : withheld_) {
          answer(0, name, wire::State::ready);
          lease(0, name, depths_[name]);
        }
        withheld_.clear();
      }
      channel_.ring();
    }
    channel_.set_sleeping(true);
    pollfd p{.fd = bell_.get(), .events = POLLIN, .revents = 0};
    // The flags above ring no bell; this is how soon they are seen.
    if (silent || !channel_.has_requests()) ::poll(&p, 1, 2);
    eventfd_t value = 0;
    ::eventfd_read(bell_.get(), &value);
    channel_.set_sleeping(false);
  }
}

bool Daemon::attach(int socket) {
  const auto limit = std::chrono::seconds(20);
  const auto frame = wire::receive_frame(socket, limit);
  if (!frame) return false;
  const auto request = wire::decode_request(frame->body);
  SC_ASSERT(request.has_value());
  if (std::holds_alternative<wire::AdminMessage>(request->body)) {
    const auto& command = std::get<wire::AdminMessage>(request->body).command;
    if (command == "nonsense") {
      const wire::FailureReply failure{Errc::unsupported, "no such command"};
      return wire::send_frame(socket, wire::encode_reply(request->id, failure), {}, limit) && false;
    }
    for (int i = 0; i < 3; ++i) {
      const wire::AdminReply json{"{\"n\":" + std::to_string(i) + "}"};
      SC_ASSERT(wire::send_frame(socket, wire::encode_reply(request->id, json, i == 2), {}, limit));
    }
    return false;
  }
  auto channel = wire::DaemonChannel::create(
      {.request_slots = 16, .completion_slots = 16, .request_area = 65536, .reply_area = 65536},
      42);
  SC_ASSERT(channel.has_value());
  channel_ = std::move(*channel);
  wire::AttachedReply out;
  out.epoch = 42;
  out.name = std::get<wire::AttachMessage>(request->body).space.name;
  out.arenas = {{wire::TierName::host, kArenaBytes, writable_}};
  out.cores = 2;
  const std::array<int, 3> fds{channel_.fd(), bell_.get(), arena_fd_.get()};
  SC_ASSERT(wire::send_frame(socket, wire::encode_reply(request->id, out), fds, limit));
  return true;
}

void Daemon::handle(const wire::Request& record, std::span<const std::byte> payload) {
  const auto done = [&](Errc code) {
    wire::Completion out = reply(wire::Event::done, record.cookie, record.ticket);
    out.code = static_cast<std::uint16_t>(code);
    post(out, {});
  };
  const auto op = static_cast<wire::Op>(record.op);
  if (refuse && (op == wire::Op::begin || op == wire::Op::reserve || op == wire::Op::append)) {
    return done(Errc::invalid_argument);
  }
  switch (op) {
    case wire::Op::begin: {
      wire::BeginArgs args;
      SC_ASSERT(payload.size() >= sizeof args);
      std::memcpy(&args, payload.data(), sizeof args);
      SC_ASSERT(payload.size() ==
                sizeof args + args.tokens * sizeof(Token) + args.marks * sizeof(Mark));
      depths_[record.ticket] = args.tokens / 16 * 16;
      const bool later = withhold;
      answer(record.cookie, record.ticket, later ? wire::State::loading : wire::State::ready);
      if (later) {
        withheld_.push_back(record.ticket);
      } else if (args.hold == static_cast<std::uint8_t>(wire::Hold::lease)) {
        lease(record.cookie, record.ticket, depths_[record.ticket]);
      }
      return;
    }
    case wire::Op::refresh:
      return answer(record.cookie, record.ticket, wire::State::ready);
    case wire::Op::join:
      if (!depths_.contains(record.ticket)) return done(Errc::not_found);
      [[fallthrough]];
    case wire::Op::acquire:
      return lease(record.cookie, record.ticket, std::min(record.a, depths_[record.ticket]));
    case wire::Op::reserve:
      return reserve(record, payload);
    case wire::Op::commit: {
      wire::Completion out = reply(wire::Event::committed, record.cookie, record.ticket);
      out.a = record.a - 1;  // the last one is always stale here
      out.b = 1;
      return post(out, {});
    }
    case wire::Op::abandon:
      abandoned += record.a;
      return done(Errc::ok);
    case wire::Op::finish:
    case wire::Op::release:
    case wire::Op::cancel:
      ++ended;
      return done(Errc::ok);
    case wire::Op::invalidate:
      for (const auto& [name, depth] : depths_)
        post(reply(wire::Event::lost, 0, name), {});
      return done(Errc::ok);
    default:
      return done(Errc::ok);
  }
}

void Daemon::answer(std::uint32_t cookie, const TicketName& name, wire::State state) {
  std::vector<wire::AnswerRecord> head(1);
  std::vector<wire::PointRecord> points;
  const std::vector<std::uint32_t> wishes{7, 9};
  const std::uint32_t depth = depths_[name];
  for (const std::uint32_t tokens : {depth / 2, depth}) {
    points.push_back(
        {.tokens = tokens, .tier = 1, .bytes = 10, .ready_in_us = 0, .recompute_us = 30});
  }
  head[0].version = 1;
  head[0].best = depth;
  head[0].usable = state == wire::State::ready ? depth : depth / 2;
  head[0].stored = depth;
  head[0].points = 2;
  head[0].wishes = 2;
  head[0].state = static_cast<std::uint8_t>(state);
  const std::array<std::span<const std::byte>, 3> parts{part(head), part(points), part(wishes)};
  post(reply(wire::Event::answer, cookie, name), parts);
}

void Daemon::lease(std::uint32_t cookie, const TicketName& name, std::uint32_t tokens) {
  wire::Completion out = reply(wire::Event::leased, cookie, name);
  out.a = tokens;
  out.b = 2;
  out.c = 2;
  std::vector<wire::PieceRecord> pieces(2);
  pieces[0] = {.group = 0,
               .tier_at_begin = 2,
               .first = 0,
               .valid = tokens,
               .extents = 2,
               .offset = 0,
               .bytes = kPieceBytes};
  pieces[1] = {
      .group = 1, .tier_at_begin = 1, .first = tokens, .extents = 1, .offset = 16384, .bytes = 100};
  if (garbage) pieces[1].offset = kArenaBytes - 50;
  const std::vector<wire::ExtentRecord> table{{kPieceAt[0], 4096}, {kPieceAt[1], 4096}};
  const std::array<std::span<const std::byte>, 2> parts{part(pieces), part(table)};
  post(out, parts);
}

void Daemon::reserve(const wire::Request& record, std::span<const std::byte> payload) {
  std::vector<wire::WantRecord> wants(record.a);
  SC_ASSERT(payload.size() == wants.size() * sizeof(wire::WantRecord));
  std::memcpy(wants.data(), payload.data(), payload.size());
  std::vector<wire::SlotRecord> slots;
  for (const wire::WantRecord& want : wants) {
    wire::SlotRecord slot{.group = want.group, .first = want.first, .end = want.end};
    slot.grant =
        static_cast<std::uint8_t>(want.group == 0 ? wire::Grant::granted : wire::Grant::exists);
    if (want.group == 0) {
      slot.slot = next_slot_++;
      slot.extents = 1;
      slot.offset = 65536 + (slot.slot % 16) * 4096;
      slot.bytes = want.bytes == 0 ? 64 : want.bytes;
    }
    slots.push_back(slot);
  }
  wire::Completion out = reply(wire::Event::slots, record.cookie, record.ticket);
  out.a = static_cast<std::uint32_t>(slots.size());
  const auto p = part(slots);
  post(out, std::span(&p, 1));
}

void Daemon::post(wire::Completion completion, std::span<const std::span<const std::byte>> parts) {
  while (!channel_.post(completion, parts) && !channel_.broken() && !stop_) {
    channel_.ring();
    std::this_thread::yield();
  }
}

}  // namespace statecached::fake

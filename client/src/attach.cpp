// Session::attach: the one exchange over the socket, and the arenas it brings.

#include "base/units.hpp"
#include "client/src/impl.hpp"
#include "client/wire/socket.hpp"

#include <sched.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

namespace statecache {
namespace {

constexpr std::uint64_t kHugePage = 2 * base::kMiB;

base::Digest to_base(const Digest& digest) {
  base::Digest out;
  out.bytes = digest;
  return out;
}

base::NamespaceSpec to_base(const NamespaceSpec& spec) {
  base::NamespaceSpec out;
  out.name = spec.name;
  out.model = to_base(spec.model);
  out.layout = to_base(spec.layout);
  for (const Group& g : spec.groups) {
    out.groups.push_back(base::Group{.name = g.name,
                                     .need = static_cast<base::Need>(g.need),
                                     .block_tokens = g.block_tokens,
                                     .window = g.window,
                                     .lookahead = g.lookahead,
                                     .max_bytes = g.max_bytes,
                                     .shards = g.shards,
                                     .contiguous = g.contiguous,
                                     .token_major = g.token_major});
  }
  out.resume_grid = spec.resume_grid;
  out.checkpoint_grid = spec.checkpoint_grid;
  out.checkpoints_per_chunk = spec.checkpoints_per_chunk;
  out.cost.c0 = spec.cost.c0;
  out.cost.c1 = spec.cost.c1;
  out.cost.c2 = spec.cost.c2;
  out.cost.window_c2 = spec.cost.window_c2;
  out.cost.window = spec.cost.window;
  out.addressing = static_cast<base::Addressing>(spec.addressing);
  out.tokens_per_key = spec.tokens_per_key;
  out.key_bytes = spec.key_bytes;
  return out;
}

/// Maps an arena at a multiple of 2 MiB, so that the huge pages the daemon made are huge here too.
base::Result<ArenaMap> map_arena(int fd, const wire::ArenaInfo& info) {
  struct stat status {};

  if (::fstat(fd, &status) != 0) return base::fail_errno("arena: fstat");
  if (info.bytes == 0 || static_cast<std::uint64_t>(status.st_size) < info.bytes) {
    return base::fail(base::Errc::corrupt, "arena: smaller than the daemon says");
  }
  const std::size_t room = info.bytes + kHugePage;
  void* reserved =
      ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return base::fail_errno("arena: mmap");
  auto* begin = static_cast<std::byte*>(reserved);
  const auto misplaced = reinterpret_cast<std::uintptr_t>(begin) % kHugePage;
  std::byte* at = misplaced == 0 ? begin : begin + (kHugePage - misplaced);
  const int protection = info.writable ? PROT_READ | PROT_WRITE : PROT_READ;
  if (::mmap(at, info.bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    auto error = base::fail_errno("arena: mmap");
    ::munmap(reserved, room);
    return error;
  }
  std::byte* end = at + base::round_up(info.bytes, base::kPage);
  if (at != begin) ::munmap(begin, static_cast<std::size_t>(at - begin));
  if (end < begin + room) ::munmap(end, static_cast<std::size_t>(begin + room - end));
  return ArenaMap{base::Mapping(at, info.bytes), info.writable, info.staging};
}

/// Processors this process may run on.
int own_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

base::Result<wire::Frame> exchange(int socket, std::span<const std::byte> frame, Micros timeout) {
  const SteadyTime deadline = deadline_after(timeout);
  SC_TRY(wire::send_frame(socket, frame, {}, timeout));
  return wire::receive_frame(socket, deadline - std::chrono::steady_clock::now());
}

std::uint64_t random_number() {
  std::uint64_t out = 0;
  while (::getrandom(&out, sizeof out, 0) != sizeof out) {
  }
  return out == 0 ? 1 : out;
}

}  // namespace

base::Result<Connection> connect_to(std::string_view path,
                                    const wire::AttachMessage& message,
                                    Micros timeout) {
  Connection out;
  SC_ASSIGN(out.socket, wire::connect_unix(path));
  SC_ASSIGN(wire::Frame frame,
            exchange(out.socket.get(), wire::encode_request(1, message), timeout));
  SC_ASSIGN(wire::ReplyMessage reply, wire::decode_reply(frame.body));
  if (const auto* failed = std::get_if<wire::FailureReply>(&reply.body)) {
    return base::fail(failed->code, failed->message);
  }
  auto* attached = std::get_if<wire::AttachedReply>(&reply.body);
  if (attached == nullptr || reply.id != 1)
    return base::fail(base::Errc::corrupt, "attach: not the answer to it");
  if (attached->version < wire::kProtocolMin || attached->version > wire::kProtocolMax) {
    return base::fail(base::Errc::version,
                      "attach: the daemon chose a version this library does not speak");
  }
  if (frame.fds.size() != 2 + attached->arenas.size()) {
    return base::fail(base::Errc::corrupt, "attach: not one descriptor for each arena");
  }
  out.attached = std::move(*attached);
  SC_ASSIGN(auto channel,
            wire::ClientChannel::open(std::move(frame.fds[0]), std::move(frame.fds[1])));
  out.channel = std::make_shared<wire::ClientChannel>(std::move(channel));
  for (std::size_t i = 0; i < out.attached.arenas.size(); ++i) {
    SC_ASSIGN(ArenaMap arena, map_arena(frame.fds[2 + i].get(), out.attached.arenas[i]));
    out.arenas.push_back(std::move(arena));
  }
  return out;
}

Result<Session> Session::attach(std::string_view socket,
                                const NamespaceSpec& spec,
                                const Member& member,
                                Micros timeout) noexcept {
  auto impl = std::make_unique<Impl>();
  impl->spec = to_base(spec);
  impl->shards = member.shard;
  for (const Group& group : spec.groups) {
    (group.need == Need::end ? impl->has_end_groups : impl->has_block_groups) = true;
  }
  if (const auto valid = impl->spec.validate(); !valid) return to_status(valid.error());
  impl->path = std::string(socket);
  impl->message.space = impl->spec;
  impl->message.engine = to_base(member.engine);
  impl->message.rank = member.rank;
  impl->message.world = member.world;
  impl->message.shard = member.shard;
  impl->message.program = member.program;
  impl->message.session = random_number();
  auto connection = connect_to(socket, impl->message, timeout);
  if (!connection) return to_status(connection.error());
  impl->install(std::move(*connection));
  impl->shown_as = impl->attached.name;
  // On a single core the daemon cannot answer while we spin.
  impl->spin = own_cores() > 1 && impl->attached.cores != 1;
  if (const auto kept = impl->start_keeper(); !kept) return to_status(kept.error());
  return Session(std::move(impl));
}

}  // namespace statecache

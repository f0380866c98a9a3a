#include "statecache/admin.hpp"

#include "client/src/impl.hpp"
#include "client/wire/socket.hpp"

namespace statecache {
namespace {

base::Result<base::UniqueFd> send_command(std::string_view path,
                                          wire::AdminMessage message,
                                          Micros timeout) {
  SC_ASSIGN(base::UniqueFd socket, wire::connect_unix(path));
  SC_TRY(wire::send_frame(socket.get(), wire::encode_request(1, std::move(message)), {}, timeout));
  return socket;
}

struct Piecewise {
  std::string json;
  bool last = true;
};

base::Result<Piecewise> next_reply(int socket, base::Nanos timeout) {
  SC_ASSIGN(const wire::Frame frame, wire::receive_frame(socket, timeout));
  SC_ASSIGN(wire::ReplyMessage reply, wire::decode_reply(frame.body));
  if (const auto* failed = std::get_if<wire::FailureReply>(&reply.body)) {
    return base::fail(failed->code, failed->message);
  }
  auto* json = std::get_if<wire::AdminReply>(&reply.body);
  if (json == nullptr || reply.id != 1)
    return base::fail(base::Errc::corrupt, "admin: not the answer to it");
  return Piecewise{std::move(json->json), reply.last};
}

wire::AdminMessage message_of(std::string_view command,
                              std::span<const std::string> arguments,
                              std::span<const std::uint32_t> tokens) {
  return {
      std::string(command), {arguments.begin(), arguments.end()}, {tokens.begin(), tokens.end()}};
}

}  // namespace

Result<std::string> admin(std::string_view socket_path,
                          std::string_view command,
                          std::span<const std::string> arguments,
                          std::span<const std::uint32_t> tokens,
                          std::chrono::milliseconds timeout) noexcept {
  const SteadyTime deadline = deadline_after(timeout);
  const auto socket = send_command(socket_path, message_of(command, arguments, tokens), timeout);
  if (!socket) return to_status(socket.error());
  while (true) {
    auto reply = next_reply(socket->get(), deadline - std::chrono::steady_clock::now());
    if (!reply) return to_status(reply.error());
    if (reply->last) return std::move(reply->json);
  }
}

Status admin_stream(std::string_view socket_path,
                    std::string_view command,
                    std::span<const std::string> arguments,
                    std::span<const std::uint32_t> tokens,
                    const std::function<bool(std::string_view json)>& each,
                    std::chrono::milliseconds idle) noexcept {
  const auto socket = send_command(socket_path, message_of(command, arguments, tokens), idle);
  if (!socket) return to_status(socket.error());
  while (true) {
    const auto reply = next_reply(socket->get(), idle);
    if (!reply) return to_status(reply.error());
    if (!each(reply->json) || reply->last) return {};
  }
}

}  // namespace statecache

#pragma once
// A client without the client library: it can say what that never would.

#include "client/wire/channel.hpp"
#include "client/wire/control.hpp"
#include "client/wire/socket.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace statecached::test {

inline constexpr Nanos kRawPatience = std::chrono::seconds(20);

inline wire::AttachMessage attach_message() {
  wire::AttachMessage out;
  out.space.name = "raw";
  Group kv;
  kv.name = "kv";
  kv.max_bytes = 4096;
  out.space.groups = {kv};
  out.space.cost.c1 = 1e9;
  out.program = "raw";
  return out;
}

inline wire::Request request(wire::Op op,
                             TicketName ticket = {},
                             std::uint32_t a = 0,
                             std::uint16_t flags = 0) {
  wire::Request out;
  out.op = static_cast<std::uint16_t>(op);
  out.flags = flags;
  out.ticket = ticket;
  out.a = a;
  return out;
}

/// A client without the client library: it can say what that never would.
struct RawClient {
  UniqueFd socket;
  wire::AttachedReply reply;
  std::optional<wire::ClientChannel> channel;
  UniqueFd memfd;  ///< a second handle on the channel
  std::vector<UniqueFd> arenas;

  static Result<wire::ReplyMessage> ask(int fd,
                                        const wire::RequestBody& body,
                                        std::vector<UniqueFd>* fds = nullptr) {
    SC_TRY(wire::send_frame(fd, wire::encode_request(5, body), {}, kRawPatience));
    SC_ASSIGN(wire::Frame frame, wire::receive_frame(fd, kRawPatience));
    if (fds != nullptr) *fds = std::move(frame.fds);
    return wire::decode_reply(frame.body);
  }

  static Result<RawClient> attach(const std::string& path) {
    RawClient out;
    SC_ASSIGN(out.socket, wire::connect_unix(path));
    std::vector<UniqueFd> fds;
    SC_ASSIGN(wire::ReplyMessage message, ask(out.socket.get(), attach_message(), &fds));
    auto* attached = std::get_if<wire::AttachedReply>(&message.body);
    if (attached == nullptr || fds.size() != 2 + attached->arenas.size())
      return fail(Errc::corrupt, "not attached");
    out.reply = *attached;
    for (std::size_t i = 2; i < fds.size(); ++i)
      out.arenas.push_back(std::move(fds[i]));
    out.memfd = UniqueFd(::dup(fds[0].get()));
    SC_ASSIGN(auto channel, wire::ClientChannel::open(std::move(fds[0]), std::move(fds[1])));
    out.channel.emplace(std::move(channel));
    return out;
  }

  /// Posts and returns the completion with the same cookie.
  std::optional<wire::Completion> call(wire::Request record, std::span<const std::byte> payload) {
    static std::uint32_t cookie = 100;
    record.cookie = ++cookie;
    if (!channel->post(record, std::span(&payload, 1))) return std::nullopt;
    const auto deadline = std::chrono::steady_clock::now() + kRawPatience;
    wire::Completion completion;
    std::vector<std::byte> bytes;
    while (std::chrono::steady_clock::now() < deadline) {
      if (!channel->take(completion, bytes)) {
        channel->wait(std::chrono::milliseconds(100));
        continue;
      }
      if (completion.cookie == record.cookie) return completion;
    }
    return std::nullopt;
  }
};

}  // namespace statecached::test

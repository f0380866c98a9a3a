#include "client/ctl/ask.hpp"

#include "client/wire/socket.hpp"

namespace statecached::ctl {

Result<std::string> ask(const std::string& socket,
                        const wire::AdminMessage& message,
                        Nanos timeout) {
  SC_ASSIGN(const UniqueFd fd, wire::connect_unix(socket));
  const auto frame = wire::encode_request(1, message);
  SC_TRY(wire::send_frame(fd.get(), frame, {}, timeout));
  SC_ASSIGN(const wire::Frame answer, wire::receive_frame(fd.get(), timeout));
  SC_ASSIGN(wire::ReplyMessage reply, wire::decode_reply(answer.body));
  if (auto* failure = std::get_if<wire::FailureReply>(&reply.body)) {
    return fail(failure->code == Errc::ok ? Errc::internal : failure->code,
                std::move(failure->message));
  }
  if (auto* json = std::get_if<wire::AdminReply>(&reply.body)) return std::move(json->json);
  return fail(Errc::corrupt, "the daemon answered something else than was asked");
}

}  // namespace statecached::ctl

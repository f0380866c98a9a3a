#include "tests/fuzz/targets.hpp"

#include "client/wire/channel.hpp"
#include "client/wire/control.hpp"
#include "client/workload/trace.hpp"
#include "config/load.hpp"
#include "daemon/serving/codec.hpp"
#include "tiers/catalog/row_codec.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>

namespace statecached::fuzz {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The start of the bytes as a T; what is missing is zero.
template <class T>
T take(std::span<const std::byte>& bytes) {
  T out{};
  const std::size_t n = std::min(bytes.size(), sizeof out);
  if (n != 0) std::memcpy(&out, bytes.data(), n);
  bytes = bytes.subspan(n);
  return out;
}

}  // namespace

void control(std::span<const std::byte> bytes) {
  if (bytes.size() >= wire::kFramePrefix) {
    const auto length = wire::frame_length(bytes.first<wire::kFramePrefix>());
    must(!length || (*length > 0 && *length <= wire::kFrameMax));
  }
  if (const auto request = wire::decode_request(bytes)) {
    const auto frame = wire::encode_request(request->id, request->body);
    const auto again = wire::decode_request(std::span(frame).subspan(wire::kFramePrefix));
    must(again.has_value() && again->id == request->id);
    if (const auto* attach = std::get_if<wire::AttachMessage>(&request->body))
      static_cast<void>(attach->space.validate().has_value());
  }
  if (const auto reply = wire::decode_reply(bytes)) {
    const auto frame = wire::encode_reply(reply->id, reply->body, reply->last);
    must(wire::decode_reply(std::span(frame).subspan(wire::kFramePrefix)).has_value());
  }
}

void records(std::span<const std::byte> bytes) {
  const auto record = take<wire::Request>(bytes);
  // As in the daemon: an aligned copy of its own.
  const std::vector<std::byte> payload(bytes.begin(), bytes.end());
  if (const auto begin = decode_begin(record, payload)) {
    must(begin->tokens.size_bytes() + begin->marks.size_bytes() + sizeof(wire::BeginArgs) ==
         payload.size());
  }
  if (const auto append = decode_append(record, payload))
    must(append->tokens.size() == record.a && append->marks.size() == record.c);
  if (const auto wants = decode_wants(record, payload, 2)) {
    must(wants->size() == record.a);
    for (const WantItem& want : *wants)
      must(want.group < 2 && want.end >= want.first);
  }
  if (const auto filled = decode_filled(record, payload)) must(filled->size() == record.a);
  if (const auto slots = decode_slots(record, payload)) must(slots->size() == record.a);
}

void channel(std::span<const std::byte> bytes) {
  wire::ChannelSizes sizes;
  sizes.request_slots = 4;
  sizes.completion_slots = 4;
  sizes.request_area = 4096;
  sizes.reply_area = 4096;
  auto daemon = wire::DaemonChannel::create(sizes, 1);
  must(daemon.has_value());
  const std::size_t total = wire::channel_bytes(sizes);
  void* map = ::mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_SHARED, daemon->fd(), 0);
  must(map != MAP_FAILED);
  const Mapping shared(map, total);
  auto client = wire::ClientChannel::open(UniqueFd(::dup(daemon->fd())), UniqueFd());
  must(client.has_value());
  const auto choice = take<std::uint8_t>(bytes);
  std::vector<std::byte> payload;
  const std::array<std::byte, 100> some{};
  const std::span<const std::byte> part(some);
  // Begin as an honest pair, so that counts are not zero.
  for (unsigned i = 0; i < (choice & 3U); ++i) {
    wire::Request request;
    must(client->post(wire::Request{}, std::span(&part, 1)));
    must(daemon->take(request, payload));
    must(daemon->post(wire::Completion{}, std::span(&part, 1)));
  }
  // Then whatever the bytes say, at places that they choose: the header, where the counts are, most
  // often.
  while (!bytes.empty()) {
    const auto where = take<std::uint16_t>(bytes);
    const auto length = std::size_t{take<std::uint8_t>(bytes)};
    const std::size_t range = (choice & 4U) != 0 ? total : 1024;
    const std::size_t at = where % range;
    const std::size_t n = std::min({length, bytes.size(), total - at});
    if (n != 0) std::memcpy(static_cast<std::byte*>(map) + at, bytes.data(), n);
    bytes = bytes.subspan(n);
  }
  for (int i = 0; i < 16; ++i) {
    wire::Request request;
    const bool taken =
        daemon->take_part(request, payload, 64) != wire::DaemonChannel::Taken::nothing;
    must(!taken || payload.size() <= sizes.request_area);
    static_cast<void>(daemon->post(wire::Completion{}, std::span(&part, 1)));
    static_cast<void>(daemon->has_requests());
    wire::Completion completion;
    must(!client->take(completion, payload) || payload.size() <= sizes.reply_area);
  }
  // What was written may also be a header that somebody is asked to open.
  static_cast<void>(
      wire::ClientChannel::open(UniqueFd(::dup(daemon->fd())), UniqueFd()).has_value());
}

void catalog(std::span<const std::byte> bytes) {
  const std::size_t wanted = take<std::uint8_t>(bytes) % 32U;
  const std::size_t cut = std::min(wanted, bytes.size());
  const std::string key(text_of(bytes.first(cut)));
  const std::string body(text_of(bytes.subspan(cut)));
  static_cast<void>(decode_row(key, body).has_value());
  static_cast<void>(decode_meta(body).has_value());
  std::uint32_t ns = 0;
  static_cast<void>(parse_scrub_key(key, ns));
  // Under a checksum that fits, the fields themselves are looked at.
  const auto row = decode_row(key, seal_value(key, body));
  if (row.has_value()) {
    std::visit(
        [](const auto& value) {
          if constexpr (requires { encode_row(value); }) must(encode_row(value).has_value());
        },
        *row);
  }
  static_cast<void>(decode_meta(seal_value(meta_key(), body)).has_value());
}

void toml(std::span<const std::byte> bytes) {
  const auto settings = config::parse(text_of(bytes));
  if (!settings) {
    must(!settings.error().text.empty());
    return;
  }
  must(config::parse(config::to_toml(*settings)).has_value());
}

void trace(std::span<const std::byte> bytes) {
  const UniqueFd fd(::memfd_create("statecached-trace", MFD_CLOEXEC));
  must(static_cast<bool>(fd));
  must(::write(fd.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  auto reader = TraceReader::open("/proc/self/fd/" + std::to_string(fd.get()), 100);
  if (!reader) return;
  TraceRequest request;
  std::uint64_t count = 0;
  while ((*reader)->next(request))
    must(++count <= 100);
}

}  // namespace statecached::fuzz

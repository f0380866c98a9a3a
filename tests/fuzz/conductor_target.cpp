// One client that sends what it likes to a real conductor and cache, in this process.

#include "client/wire/channel.hpp"
#include "daemon/serving/conductor.hpp"
#include "tests/fuzz/targets.hpp"
#include "tiers/host/copier.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <thread>

namespace statecached::fuzz {
namespace {

NamespaceSpec spec() {
  NamespaceSpec out;
  out.name = "fuzz";
  Group kv;
  kv.name = "kv";
  kv.block_tokens = 4;
  kv.max_bytes = 4096;
  Group state;
  state.name = "state";
  state.need = Need::end;
  state.max_bytes = 8192;
  state.shards = 2;
  out.groups = {kv, state};
  out.cost.c1 = 1e9;
  return out;
}

/// Made once: bytes only decide what its clients send.
class Daemon {
 public:
  Daemon() {
    auto bell = Bell::create();
    must(bell.has_value());
    bell_ = std::move(*bell);
    ServingOptions serving;
    serving.spin = Nanos{0};
    serving.channel = {64, 64, 1U << 16U, 1U << 16U};
    serving.tickets_max = 32;
    CacheOptions cache;
    cache.host_bytes = 64 * kPage;
    cache.lease_bytes_max = 32 * kPage;
    CacheSeams seams;
    seams.copier = &copies_;
    auto made = Conductor::create(serving, cache, seams, clock_, *bell_);
    must(made.has_value());
    conductor_ = std::move(*made);
    thread_ = std::thread([this] { conductor_->run(); });
  }

  ~Daemon() {
    must(conductor_->post([](Conductor& c) { c.stop(std::chrono::seconds(1)); }));
    thread_.join();
  }

  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  template <class T>
  T ask(std::function<T(Conductor&)> question) {
    std::promise<T> answer;
    must(conductor_->post([&](Conductor& c) { answer.set_value(question(c)); }));
    return answer.get_future().get();
  }

 private:
  MonotonicClock clock_;
  InstantCopies copies_;
  std::unique_ptr<Bell> bell_;
  std::unique_ptr<Conductor> conductor_;
  std::thread thread_;
};

/// Reads numbers off the bytes; zero when they are over.
class Choices {
 public:
  explicit Choices(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] bool over() const { return bytes_.empty(); }

  std::uint32_t next(std::uint32_t below) {
    if (bytes_.empty()) return 0;
    const auto value = static_cast<std::uint32_t>(bytes_.front());
    bytes_ = bytes_.subspan(1);
    return value % below;
  }

 private:
  std::span<const std::byte> bytes_;
};

template <class T>
void put(std::vector<std::byte>& out, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// A record that is nearly right: right enough to get past the first check.
wire::Request make_record(Choices& choose, std::vector<std::byte>& payload) {
  wire::Request out;
  payload.clear();
  out.op = static_cast<std::uint16_t>(choose.next(15));
  out.cookie = 1 + choose.next(200);
  out.ticket = {1 + choose.next(6), 7};
  out.a = choose.next(40);
  out.b = choose.next(40);
  out.c = choose.next(3) == 0 ? choose.next(40) : 0;
  switch (static_cast<wire::Op>(out.op)) {
    case wire::Op::begin: {
      wire::BeginArgs args;
      args.tokens = choose.next(40);
      args.hold = static_cast<std::uint8_t>(choose.next(4));
      args.members = static_cast<std::uint16_t>(choose.next(3));
      args.keep_back = choose.next(3);
      args.have_every = choose.next(3) == 0 ? choose.next(40) : 0;
      args.marks = choose.next(5) == 0 ? 1 : 0;
      if (choose.next(6) == 0) args.parent = {1 + choose.next(6), 7};
      if (!args.parent.is_zero()) args.parent_tokens = choose.next(40);
      put(payload, args);
      for (std::uint32_t i = 0; i < args.tokens; ++i)
        put(payload, Token{choose.next(8) == 0 ? choose.next(3) : i % 5});
      if (args.marks != 0) {
        Mark mark;
        mark.at = choose.next(40);
        mark.length = choose.next(8);
        mark.atomic = static_cast<std::uint8_t>(choose.next(3));
        put(payload, mark);
      }
      break;
    }
    case wire::Op::append:
      out.c = 0;
      out.b = choose.next(2) == 0 ? kUnknown : out.b;
      for (std::uint32_t i = 0; i < out.a; ++i)
        put(payload, Token{i % 5});
      break;
    case wire::Op::reserve:
      for (std::uint32_t i = 0; i < out.a; ++i) {
        wire::WantRecord want;
        want.group = static_cast<std::uint16_t>(choose.next(3));
        want.first = choose.next(12) * (choose.next(8) == 0 ? 1 : 4);
        want.end = want.group == 0 ? want.first + 1 + choose.next(5) : want.first;
        put(payload, want);
      }
      break;
    case wire::Op::commit:
      for (std::uint32_t i = 0; i < out.a; ++i)
        put(payload,
            wire::FilledRecord{choose.next(50) | std::uint64_t{1 + choose.next(4)} << 32U,
                               choose.next(6) == 0 ? choose.next(6) : 0,
                               0});
      break;
    case wire::Op::abandon:
      for (std::uint32_t i = 0; i < out.a; ++i)
        put(payload, choose.next(50) | std::uint64_t{1 + choose.next(4)} << 32U);
      break;
    default:
      break;
  }
  // Now and then not even nearly right.
  if (choose.next(10) == 0 && !payload.empty())
    payload.resize(payload.size() - 1 - choose.next(3) % payload.size());
  if (choose.next(20) == 0) out.flags = 1;
  return out;
}

}  // namespace

void conductor(std::span<const std::byte> bytes) {
  static Daemon daemon;
  Choices choose(bytes);
  MemberInfo member;
  member.world = static_cast<std::uint16_t>(1 + choose.next(2));
  member.shard = {0, static_cast<std::uint16_t>(choose.next(2))};

  struct Handed {
    ClientIx client = 0;
    UniqueFd channel;
    UniqueFd doorbell;
  };

  const auto handed = std::make_shared<Handed>();
  must(daemon.ask<bool>([&](Conductor& c) {
    auto attached = c.attach(spec(), member);
    if (!attached) return false;
    *handed = {attached->client, std::move(attached->channel), std::move(attached->doorbell)};
    return true;
  }));
  auto client = wire::ClientChannel::open(std::move(handed->channel), std::move(handed->doorbell));
  must(client.has_value());
  std::vector<std::byte> payload;
  std::vector<std::byte> got;
  wire::Completion completion;
  while (!choose.over()) {
    const wire::Request record = make_record(choose, payload);
    const std::span<const std::byte> part(payload);
    if (!client->post(record, std::span(&part, 1)) && !client->wait(std::chrono::milliseconds(1)))
      continue;
    while (client->take(completion, got)) {
    }
  }
  // Everything posted is served before close() returns; what it held comes back, and the ledgers
  // add up.
  must(daemon.ask<bool>([&](Conductor& c) {
    static_cast<void>(c.close(handed->client));
    c.detach(handed->client);
    const auto audit = c.cache().audit();
    if (!audit) std::fprintf(stderr, "%s\n", audit.error().message().c_str());
    return audit.has_value() && c.cache().tickets() == 0 && c.clients() == 0;
  }));
}

}  // namespace statecached::fuzz

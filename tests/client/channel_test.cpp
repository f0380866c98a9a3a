// The rings: order and content across laps, back pressure, lost wake-ups, and hostile numbers.

#include "client/wire/channel.hpp"

#include "base/prng.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <thread>

namespace statecached::wire {
namespace {

constexpr ChannelSizes kSmall{.request_slots = 8,
                              .completion_slots = 8,
                              .request_area = 4096,
                              .reply_area = 4096};

struct Pair {
  DaemonChannel daemon;
  ClientChannel client;
  UniqueFd bell;
};

Pair make_pair(const ChannelSizes& sizes) {
  Pair out;
  auto daemon = DaemonChannel::create(sizes, 7);
  EXPECT_TRUE(daemon) << daemon.error().message();
  out.daemon = std::move(*daemon);
  out.bell = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  auto client =
      ClientChannel::open(UniqueFd(::dup(out.daemon.fd())), UniqueFd(::dup(out.bell.get())));
  EXPECT_TRUE(client) << client.error().message();
  out.client = std::move(*client);
  return out;
}

/// A third mapping: what a hostile process would write through.
ChannelHeader& raw_header(const DaemonChannel& daemon, const ChannelSizes& sizes, Mapping& keep) {
  keep = Mapping(
      ::mmap(nullptr, channel_bytes(sizes), PROT_READ | PROT_WRITE, MAP_SHARED, daemon.fd(), 0),
      channel_bytes(sizes));
  return *reinterpret_cast<ChannelHeader*>(keep.data());
}

std::vector<std::byte> pattern(std::uint64_t seed, std::size_t bytes) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    out[i] = static_cast<std::byte>((seed * 131 + i * 7) & 0xFFU);
  return out;
}

std::size_t size_for(std::uint64_t n) {
  return n % 5 == 0 ? 0 : (n * 389) % 1500 + 1;
}

bool post_pattern(ClientChannel& client, std::uint64_t n) {
  const auto bytes = pattern(n, size_for(n));
  // In two parts, so that joining them is part of what is tested.
  const std::span<const std::byte> whole(bytes);
  const std::array<std::span<const std::byte>, 2> parts{whole.first(whole.size() / 3),
                                                        whole.subspan(whole.size() / 3)};
  Request record;
  record.d = n;
  return client.post(record, parts);
}

TEST(Channel, SizesAreChecked) {
  EXPECT_FALSE(DaemonChannel::create({.request_slots = 3}, 1));
  EXPECT_FALSE(DaemonChannel::create({.request_area = 100}, 1));
  const Pair pair = make_pair(kSmall);
  EXPECT_EQ(pair.client.epoch(), 7U);
  EXPECT_EQ(pair.client.payload_max(), 4096U);
}

TEST(Channel, PingPongAcrossManyLaps) {
  constexpr std::uint64_t kCount = 20'000;
  Pair pair = make_pair(kSmall);
  std::jthread server([&] {
    std::uint64_t expected = 0;
    Request record;
    std::vector<std::byte> payload;
    while (expected < kCount && !pair.daemon.broken()) {
      if (!pair.daemon.take(record, payload)) {
        pair.daemon.set_sleeping(true);
        if (!pair.daemon.has_requests()) {
          pollfd p{.fd = pair.bell.get(), .events = POLLIN, .revents = 0};
          ASSERT_EQ(::poll(&p, 1, 20'000), 1) << "a wake-up of the daemon was lost";
          eventfd_t value = 0;
          ASSERT_EQ(::eventfd_read(pair.bell.get(), &value), 0);
        }
        pair.daemon.set_sleeping(false);
        continue;
      }
      ASSERT_EQ(record.d, expected);
      ASSERT_EQ(payload, pattern(expected, size_for(expected)));
      ++expected;
      Completion completion;
      completion.d = record.d;
      const std::span<const std::byte> part(payload);
      while (!pair.daemon.post(completion, std::span(&part, 1))) {
        ASSERT_FALSE(pair.daemon.broken());
        pair.daemon.ring();
        std::this_thread::yield();
      }
      pair.daemon.ring();
    }
  });
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  Completion completion;
  std::vector<std::byte> payload;
  while (received < kCount) {
    while (sent < kCount && post_pattern(pair.client, sent))
      ++sent;
    if (!pair.client.take(completion, payload)) {
      ASSERT_FALSE(pair.client.broken());
      // A wait may end early: the ring for a completion that we have taken already can still
      // arrive.
      const auto slept_from = std::chrono::steady_clock::now();
      const bool woken = pair.client.wait(std::chrono::seconds(20));
      ASSERT_TRUE(woken || std::chrono::steady_clock::now() - slept_from < std::chrono::seconds(10))
          << "a wake-up of the client was lost";
      continue;
    }
    ASSERT_EQ(completion.d, received);
    ASSERT_EQ(payload, pattern(received, size_for(received)));
    ++received;
  }
}

TEST(Channel, FullRingRefusesAndRecovers) {
  Pair pair = make_pair(kSmall);
  for (int i = 0; i < 8; ++i)
    EXPECT_TRUE(pair.client.post({}, {}));
  EXPECT_FALSE(pair.client.post({}, {}));
  EXPECT_FALSE(pair.client.broken());
  Request record;
  std::vector<std::byte> payload;
  EXPECT_TRUE(pair.daemon.take(record, payload));
  EXPECT_TRUE(pair.client.post({}, {}));
  for (int i = 0; i < 8; ++i)
    EXPECT_TRUE(pair.daemon.post({}, {}));
  EXPECT_FALSE(pair.daemon.post({}, {}));
  EXPECT_FALSE(pair.daemon.broken());
}

TEST(Channel, FullAreaRefusesAndAWholeAreaFitsWhereverItStands) {
  Pair pair = make_pair(kSmall);
  const auto most = pattern(1, 4096);
  const auto part = [&](std::size_t n) { return std::span<const std::byte>(most).first(n); };
  const auto post = [&](std::size_t n) {
    const auto p = part(n);
    return pair.client.post({}, std::span(&p, 1));
  };
  Request record;
  std::vector<std::byte> payload;
  for (const std::size_t before : {16UL, 1000UL, 2048UL, 4000UL, 4096UL}) {
    ASSERT_TRUE(post(before));
    EXPECT_FALSE(post(4096)) << "does not fit beside " << before;
    ASSERT_TRUE(pair.daemon.take(record, payload));
    // The area is empty now, its position anywhere: everything fits.
    ASSERT_TRUE(post(4096));
    EXPECT_FALSE(post(1));
    ASSERT_TRUE(pair.daemon.take(record, payload));
    EXPECT_EQ(payload, most);
  }
  const auto larger = pattern(1, 4097);
  const std::span<const std::byte> p(larger);
  EXPECT_FALSE(pair.client.post({}, std::span(&p, 1)));
  EXPECT_FALSE(pair.client.broken());
}

TEST(Channel, HostileClientBreaksOnlyItsChannel) {
  const auto broken_by = [](auto&& damage) {
    Pair pair = make_pair(kSmall);
    EXPECT_TRUE(post_pattern(pair.client, 1));
    Mapping keep;
    ChannelHeader& header = raw_header(pair.daemon, kSmall, keep);
    damage(header, *reinterpret_cast<Request*>(keep.data() + 4096));
    Request record;
    std::vector<std::byte> payload;
    const bool taken = pair.daemon.take(record, payload);
    if (pair.daemon.broken()) {
      EXPECT_FALSE(taken);
      EXPECT_FALSE(pair.daemon.post({}, {}));
      EXPECT_FALSE(pair.daemon.has_requests());
    }
    return pair.daemon.broken();
  };
  EXPECT_FALSE(broken_by([](ChannelHeader&, Request&) {}));
  EXPECT_TRUE(broken_by([](ChannelHeader& h, Request&) { h.request_tail = 9; }));
  EXPECT_TRUE(broken_by([](ChannelHeader& h, Request&) { h.request_tail = ~0ULL; }));
  EXPECT_TRUE(broken_by([](ChannelHeader& h, Request&) { h.request_area_head = 0; }));
  EXPECT_TRUE(broken_by([](ChannelHeader& h, Request&) { h.request_area_head = ~0ULL; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Request& r) { r.payload_offset = 4096; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Request& r) { r.payload_offset = 16; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Request& r) { r.payload_offset = ~0ULL; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Request& r) { r.payload_bytes = 0xFFFF'FFFF; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Request& r) { r.payload_bytes = 4096; }));

  Pair pair = make_pair(kSmall);
  Mapping keep;
  raw_header(pair.daemon, kSmall, keep).completion_head = 5;  // took what was never posted
  EXPECT_FALSE(pair.daemon.post({}, {}));
  EXPECT_TRUE(pair.daemon.broken());
  Pair other = make_pair(kSmall);
  raw_header(other.daemon, kSmall, keep).reply_area_tail = 64;
  const auto bytes = pattern(1, 10);
  const std::span<const std::byte> part(bytes);
  EXPECT_FALSE(other.daemon.post({}, std::span(&part, 1)));
  EXPECT_TRUE(other.daemon.broken());
}

TEST(Channel, HostileDaemonBreaksOnlyItsChannel) {
  const auto broken_by = [](auto&& damage) {
    Pair pair = make_pair(kSmall);
    const auto bytes = pattern(1, 100);
    const std::span<const std::byte> part(bytes);
    EXPECT_TRUE(pair.daemon.post({}, std::span(&part, 1)));
    Mapping keep;
    ChannelHeader& header = raw_header(pair.daemon, kSmall, keep);
    damage(header, *reinterpret_cast<Completion*>(keep.data() + 8192));
    Completion completion;
    std::vector<std::byte> payload;
    const bool taken = pair.client.take(completion, payload);
    EXPECT_NE(taken, pair.client.broken());
    return pair.client.broken();
  };
  EXPECT_FALSE(broken_by([](ChannelHeader&, Completion&) {}));
  EXPECT_TRUE(broken_by([](ChannelHeader& h, Completion&) { h.completion_tail = 9; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Completion& c) { c.payload_offset = 4080; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Completion& c) { c.payload_offset = ~0ULL - 15; }));
  EXPECT_TRUE(broken_by([](ChannelHeader&, Completion& c) { c.payload_bytes = 5000; }));
  Pair pair = make_pair(kSmall);
  Mapping keep;
  raw_header(pair.daemon, kSmall, keep).request_head = 1;
  EXPECT_FALSE(pair.client.post({}, {}));
  EXPECT_TRUE(pair.client.broken());
}

TEST(Channel, RandomDamageNeverLeavesTheMapping) {
  // The sanitizers are the judges here; what must hold anyway is that no payload is larger than its
  // area.
  Prng random(42);
  for (int round = 0; round < 300; ++round) {
    Pair pair = make_pair(kSmall);
    Mapping keep;
    raw_header(pair.daemon, kSmall, keep);
    Request record;
    std::vector<std::byte> payload;
    for (int step = 0; step < 20; ++step) {
      static_cast<void>(post_pattern(pair.client, random.next()));
      // Beyond the fields that only open() reads; rings and header alike.
      const std::size_t at = 64 + random.next() % (8192 - 64 - 8);
      const std::uint64_t value = random.next() >> (random.next() % 64);
      std::memcpy(keep.data() + at, &value, sizeof value);
      if (!pair.daemon.take(record, payload)) continue;
      ASSERT_LE(payload.size(), 4096U);
    }
  }
}

TEST(Channel, OpenRefusesWhatIsNoChannel) {
  const auto open = [](UniqueFd fd) {
    return ClientChannel::open(std::move(fd), UniqueFd(::eventfd(0, EFD_CLOEXEC))).has_value();
  };
  const auto memfd = [](std::size_t bytes, bool seal) {
    UniqueFd fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
    EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seal ? F_SEAL_SHRINK : F_SEAL_GROW), 0);
    return fd;
  };
  EXPECT_FALSE(open(memfd(100, true)));
  EXPECT_FALSE(open(memfd(channel_bytes(kSmall), false)));
  EXPECT_FALSE(open(memfd(channel_bytes(kSmall), true)));
  EXPECT_FALSE(open(UniqueFd(::eventfd(0, EFD_CLOEXEC))));
  auto daemon = DaemonChannel::create(kSmall, 1);
  ASSERT_TRUE(daemon);
  Mapping keep;
  ChannelHeader& header = raw_header(*daemon, kSmall, keep);
  EXPECT_TRUE(open(UniqueFd(::dup(daemon->fd()))));
  header.request_area = 8192;
  EXPECT_FALSE(open(UniqueFd(::dup(daemon->fd()))));
  header.request_area = 4096;
  header.version = kProtocolMax + 1;
  EXPECT_FALSE(open(UniqueFd(::dup(daemon->fd()))));
}

TEST(Channel, PokeEndsAWait) {
  Pair pair = make_pair(kSmall);
  const std::uint32_t seen = pair.client.bell();
  pair.client.poke();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(pair.client.wait(std::chrono::seconds(20), seen));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_FALSE(pair.client.wait(std::chrono::milliseconds(1)));
}

}  // namespace
}  // namespace statecached::wire

// The control plane's codec: what goes in comes out, and damaged bytes are refused.

#include "client/wire/control.hpp"

#include "base/prng.hpp"
#include "client/wire/socket.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>

namespace statecached::wire {
namespace {

std::span<const std::byte> body_of(const std::vector<std::byte>& frame) {
  const auto length =
      frame_length(std::span<const std::byte, kFramePrefix>(frame.data(), kFramePrefix));
  EXPECT_TRUE(length && *length == frame.size() - kFramePrefix);
  return std::span<const std::byte>(frame).subspan(kFramePrefix);
}

AttachMessage sample() {
  AttachMessage m;
  m.space.name = "jamba";
  m.space.model.bytes.fill(std::byte{1});
  m.space.layout.bytes.fill(std::byte{2});
  m.space.groups = {Group{.name = "kv",
                          .max_bytes = 1 << 20,
                          .shards = 2,
                          .contiguous = true,
                          .token_major = false},
                    Group{.name = "ssm", .need = Need::end, .lookahead = 3, .max_bytes = 77}};
  m.space.resume_grid = 64;
  m.space.checkpoint_grid = 128;
  m.space.checkpoints_per_chunk = 5;
  m.space.cost = Cost{.c0 = 1, .c1 = 2.5, .c2 = 3, .window_c2 = 4, .window = 5};
  m.engine.bytes.fill(std::byte{3});
  m.rank = 1;
  m.world = 2;
  m.shard = {1, 0};
  m.program = "test";
  return m;
}

TEST(Control, AttachRoundTrip) {
  const AttachMessage in = sample();
  const auto frame = encode_request(99, in);
  const auto out = decode_request(body_of(frame));
  ASSERT_TRUE(out) << out.error().message();
  EXPECT_EQ(out->id, 99U);
  const auto* m = std::get_if<AttachMessage>(&out->body);
  ASSERT_NE(m, nullptr);
  EXPECT_EQ(m->version_min, kProtocolMin);
  EXPECT_EQ(m->version_max, kProtocolMax);
  EXPECT_EQ(m->space.name, in.space.name);
  EXPECT_EQ(m->space.model, in.space.model);
  EXPECT_EQ(m->space.layout, in.space.layout);
  EXPECT_EQ(m->space.groups, in.space.groups);
  EXPECT_EQ(m->space.resume_grid, 64U);
  EXPECT_EQ(m->space.checkpoint_grid, 128U);
  EXPECT_EQ(m->space.checkpoints_per_chunk, 5U);
  EXPECT_EQ(m->space.cost, in.space.cost);
  EXPECT_EQ(m->engine, in.engine);
  EXPECT_EQ(m->rank, 1U);
  EXPECT_EQ(m->world, 2U);
  EXPECT_EQ(m->shard, in.shard);
  EXPECT_EQ(m->program, "test");
}

TEST(Control, AdminAndRepliesRoundTrip) {
  const auto admin =
      decode_request(body_of(encode_request(1, AdminMessage{"explain", {"a", ""}, {1, 2, 3}})));
  ASSERT_TRUE(admin);
  EXPECT_EQ(std::get<AdminMessage>(admin->body).command, "explain");
  EXPECT_EQ(std::get<AdminMessage>(admin->body).arguments, (std::vector<std::string>{"a", ""}));
  EXPECT_EQ(std::get<AdminMessage>(admin->body).tokens, (std::vector<Token>{1, 2, 3}));

  AttachedReply in{.epoch = 5,
                   .client = 6,
                   .name = "n@1",
                   .generation = 7,
                   .arenas = {{TierName::host, 4096, true}},
                   .cores = 2};
  const auto attached = decode_reply(body_of(encode_reply(2, in)));
  ASSERT_TRUE(attached);
  EXPECT_TRUE(attached->last);
  const auto& a = std::get<AttachedReply>(attached->body);
  EXPECT_EQ(a.epoch, 5U);
  EXPECT_EQ(a.client, 6U);
  EXPECT_EQ(a.name, "n@1");
  EXPECT_EQ(a.generation, 7U);
  EXPECT_EQ(a.cores, 2U);
  ASSERT_EQ(a.arenas.size(), 1U);
  EXPECT_EQ(a.arenas[0].tier, TierName::host);
  EXPECT_EQ(a.arenas[0].bytes, 4096U);
  EXPECT_TRUE(a.arenas[0].writable);

  const auto json = decode_reply(body_of(encode_reply(3, AdminReply{"{}"}, false)));
  ASSERT_TRUE(json);
  EXPECT_FALSE(json->last);
  EXPECT_EQ(std::get<AdminReply>(json->body).json, "{}");
  const auto failed = decode_reply(body_of(encode_reply(4, FailureReply{Errc::permission, "no"})));
  ASSERT_TRUE(failed);
  EXPECT_EQ(std::get<FailureReply>(failed->body).code, Errc::permission);
  EXPECT_EQ(std::get<FailureReply>(failed->body).message, "no");
}

TEST(Control, TruncatedAndDamagedBytesAreRefusedOrHarmless) {
  const auto frame = encode_request(1, sample());
  const auto body = body_of(frame);
  for (std::size_t n = 0; n < body.size(); ++n) {
    EXPECT_FALSE(decode_reply(body.first(n)).has_value() &&
                 decode_request(body.first(n)).has_value());
  }
  EXPECT_FALSE(decode_request({}));
  EXPECT_FALSE(decode_request(body.first(body.size() / 2)));
  Prng random(3);
  std::size_t refused = 0;
  for (int i = 0; i < 5000; ++i) {
    std::vector<std::byte> bad(body.begin(), body.end());
    for (int k = 0; k < 4; ++k)
      bad[random.next() % bad.size()] = static_cast<std::byte>(random.next() & 0xFFU);
    if (!decode_request(bad)) ++refused;
  }
  EXPECT_GT(refused, 0U);
}

TEST(Control, ValuesOutOfRangeAreRefused) {
  AttachMessage m = sample();
  m.space.groups.resize(kGroupsMax + 1);
  EXPECT_FALSE(decode_request(body_of(encode_request(1, m))));
  m = sample();
  m.space.groups[0].need = static_cast<Need>(9);
  EXPECT_FALSE(decode_request(body_of(encode_request(1, m))));
  const std::array<std::byte, 4> zero{};
  EXPECT_FALSE(frame_length(zero));
  const std::array<std::byte, 4> huge{std::byte{1}, std::byte{0}, std::byte{0}, std::byte{4}};
  EXPECT_FALSE(frame_length(huge));
}

TEST(Socket, FramesAndDescriptorsTravelAndTheEndIsSeen) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  UniqueFd a(ends[0]);
  UniqueFd b(ends[1]);
  const auto frame = encode_request(8, AdminMessage{"status", {}, {}});
  const std::array<int, 2> fds{a.get(), b.get()};
  ASSERT_TRUE(send_frame(a.get(), frame, fds, std::chrono::seconds(5)));
  ASSERT_TRUE(send_frame(a.get(), frame, {}, std::chrono::seconds(5)));
  const auto first = receive_frame(b.get(), std::chrono::seconds(5));
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(first->fds.size(), 2U);
  for (const UniqueFd& fd : first->fds)
    EXPECT_NE(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_TRUE(decode_request(first->body));
  const auto second = receive_frame(b.get(), std::chrono::seconds(5));
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->fds.empty());
  const auto none = receive_frame(b.get(), std::chrono::milliseconds(1));
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Errc::timeout);
}

TEST(Socket, HangUp) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  UniqueFd a(ends[0]);
  UniqueFd b(ends[1]);
  EXPECT_FALSE(hung_up(b.get()));
  a.reset();
  EXPECT_TRUE(hung_up(b.get()));
  const auto end = receive_frame(b.get(), std::chrono::seconds(5));
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Errc::closed);
  EXPECT_EQ(connect_unix("/nonexistent/s").error().code, Errc::not_found);
  EXPECT_EQ(connect_unix(std::string(200, 'x')).error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace statecached::wire

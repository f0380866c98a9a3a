// Records to calls and back, on values alone.

#include "daemon/serving/codec.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace statecached {
namespace {

std::vector<std::byte> begin_payload(const wire::BeginArgs& args,
                                     std::span<const Token> tokens,
                                     std::span<const Mark> marks) {
  std::vector<std::byte> out(sizeof args + tokens.size_bytes() + marks.size_bytes());
  std::memcpy(out.data(), &args, sizeof args);
  if (!tokens.empty()) std::memcpy(out.data() + sizeof args, tokens.data(), tokens.size_bytes());
  if (!marks.empty())
    std::memcpy(out.data() + sizeof args + tokens.size_bytes(), marks.data(), marks.size_bytes());
  return out;
}

wire::Request named() {
  wire::Request out;
  out.ticket = {4, 5};
  return out;
}

TEST(Codec, BeginKeepsEveryField) {
  wire::BeginArgs args;
  args.parent = {1, 1};
  args.parent_tokens = 10;
  args.tokens = 3;
  args.marks = 1;
  args.have_every = 64;
  args.have_end = 128;
  args.keep_back = 2;
  args.at_most = 1000;
  args.deadline_us = 5000;
  args.members = 4;
  args.hold = 2;
  args.priority = 9;
  const std::vector<Token> tokens{7, 8, 9};
  const std::vector<Mark> marks{{11, 2, {}, 1, 0}};
  const auto payload = begin_payload(args, tokens, marks);
  const auto got = decode_begin(named(), payload);
  ASSERT_TRUE(got.has_value()) << got.error().text;
  EXPECT_TRUE(std::ranges::equal(got->tokens, tokens));
  EXPECT_TRUE(std::ranges::equal(got->marks, marks));
  EXPECT_EQ(got->parent_tokens, 10U);
  EXPECT_EQ(got->have.every, 64U);
  EXPECT_EQ(got->have.end, 128U);
  EXPECT_EQ(got->keep_back, 2U);
  EXPECT_EQ(got->at_most, 1000U);
  EXPECT_EQ(got->deadline, std::chrono::milliseconds(5));
  EXPECT_EQ(got->members, 4);
  EXPECT_EQ(got->hold, HoldKind::lease);
  EXPECT_EQ(got->priority, 9);
}

TEST(Codec, BeginRefusesWhatDoesNotAddUp) {
  const std::vector<Token> tokens{1, 2, 3, 4};
  const auto refused = [&](auto change, std::span<const Mark> marks = {}) {
    wire::BeginArgs args;
    args.tokens = 4;
    args.marks = static_cast<std::uint32_t>(marks.size());
    change(args);
    const auto payload = begin_payload(args, tokens, marks);
    const auto got = decode_begin(named(), payload);
    return !got.has_value() && got.error().code == Errc::invalid_argument;
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& a) { a.tokens = 5; }));
  EXPECT_TRUE(refused([](auto& a) { a.tokens = 3; }));
  EXPECT_TRUE(refused([](auto& a) { a.tokens = 0xffffffff; }));
  EXPECT_TRUE(refused([](auto& a) { a.marks = 0xffffffff; }));
  EXPECT_TRUE(refused([](auto& a) { a.hold = 3; }));
  EXPECT_TRUE(refused([](auto& a) { a.parent_tokens = 1; }));
  EXPECT_TRUE(refused([](auto& a) {
    a.parent = {1, 1};
    a.parent_tokens = 0xfffffffe;
  }));
  const auto same = [](auto&) {};
  EXPECT_FALSE(refused(same, std::vector<Mark>{{0, 2, {}, 0, 0}, {2, 2, {}, 0, 0}}));
  EXPECT_TRUE(refused(same, std::vector<Mark>{{0, 2, {}, 0, 0}, {1, 1, {}, 0, 0}}));  // overlap
  EXPECT_TRUE(refused(same, std::vector<Mark>{{3, 2, {}, 0, 0}}));  // past the end
  EXPECT_TRUE(refused(same, std::vector<Mark>{{0, 0, {}, 0, 0}}));  // of nothing
  EXPECT_TRUE(refused(same, std::vector<Mark>{{0xffffffff, 0xffffffff, {}, 0, 0}}));  // wraps
  const auto payload = begin_payload({}, {}, {});
  EXPECT_FALSE(decode_begin(wire::Request{}, payload).has_value());  // zero ticket
  for (std::size_t cut = 0; cut < payload.size(); ++cut) {
    EXPECT_FALSE(decode_begin(named(), std::span(payload).first(cut)).has_value());
  }
}

TEST(Codec, WantsAreCheckedAgainstTheNamespace) {
  wire::Request record = named();
  record.a = 1;
  const auto decode = [&](std::uint16_t group, std::uint32_t first, std::uint32_t end) {
    wire::WantRecord want;
    want.group = group;
    want.first = first;
    want.end = end;
    return decode_wants(record, std::as_bytes(std::span(&want, 1)), 2);
  };
  EXPECT_TRUE(decode(1, 64, 100).has_value());
  EXPECT_TRUE(decode(1, 100, 100).has_value());
  EXPECT_FALSE(decode(2, 64, 100).has_value());
  EXPECT_FALSE(decode(0, 101, 100).has_value());
  EXPECT_FALSE(decode(0, 0, 0).has_value());
  record.a = 0x10000001;
  EXPECT_FALSE(decode(0, 0, 1).has_value());
}

TEST(Codec, ALeaseShowsAMemberItsShardsOnly) {
  Lease lease;
  lease.tokens = 64;
  for (std::uint16_t shard = 0; shard < 2; ++shard) {
    Piece piece;
    piece.shard = shard;
    piece.valid = 64;
    piece.payload_bytes = 5000;
    piece.runs = {{4096ULL * shard, 4096}, {65536ULL + 4096ULL * shard, 4096}};
    lease.pieces.push_back(piece);
  }
  Piece state;
  state.group = 1;
  state.first = 64;
  state.payload_bytes = 10;
  state.runs = {{8192 * 4, 4096}};
  lease.pieces.push_back(state);
  MemberInfo member;
  member.shard = {1, 0};
  const Reply reply = encode_lease({1, 2}, lease, member);
  EXPECT_EQ(reply.completion.event, static_cast<std::uint16_t>(wire::Event::leased));
  EXPECT_EQ(reply.completion.a, 64U);
  ASSERT_EQ(reply.completion.b, 2U);
  ASSERT_EQ(reply.completion.c, 2U);
  ASSERT_EQ(reply.payload.size(), 2 * sizeof(wire::PieceRecord) + 2 * sizeof(wire::ExtentRecord));
  std::array<wire::PieceRecord, 2> pieces;
  std::array<wire::ExtentRecord, 2> extents;
  std::memcpy(pieces.data(), reply.payload.data(), sizeof pieces);
  std::memcpy(extents.data(), reply.payload.data() + sizeof pieces, sizeof extents);
  EXPECT_EQ(pieces[0].shard, 1);
  EXPECT_EQ(pieces[0].extents, 2);
  EXPECT_EQ(pieces[0].offset, 0U);
  EXPECT_EQ(extents[0].offset, 4096U);
  EXPECT_EQ(extents[1].offset, 65536U + 4096U);
  EXPECT_EQ(pieces[1].group, 1);
  EXPECT_EQ(pieces[1].extents, 1);
  EXPECT_EQ(pieces[1].offset, 8192U * 4);
  EXPECT_EQ(pieces[1].bytes, 10U);
}

}  // namespace
}  // namespace statecached

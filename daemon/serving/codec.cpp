#include "daemon/serving/codec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace statecached {
namespace {

static_assert(alignof(Token) <= 4 && alignof(Mark) <= 4 && sizeof(wire::BeginArgs) % 4 == 0);

/// The next `count` Ts of the payload: it is our own copy, 16-aligned, and holds plain bytes.
template <class T>
std::span<const T> view(std::span<const std::byte> payload, std::size_t at, std::size_t count) {
  SC_ASSERT(at % alignof(T) == 0 && at + count * sizeof(T) <= payload.size());
  return {reinterpret_cast<const T*>(payload.data() + at), count};
}

/// The `at`-th T of the payload, which may lie unaligned in it.
template <class T>
T copy_at(std::span<const std::byte> payload, std::size_t at) {
  SC_ASSERT((at + 1) * sizeof(T) <= payload.size());
  T out;
  std::memcpy(&out, payload.data() + at * sizeof(T), sizeof(T));
  return out;
}

Result<> check_marks(std::span<const Mark> marks, std::uint64_t tokens) {
  std::uint64_t floor = 0;
  for (const Mark& mark : marks) {
    const std::uint64_t end = std::uint64_t{mark.at} + mark.length;
    if (mark.length == 0) return fail(Errc::invalid_argument, "a mark of no tokens");
    if (mark.at < floor)
      return fail(Errc::invalid_argument, "marks that overlap or are out of order");
    if (end > tokens) return fail(Errc::invalid_argument, "a mark that ends past the sequence");
    if (mark.atomic > 1)
      return fail(Errc::invalid_argument, "a mark whose `atomic` is neither 0 nor 1");
    floor = end;
  }
  return {};
}

/// Items of fixed size that must fill the payload exactly.
Result<> check_count(std::size_t count,
                     std::size_t size,
                     std::span<const std::byte> payload,
                     const char* what) {
  if (payload.size() != count * size) {
    return fail(
        Errc::invalid_argument,
        fmt::format("{} {} need {} bytes, {} came", count, what, count * size, payload.size()));
  }
  return {};
}

/// Writes records one after another into memory that was made for the most of them.
class Writer {
 public:
  /// `at_most`: bytes that put() will be asked for.
  Writer(std::vector<std::byte>& out, std::size_t at_most) : out_(out) { out_.resize(at_most); }

  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    SC_ASSERT(at_ + sizeof value <= out_.size());
    std::memcpy(out_.data() + at_, &value, sizeof value);
    at_ += sizeof value;
  }

  [[nodiscard]] std::size_t size() const { return at_; }

  void finish() { out_.resize(at_); }

 private:
  std::vector<std::byte>& out_;
  std::size_t at_ = 0;
};

Reply renewed(Reply reuse, wire::Event event, const TicketName& ticket) {
  reuse.completion = wire::Completion{};
  reuse.completion.event = static_cast<std::uint16_t>(event);
  reuse.completion.ticket = ticket;
  return reuse;
}

/// Collects runs: one is written inline into the record, more go to the table behind the records.
class Runs {
 public:
  struct Where {
    std::uint16_t extents;
    std::uint64_t offset;
  };

  /// Offsets count from `base` on.
  Where add(const ExtentList& runs, std::uint64_t base) {
    if (runs.size() == 1) return {1, runs.front().offset - base};
    if (runs.size() > std::numeric_limits<std::uint16_t>::max()) {
      overflow_ = true;
      return {0, 0};
    }
    const std::uint64_t at = table_.size();
    for (const Extent& run : runs)
      table_.push_back({run.offset - base, run.bytes});
    return {static_cast<std::uint16_t>(runs.size()), at};
  }

  void append_to(std::vector<std::byte>& out) const {
    const auto bytes = std::as_bytes(std::span(table_));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }

  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(table_.size()); }

  /// An object in more pieces than a record can count (a very large one in a very fragmented
  /// arena).
  [[nodiscard]] bool overflow() const { return overflow_; }

 private:
  std::vector<wire::ExtentRecord> table_;
  bool overflow_ = false;
};

std::uint32_t micros32(Nanos d) {
  const std::int64_t us = std::max<std::int64_t>(0, d.count() / 1000);
  return static_cast<std::uint32_t>(std::min<std::int64_t>(us, kUnknown - 1));
}

void set_limits(const wire::BeginArgs& args, BeginRequest& out) {
  out.domain = args.domain;
  out.have = {args.have_every, args.have_end};
  out.hold = static_cast<HoldKind>(args.hold);
  out.keep_back = args.keep_back;
  out.at_most = args.at_most;
  out.deadline = std::chrono::microseconds(args.deadline_us);
  out.priority = args.priority;
  out.members = args.members;
}

}  // namespace

std::uint16_t shard_of(const MemberInfo& member, std::uint16_t group) noexcept {
  return group < member.shard.size() ? member.shard[group] : std::uint16_t{0};
}

Result<BeginRequest> decode_begin(const wire::Request& record, std::span<const std::byte> payload) {
  wire::BeginArgs args;
  if (payload.size() < sizeof args)
    return fail(Errc::invalid_argument, "a begin without its arguments");
  if (record.ticket.is_zero()) return fail(Errc::invalid_argument, "a begin with the zero ticket");
  std::memcpy(&args, payload.data(), sizeof args);
  const std::uint64_t need = sizeof args + std::uint64_t{args.tokens} * sizeof(Token) +
                             std::uint64_t{args.marks} * sizeof(Mark);
  if (need != payload.size()) {
    return fail(Errc::invalid_argument,
                fmt::format("{} tokens and {} marks need {} bytes, {} came",
                            args.tokens,
                            args.marks,
                            need,
                            payload.size()));
  }
  const std::uint64_t total = std::uint64_t{args.tokens} + args.parent_tokens;
  if (total >= kUnknown)
    return fail(Errc::invalid_argument, "a sequence of 2^32 - 1 tokens or more");
  if (args.hold > static_cast<std::uint8_t>(wire::Hold::lease))
    return fail(Errc::invalid_argument, "an unknown hold");
  if (args.parent.is_zero() && args.parent_tokens != 0) {
    return fail(Errc::invalid_argument, "parent_tokens without a parent");
  }
  BeginRequest out;
  out.tokens = view<Token>(payload, sizeof args, args.tokens);
  out.marks = view<Mark>(payload, sizeof args + out.tokens.size_bytes(), args.marks);
  SC_TRY(check_marks(out.marks, total));
  out.parent = args.parent;
  out.parent_tokens = args.parent_tokens;
  set_limits(args, out);
  return out;
}

Result<BeginRequest> decode_begin_keys(const wire::Request& record,
                                       std::span<const std::byte> payload) {
  wire::BeginArgs args;
  if (payload.size() < sizeof args)
    return fail(Errc::invalid_argument, "a begin without its arguments");
  std::memcpy(&args, payload.data(), sizeof args);
  const std::uint64_t need =
      sizeof args + (std::uint64_t{args.tokens} + args.marks) * sizeof(Digest);
  if (args.marks > 1 || need != payload.size()) {
    return fail(Errc::invalid_argument,
                fmt::format("{} keys need {} bytes, {} came", args.tokens, need, payload.size()));
  }
  if (args.hold > static_cast<std::uint8_t>(wire::Hold::lease))
    return fail(Errc::invalid_argument, "an unknown hold");
  if (record.ticket.is_zero() || !args.parent.is_zero())
    return fail(Errc::invalid_argument,
                "a begin with the zero ticket, or keys with a parent ticket");
  BeginRequest out;
  const auto keys = view<Digest>(payload, sizeof args, args.tokens + args.marks);
  out.keys = keys.first(args.tokens);
  if (args.marks == 1) out.after = keys.back();
  out.first_token = args.parent_tokens;
  set_limits(args, out);
  return out;
}

Result<std::span<const Digest>> decode_keys(const wire::Request& record,
                                            std::span<const std::byte> payload) {
  SC_TRY(check_count(record.a, sizeof(Digest), payload, "keys"));
  return view<Digest>(payload, 0, record.a);
}

Result<AppendArgs> decode_append(const wire::Request& record, std::span<const std::byte> payload) {
  const std::uint64_t need =
      std::uint64_t{record.a} * sizeof(Token) + std::uint64_t{record.c} * sizeof(Mark);
  if (need != payload.size()) {
    return fail(Errc::invalid_argument,
                fmt::format("{} tokens and {} marks need {} bytes, {} came",
                            record.a,
                            record.c,
                            need,
                            payload.size()));
  }
  AppendArgs out;
  out.tokens = view<Token>(payload, 0, record.a);
  out.marks = view<Mark>(payload, out.tokens.size_bytes(), record.c);
  // The Cache knows where the sequence ends; here only what the marks say about each other.
  SC_TRY(check_marks(out.marks, kUnknown));
  return out;
}

Result<std::vector<WantItem>> decode_wants(const wire::Request& record,
                                           std::span<const std::byte> payload,
                                           std::size_t groups,
                                           std::vector<WantItem> out) {
  SC_TRY(check_count(record.a, sizeof(wire::WantRecord), payload, "wants"));
  out.clear();
  for (std::uint32_t i = 0; i < record.a; ++i) {
    const auto want = copy_at<wire::WantRecord>(payload, i);
    if (want.group >= groups)
      return fail(Errc::invalid_argument,
                  fmt::format("a want for group {} of {}", want.group, groups));
    if (want.end < want.first || want.end == 0) {
      return fail(Errc::invalid_argument,
                  fmt::format("a want for tokens [{}, {})", want.first, want.end));
    }
    out.push_back({want.group, want.first, want.end, want.bytes});
  }
  return out;
}

Result<std::vector<Filled>> decode_filled(const wire::Request& record,
                                          std::span<const std::byte> payload,
                                          std::vector<Filled> out) {
  SC_TRY(check_count(record.a, sizeof(wire::FilledRecord), payload, "filled slots"));
  out.clear();
  for (std::uint32_t i = 0; i < record.a; ++i) {
    const auto item = copy_at<wire::FilledRecord>(payload, i);
    out.push_back({item.slot, item.valid});
  }
  return out;
}

Result<std::vector<SlotId>> decode_slots(const wire::Request& record,
                                         std::span<const std::byte> payload,
                                         std::vector<SlotId> out) {
  SC_TRY(check_count(record.a, sizeof(std::uint64_t), payload, "slots"));
  out.clear();
  for (std::uint32_t i = 0; i < record.a; ++i)
    out.push_back(copy_at<std::uint64_t>(payload, i));
  return out;
}

Reply encode_answer(const TicketName& ticket, const Answer& answer, Reply reuse) {
  Reply reply = renewed(std::move(reuse), wire::Event::answer, ticket);
  wire::AnswerRecord head;
  head.version = answer.version;
  head.best = answer.best;
  head.usable = answer.usable;
  head.stored = answer.stored;
  head.points = static_cast<std::uint32_t>(answer.points.size());
  head.wishes = static_cast<std::uint32_t>(answer.wishes.size());
  head.state = static_cast<std::uint8_t>(answer.state);
  Writer out(reply.payload,
             sizeof head + answer.points.size() * sizeof(wire::PointRecord) +
                 answer.wishes.size() * sizeof(std::uint32_t));
  out.put(head);
  for (const Point& point : answer.points) {
    wire::PointRecord record;
    record.tokens = point.tokens;
    record.tier = static_cast<std::uint8_t>(point.tier);
    record.bytes = point.bytes;
    record.ready_in_us = micros32(point.ready_in);
    record.recompute_us = micros32(point.recompute);
    out.put(record);
  }
  for (const std::uint32_t wish : answer.wishes)
    out.put(wish);
  return reply;
}

Reply encode_lease(const TicketName& ticket,
                   const Lease& lease,
                   const MemberInfo& member,
                   Reply reuse) {
  Reply reply = renewed(std::move(reuse), wire::Event::leased, ticket);
  Runs runs;
  Writer out(reply.payload, lease.pieces.size() * sizeof(wire::PieceRecord));
  for (const Piece& piece : lease.pieces) {
    if (piece.shard != shard_of(member, piece.group)) continue;
    const Runs::Where where =
        runs.add(piece.runs, piece.arena == kHostArena ? member.host_base : 0);
    wire::PieceRecord record;
    record.group = piece.group;
    record.tier_at_begin = static_cast<std::uint8_t>(piece.tier_at_begin);
    record.arena = static_cast<std::uint8_t>(piece.arena);
    record.first = piece.first;
    record.valid = piece.valid;
    record.shard = piece.shard;
    record.extents = where.extents;
    record.offset = where.offset;
    record.bytes = piece.payload_bytes;
    out.put(record);
  }
  if (runs.overflow()) return encode_done(wire::Event::done, ticket, Errc::no_space);
  out.finish();
  reply.completion.a = lease.tokens;
  reply.completion.b = static_cast<std::uint32_t>(reply.payload.size() / sizeof(wire::PieceRecord));
  reply.completion.c = runs.size();
  runs.append_to(reply.payload);
  return reply;
}

Reply encode_slots(const TicketName& ticket,
                   std::span<const SlotGrant> grants,
                   std::uint64_t host_base,
                   Reply reuse) {
  Reply reply = renewed(std::move(reuse), wire::Event::slots, ticket);
  Runs runs;
  Writer out(reply.payload, grants.size() * sizeof(wire::SlotRecord));
  for (const SlotGrant& grant : grants) {
    const Runs::Where where = runs.add(grant.runs, grant.arena == kHostArena ? host_base : 0);
    wire::SlotRecord record;
    record.slot = grant.slot;
    record.group = grant.group;
    record.grant = static_cast<std::uint8_t>(grant.grant);
    record.arena = static_cast<std::uint8_t>(grant.arena);
    record.first = grant.first;
    record.end = grant.end;
    record.shard = grant.shard;
    record.extents = where.extents;
    record.offset = where.offset;
    record.bytes = grant.payload_bytes;
    out.put(record);
  }
  if (runs.overflow()) return encode_done(wire::Event::done, ticket, Errc::no_space);
  out.finish();
  reply.completion.a = static_cast<std::uint32_t>(grants.size());
  reply.completion.b = runs.size();
  runs.append_to(reply.payload);
  return reply;
}

Reply encode_done(wire::Event event, const TicketName& ticket, Errc code) {
  Reply reply;
  reply.completion.event = static_cast<std::uint16_t>(event);
  reply.completion.code = static_cast<std::uint16_t>(code);
  reply.completion.ticket = ticket;
  return reply;
}

}  // namespace statecached

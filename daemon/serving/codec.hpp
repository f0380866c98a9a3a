#pragma once
// Between wire records and calls of the Cache. Pure functions: everything a client sent is checked
// here against the bytes that came with it, and nothing is trusted because of what the record says.

#include "client/wire/records.hpp"
#include "daemon/cache/cache.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace statecached {

/// Views into the payload, valid as long as it is. Errors: invalid_argument with the field at
/// fault.
[[nodiscard]] Result<BeginRequest> decode_begin(const wire::Request& record,
                                                std::span<const std::byte> payload);

/// For a namespace that is addressed by keys: `tokens` counts keys of 32 bytes, parent_tokens is
/// the first token, marks is 1 where the key before the run follows them.
[[nodiscard]] Result<BeginRequest> decode_begin_keys(const wire::Request& record,
                                                     std::span<const std::byte> payload);

struct AppendArgs {
  std::span<const Token> tokens;
  std::span<const Mark> marks;
};

[[nodiscard]] Result<AppendArgs> decode_append(const wire::Request& record,
                                               std::span<const std::byte> payload);
[[nodiscard]] Result<std::span<const Digest>> decode_keys(const wire::Request& record,
                                                          std::span<const std::byte> payload);
/// Group indices below `groups`, ranges that are not empty backwards.
/// `reuse`: memory for the result.
[[nodiscard]] Result<std::vector<WantItem>> decode_wants(const wire::Request& record,
                                                         std::span<const std::byte> payload,
                                                         std::size_t groups,
                                                         std::vector<WantItem> reuse = {});
[[nodiscard]] Result<std::vector<Filled>> decode_filled(const wire::Request& record,
                                                        std::span<const std::byte> payload,
                                                        std::vector<Filled> reuse = {});
[[nodiscard]] Result<std::vector<SlotId>> decode_slots(const wire::Request& record,
                                                       std::span<const std::byte> payload,
                                                       std::vector<SlotId> reuse = {});

/// A completion and its payload, ready to be posted.
struct Reply {
  wire::Completion completion;
  std::vector<std::byte> payload;
};

/// `reuse`: a reply that was sent, for its memory.
[[nodiscard]] Reply encode_answer(const TicketName& ticket, const Answer& answer, Reply reuse = {});
/// Only the pieces of this member's shards.
[[nodiscard]] Reply encode_lease(const TicketName& ticket,
                                 const Lease& lease,
                                 const MemberInfo& member,
                                 Reply reuse = {});
/// `host_base`: where the client's own arena begins in the host tier.
[[nodiscard]] Reply encode_slots(const TicketName& ticket,
                                 std::span<const SlotGrant> grants,
                                 std::uint64_t host_base = 0,
                                 Reply reuse = {});
[[nodiscard]] Reply encode_done(wire::Event event, const TicketName& ticket, Errc code);

/// The member's shard of this group.
[[nodiscard]] std::uint16_t shard_of(const MemberInfo& member, std::uint16_t group) noexcept;

}  // namespace statecached

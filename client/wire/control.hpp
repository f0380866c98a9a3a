#pragma once
// The control plane as plain values: messages of protocol.fbs, without its library.
//
// A frame is 4 bytes little-endian length and then that many bytes of a size-prefixed FlatBuffer
// (any FlatBuffers library reads the whole frame as one). The encoders return the whole frame; the
// decoders take what follows the 4 bytes, verify every offset, copy everything out and check what
// has a fixed size or a closed set of values. What a NamespaceSpec means is checked by
// NamespaceSpec::validate(), not here. Pure functions: any thread. Errors: corrupt (it is no such
// message), invalid_argument (a field has a value no peer of ours sends).

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/spec.hpp"
#include "client/wire/records.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace statecached::wire {

inline constexpr std::size_t kFramePrefix = 4;
inline constexpr std::size_t kFrameMax = 64ULL << 20U;  ///< bytes after the prefix
inline constexpr std::size_t kFrameFdsMax = 16;         ///< file descriptors beside one frame
inline constexpr std::size_t kArenasMax = 8;

struct AttachMessage {
  std::uint32_t version_min = kProtocolMin;
  std::uint32_t version_max = kProtocolMax;
  NamespaceSpec space;
  Digest engine;  ///< the engine group
  std::uint16_t rank = 0;
  std::uint16_t world = 1;
  std::vector<std::uint16_t> shard;  ///< of each group; empty: shard 0 of all
  std::string program;               ///< for people
  std::uint64_t session = 0;         ///< the same when it attaches again
  bool again = false;                ///< it was attached to an earlier daemon
  std::vector<ExtentRecord> in_use;  ///< then: what it still uses of that one's host arena
};

inline constexpr std::size_t kInUseMax = 1U << 20U;

struct AdminMessage {
  std::string command;
  std::vector<std::string> arguments;
  std::vector<Token> tokens;
};

using RequestBody = std::variant<AttachMessage, AdminMessage>;

struct RequestMessage {
  std::uint64_t id = 0;
  RequestBody body;
};

struct ArenaInfo {
  TierName tier = TierName::host;
  std::uint64_t bytes = 0;
  bool writable = false;  ///< the fd may be mapped for writing
  bool staging = false;   ///< no tier: slots of a client that may not write the arenas
};

/// Travels with the channel memfd, the doorbell eventfd, and one fd for each arena, in this order.
struct AttachedReply {
  std::uint32_t version = kProtocolMax;
  std::uint64_t epoch = 0;
  std::uint64_t client = 0;
  std::string name;  ///< of the namespace, as people see it
  std::uint32_t generation = 0;
  std::vector<ArenaInfo> arenas;
  std::uint32_t cores = 0;  ///< the daemon may run on so many
};

struct AdminReply {
  std::string json;
};

struct FailureReply {
  Errc code = Errc::internal;
  std::string message;
};

using ReplyBody = std::variant<AttachedReply, AdminReply, FailureReply>;

struct ReplyMessage {
  std::uint64_t id = 0;
  ReplyBody body;
  bool last = true;  ///< false: more replies to the same request follow
};

/// Whole frames, prefix included. A body of more than kFrameMax is the caller's to avoid: the other
/// side will refuse it.
[[nodiscard]] std::vector<std::byte> encode_request(std::uint64_t id, const RequestBody& body);
[[nodiscard]] std::vector<std::byte> encode_reply(std::uint64_t id,
                                                  const ReplyBody& body,
                                                  bool last = true);

/// The length of what follows the prefix. Error: corrupt, when it is 0 or more than kFrameMax.
[[nodiscard]] Result<std::size_t> frame_length(std::span<const std::byte, kFramePrefix> prefix);
/// `body` is what follows the prefix.
[[nodiscard]] Result<RequestMessage> decode_request(std::span<const std::byte> body);
[[nodiscard]] Result<ReplyMessage> decode_reply(std::span<const std::byte> body);

}  // namespace statecached::wire

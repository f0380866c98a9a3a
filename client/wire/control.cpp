#include "client/wire/control.hpp"

#include "protocol_generated.h"

#include <cstring>

namespace statecached::wire {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

Offset<flatbuffers::Vector<std::uint8_t>> put(FlatBufferBuilder& out, const Digest& digest) {
  return out.CreateVector(reinterpret_cast<const std::uint8_t*>(digest.bytes.data()),
                          digest.bytes.size());
}

/// An absent vector is the zero digest, as an absent scalar is 0.
Result<Digest> get_digest(const flatbuffers::Vector<std::uint8_t>* from, const char* what) {
  Digest out;
  if (from == nullptr) return out;
  if (from->size() != out.bytes.size()) {
    return fail(Errc::invalid_argument, std::string(what) + ": a digest has 32 bytes");
  }
  std::memcpy(out.bytes.data(), from->data(), out.bytes.size());
  return out;
}

std::string get_string(const flatbuffers::String* from) {
  return from == nullptr ? std::string() : std::string(from->data(), from->size());
}

template <class T>
std::vector<T> get_vector(const flatbuffers::Vector<T>* from) {
  return from == nullptr ? std::vector<T>() : std::vector<T>(from->begin(), from->end());
}

// ---- encode ------------------------------------------------------------------------------------

Offset<fb::NamespaceSpec> put_spec(FlatBufferBuilder& out, const NamespaceSpec& spec) {
  std::vector<Offset<fb::GroupSpec>> groups;
  groups.reserve(spec.groups.size());
  for (const Group& g : spec.groups) {
    groups.push_back(fb::CreateGroupSpec(out,
                                         out.CreateString(g.name),
                                         static_cast<std::uint8_t>(g.need),
                                         g.block_tokens,
                                         g.window,
                                         g.lookahead,
                                         g.max_bytes,
                                         g.shards,
                                         g.contiguous,
                                         g.token_major));
  }
  const auto name = out.CreateString(spec.name);
  const auto model = put(out, spec.model);
  const auto layout = put(out, spec.layout);
  const auto list = out.CreateVector(groups);
  const auto cost = fb::CreateCostSpec(
      out, spec.cost.c0, spec.cost.c1, spec.cost.c2, spec.cost.window_c2, spec.cost.window);
  return fb::CreateNamespaceSpec(out,
                                 name,
                                 model,
                                 layout,
                                 list,
                                 spec.resume_grid,
                                 spec.checkpoint_grid,
                                 spec.checkpoints_per_chunk,
                                 cost,
                                 static_cast<std::uint8_t>(spec.addressing),
                                 spec.tokens_per_key,
                                 spec.key_bytes);
}

Offset<void> put_body(FlatBufferBuilder& out, const AttachMessage& m) {
  const auto space = put_spec(out, m.space);
  const auto engine = put(out, m.engine);
  const auto shard = out.CreateVector(m.shard);
  const auto program = out.CreateString(m.program);
  std::vector<fb::Used> used;
  used.reserve(m.in_use.size());
  for (const ExtentRecord& extent : m.in_use)
    used.emplace_back(extent.offset, extent.bytes);
  const auto in_use = out.CreateVectorOfStructs(used);
  return fb::CreateAttach(out,
                          m.version_min,
                          m.version_max,
                          space,
                          engine,
                          m.rank,
                          m.world,
                          shard,
                          program,
                          m.session,
                          m.again,
                          in_use)
      .Union();
}

Offset<void> put_body(FlatBufferBuilder& out, const AdminMessage& m) {
  const auto command = out.CreateString(m.command);
  const auto arguments = out.CreateVectorOfStrings(m.arguments);
  const auto tokens = out.CreateVector(m.tokens);
  return fb::CreateAdmin(out, command, arguments, tokens).Union();
}

Offset<void> put_body(FlatBufferBuilder& out, const AttachedReply& m) {
  std::vector<Offset<fb::Arena>> arenas;
  arenas.reserve(m.arenas.size());
  for (const ArenaInfo& a : m.arenas) {
    arenas.push_back(
        fb::CreateArena(out, static_cast<std::uint8_t>(a.tier), a.bytes, a.writable, a.staging));
  }
  const auto name = out.CreateString(m.name);
  const auto list = out.CreateVector(arenas);
  return fb::CreateAttached(out, m.version, m.epoch, m.client, name, m.generation, list, m.cores)
      .Union();
}

Offset<void> put_body(FlatBufferBuilder& out, const AdminReply& m) {
  return fb::CreateAdminReply(out, out.CreateString(m.json)).Union();
}

Offset<void> put_body(FlatBufferBuilder& out, const FailureReply& m) {
  return fb::CreateFailure(out, static_cast<std::uint16_t>(m.code), out.CreateString(m.message))
      .Union();
}

constexpr fb::RequestBody kind_of(const AttachMessage&) {
  return fb::RequestBody::Attach;
}

constexpr fb::RequestBody kind_of(const AdminMessage&) {
  return fb::RequestBody::Admin;
}

constexpr fb::ReplyBody kind_of(const AttachedReply&) {
  return fb::ReplyBody::Attached;
}

constexpr fb::ReplyBody kind_of(const AdminReply&) {
  return fb::ReplyBody::AdminReply;
}

constexpr fb::ReplyBody kind_of(const FailureReply&) {
  return fb::ReplyBody::Failure;
}

std::vector<std::byte> bytes_of(const FlatBufferBuilder& out) {
  const auto* data = reinterpret_cast<const std::byte*>(out.GetBufferPointer());
  return {data, data + out.GetSize()};
}

// ---- decode ------------------------------------------------------------------------------------

Result<NamespaceSpec> get_spec(const fb::NamespaceSpec* from) {
  if (from == nullptr) return fail(Errc::invalid_argument, "attach: no namespace");
  NamespaceSpec out;
  out.name = get_string(from->name());
  SC_ASSIGN(out.model, get_digest(from->model(), "model"));
  SC_ASSIGN(out.layout, get_digest(from->layout(), "layout"));
  const auto* groups = from->groups();
  if (groups != nullptr && groups->size() > kGroupsMax) {
    return fail(Errc::invalid_argument, "attach: a namespace has at most 8 groups");
  }
  for (flatbuffers::uoffset_t i = 0; groups != nullptr && i < groups->size(); ++i) {
    const fb::GroupSpec* g = groups->Get(i);
    if (g->need() > static_cast<std::uint8_t>(Need::end)) {
      return fail(Errc::invalid_argument, "attach: unknown need of a group");
    }
    out.groups.push_back(Group{.name = get_string(g->name()),
                               .need = static_cast<Need>(g->need()),
                               .block_tokens = g->block_tokens(),
                               .window = g->window(),
                               .lookahead = g->lookahead(),
                               .max_bytes = g->max_bytes(),
                               .shards = g->shards(),
                               .contiguous = g->contiguous(),
                               .token_major = g->token_major()});
  }
  out.resume_grid = from->resume_grid();
  out.checkpoint_grid = from->checkpoint_grid();
  out.checkpoints_per_chunk = from->checkpoints_per_chunk();
  if (const auto* cost = from->cost(); cost != nullptr) {
    out.cost = Cost{.c0 = cost->c0(),
                    .c1 = cost->c1(),
                    .c2 = cost->c2(),
                    .window_c2 = cost->window_c2(),
                    .window = cost->window()};
  }
  if (from->addressing() > static_cast<std::uint8_t>(Addressing::keys)) {
    return fail(Errc::invalid_argument, "attach: unknown addressing");
  }
  out.addressing = static_cast<Addressing>(from->addressing());
  out.tokens_per_key = from->tokens_per_key();
  out.key_bytes = from->key_bytes();
  return out;
}

Result<AttachMessage> get_attach(const fb::Attach& from) {
  AttachMessage out;
  out.version_min = from.version_min();
  out.version_max = from.version_max();
  SC_ASSIGN(out.space, get_spec(from.space()));
  SC_ASSIGN(out.engine, get_digest(from.engine(), "engine"));
  out.rank = from.rank();
  out.world = from.world();
  out.shard = get_vector(from.shard());
  if (out.shard.size() > kGroupsMax)
    return fail(Errc::invalid_argument, "attach: more shards than groups");
  out.program = get_string(from.program());
  out.session = from.session();
  out.again = from.again();
  if (const auto* in_use = from.in_use(); in_use != nullptr) {
    if (in_use->size() > kInUseMax)
      return fail(Errc::invalid_argument, "attach: more in use than there can be");
    for (const fb::Used* used : *in_use) {
      const std::uint64_t offset = used->offset();
      const std::uint64_t bytes = used->bytes();
      if (bytes > UINT64_MAX - offset)
        return fail(Errc::invalid_argument, "attach: an extent past the end");
      out.in_use.push_back({offset, bytes});
    }
  }
  return out;
}

AdminMessage get_admin(const fb::Admin& from) {
  AdminMessage out;
  out.command = get_string(from.command());
  const auto* arguments = from.arguments();
  for (flatbuffers::uoffset_t i = 0; arguments != nullptr && i < arguments->size(); ++i) {
    out.arguments.push_back(get_string(arguments->Get(i)));
  }
  out.tokens = get_vector(from.tokens());
  return out;
}

Result<AttachedReply> get_attached(const fb::Attached& from) {
  AttachedReply out;
  out.version = from.version();
  out.epoch = from.epoch();
  out.client = from.client();
  out.name = get_string(from.name());
  out.generation = from.generation();
  out.cores = from.cores();
  const auto* arenas = from.arenas();
  if (arenas != nullptr && arenas->size() > kArenasMax) {
    return fail(Errc::invalid_argument, "attached: too many arenas");
  }
  for (flatbuffers::uoffset_t i = 0; arenas != nullptr && i < arenas->size(); ++i) {
    const fb::Arena* a = arenas->Get(i);
    if (a->tier() > static_cast<std::uint8_t>(TierName::nvme)) {
      return fail(Errc::invalid_argument, "attached: unknown tier of an arena");
    }
    out.arenas.push_back(
        ArenaInfo{static_cast<TierName>(a->tier()), a->bytes(), a->writable(), a->staging()});
  }
  return out;
}

/// The frame as FlatBuffers wants it, prefix in front and aligned; empty when `body` cannot be one.
std::vector<std::byte> whole_frame(std::span<const std::byte> body) {
  if (body.empty() || body.size() > kFrameMax) return {};
  std::vector<std::byte> out(kFramePrefix + body.size());
  const auto length = static_cast<std::uint32_t>(body.size());
  std::memcpy(out.data(), &length, sizeof length);
  std::memcpy(out.data() + kFramePrefix, body.data(), body.size());
  return out;
}

/// The verified root table, or null.
template <class Root>
const Root* root_of(const std::vector<std::byte>& frame) {
  if (frame.empty()) return nullptr;
  const auto* data = reinterpret_cast<const std::uint8_t*>(frame.data());
  flatbuffers::Verifier verifier(data, frame.size());
  if (!verifier.VerifySizePrefixedBuffer<Root>(nullptr)) return nullptr;
  return flatbuffers::GetSizePrefixedRoot<Root>(data);
}

}  // namespace

std::vector<std::byte> encode_request(std::uint64_t id, const RequestBody& body) {
  FlatBufferBuilder out;
  const auto kind = std::visit([](const auto& m) { return kind_of(m); }, body);
  const auto inner = std::visit([&](const auto& m) { return put_body(out, m); }, body);
  out.FinishSizePrefixed(fb::CreateRequest(out, id, kind, inner));
  return bytes_of(out);
}

std::vector<std::byte> encode_reply(std::uint64_t id, const ReplyBody& body, bool last) {
  FlatBufferBuilder out;
  const auto kind = std::visit([](const auto& m) { return kind_of(m); }, body);
  const auto inner = std::visit([&](const auto& m) { return put_body(out, m); }, body);
  out.FinishSizePrefixed(fb::CreateReply(out, id, kind, inner, last));
  return bytes_of(out);
}

Result<std::size_t> frame_length(std::span<const std::byte, kFramePrefix> prefix) {
  std::uint32_t length = 0;
  std::memcpy(&length, prefix.data(), sizeof length);
  if (length == 0 || length > kFrameMax) {
    return fail(Errc::corrupt, "control: a frame of " + std::to_string(length) + " bytes");
  }
  return std::size_t{length};
}

Result<RequestMessage> decode_request(std::span<const std::byte> body) {
  const std::vector<std::byte> frame = whole_frame(body);
  const auto* root = root_of<fb::Request>(frame);
  if (root == nullptr) return fail(Errc::corrupt, "control: not a request");
  RequestMessage out;
  out.id = root->id();
  if (const auto* attach = root->body_as_Attach(); attach != nullptr) {
    SC_ASSIGN(out.body, get_attach(*attach));
  } else if (const auto* admin = root->body_as_Admin(); admin != nullptr) {
    out.body = get_admin(*admin);
  } else {
    return fail(Errc::unsupported, "control: a request of a kind that this version does not know");
  }
  return out;
}

Result<ReplyMessage> decode_reply(std::span<const std::byte> body) {
  const std::vector<std::byte> frame = whole_frame(body);
  const auto* root = root_of<fb::Reply>(frame);
  if (root == nullptr) return fail(Errc::corrupt, "control: not a reply");
  ReplyMessage out;
  out.id = root->id();
  out.last = root->last();
  if (const auto* attached = root->body_as_Attached(); attached != nullptr) {
    SC_ASSIGN(out.body, get_attached(*attached));
  } else if (const auto* admin = root->body_as_AdminReply(); admin != nullptr) {
    out.body = AdminReply{get_string(admin->json())};
  } else if (const auto* failure = root->body_as_Failure(); failure != nullptr) {
    const auto code = failure->code();
    const bool known = code != 0 && code <= static_cast<std::uint16_t>(Errc::internal);
    out.body = FailureReply{known ? static_cast<Errc>(code) : Errc::internal,
                            get_string(failure->message())};
  } else {
    return fail(Errc::unsupported, "control: a reply of a kind that this version does not know");
  }
  return out;
}

}  // namespace statecached::wire

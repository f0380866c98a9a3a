#include "client/wire/channel.hpp"
#include "client/wire/control.hpp"
#include "config/load.hpp"
#include "tests/fuzz/driver.hpp"
#include "tests/fuzz/targets.hpp"
#include "tiers/catalog/row_codec.hpp"

/// libcrypto keeps an error state for each thread that ever used it; the conductor's ends with its
/// target.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libcrypto";
}

namespace statecached::fuzz {
namespace {

Bytes joined(std::initializer_list<std::span<const std::byte>> parts) {
  Bytes out;
  for (const auto part : parts)
    out.insert(out.end(), part.begin(), part.end());
  return out;
}

template <class T>
std::span<const std::byte> raw(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

Bytes without_prefix(const std::vector<std::byte>& frame) {
  return {frame.begin() + wire::kFramePrefix, frame.end()};
}

NamespaceSpec spec() {
  NamespaceSpec out;
  out.name = "model";
  Group kv;
  kv.name = "kv";
  kv.max_bytes = 4096;
  Group state;
  state.name = "state";
  state.need = Need::end;
  state.max_bytes = 20'000;
  out.groups = {kv, state};
  return out;
}

TEST(Fuzz, Control) {
  wire::AttachMessage attach;
  attach.space = spec();
  attach.shard = {0, 0};
  attach.program = "engine";
  const wire::AdminMessage admin{"ls", {"limit=10", "tier=host"}, {1, 2, 3}};
  wire::AttachedReply attached;
  attached.arenas = {{wire::TierName::host, 1U << 20U, true}};
  drive("control",
        control,
        {without_prefix(wire::encode_request(1, attach)),
         without_prefix(wire::encode_request(2, admin)),
         without_prefix(wire::encode_reply(1, attached)),
         without_prefix(wire::encode_reply(2, wire::AdminReply{"{}"})),
         without_prefix(wire::encode_reply(3, wire::FailureReply{Errc::busy, "no"})),
         wire::encode_request(4, admin)});
}

TEST(Fuzz, Records) {
  wire::Request begin;
  begin.ticket = {1, 2};
  wire::BeginArgs args;
  args.tokens = 8;
  args.marks = 1;
  const std::array<Token, 8> tokens{1, 2, 3, 4, 5, 6, 7, 8};
  Mark mark;
  mark.at = 2;
  mark.length = 3;
  wire::Request append;
  append.a = 8;
  append.c = 1;
  wire::Request list;
  list.a = 2;
  const std::array<wire::WantRecord, 2> wants{wire::WantRecord{0, 0, 0, 64, 0, 0},
                                              wire::WantRecord{1, 0, 64, 64, 0, 100}};
  const std::array<wire::FilledRecord, 2> filled{wire::FilledRecord{1, 2, 0},
                                                 wire::FilledRecord{3, 0, 0}};
  const std::array<std::uint64_t, 2> slots{1, ~0ULL};
  drive("records",
        records,
        {joined({raw(begin), raw(args), raw(tokens), raw(mark)}),
         joined({raw(append), raw(tokens), raw(mark)}),
         joined({raw(list), raw(wants)}),
         joined({raw(list), raw(filled)}),
         joined({raw(list), raw(slots)})});
}

TEST(Fuzz, Channel) {
  Bytes counts;
  for (std::uint16_t at = 0; at < 1024; at = static_cast<std::uint16_t>(at + 8)) {
    const std::uint8_t length = 8;
    const std::uint64_t value = at;
    const Bytes one = joined({raw(at), raw(length), raw(value)});
    counts.insert(counts.end(), one.begin(), one.end());
  }
  const auto poke = [](std::uint8_t choice, std::uint16_t at, std::uint64_t value) {
    const std::uint8_t length = 8;
    return joined({raw(choice), raw(at), raw(length), raw(value)});
  };
  drive("channel",
        channel,
        {counts,
         poke(3, offsetof(wire::ChannelHeader, request_tail), 9),
         poke(1, offsetof(wire::ChannelHeader, request_area_head), 1U << 20U),
         poke(2, offsetof(wire::ChannelHeader, completion_head), ~0ULL),
         poke(2, offsetof(wire::ChannelHeader, reply_area_tail), 5000),
         poke(7, offsetof(wire::ChannelHeader, completion_tail), 3)});
}

TEST(Fuzz, Conductor) {
  std::vector<Bytes> seeds;
  for (unsigned seed = 0; seed < 12; ++seed) {
    Bytes bytes;
    std::mt19937 random(seed);
    for (unsigned i = 0; i < 3000; ++i)
      bytes.push_back(static_cast<std::byte>(random()));
    seeds.push_back(std::move(bytes));
  }
  drive("conductor", conductor, seeds);
}

TEST(Fuzz, Catalog) {
  const auto seed = [](const std::string& key, const std::string& value) {
    // Without its checksum, which the target makes anew.
    const std::size_t sum = seal_value(key, "").size();
    const auto length = static_cast<std::uint8_t>(key.size());
    return joined({raw(length),
                   std::as_bytes(std::span<const char>(key)),
                   std::as_bytes(std::span<const char>(value).first(value.size() - sum))});
  };
  NamespaceRow space;
  space.spec = spec();
  DomainRow domain;
  ObjectRow object;
  object.number = 9;
  object.end = 64;
  object.payload_bytes = 4096;
  object.symbols.assign(64, 5);
  object.checksums.resize(1);
  object.extents.resize(1);
  object.extents[0].extent = {0, kPage};
  std::vector<Bytes> seeds{bytes_of("N12345678901234567890"), bytes_of("O")};
  if (const auto value = encode_row(space)) seeds.push_back(seed(namespace_key(0), *value));
  if (const auto value = encode_row(domain)) seeds.push_back(seed(domain_key(0, 0), *value));
  if (const auto value = encode_row(object)) seeds.push_back(seed(object_key(0, 9), *value));
  if (const auto value = encode_meta({kFormatVersion, {"drive"}}))
    seeds.push_back(seed(meta_key(), *value));
  EXPECT_GE(seeds.size(), 5U);
  drive("catalog", catalog, seeds);
}

TEST(Fuzz, Toml) {
  drive(
      "toml",
      toml,
      {bytes_of(config::to_toml(config::Settings{})),
       bytes_of("[host]\ncapacity = \"1 GiB\"\n[tenants.a]\nusers = [\"root\"]\nquota = \"10%\"\n"),
       bytes_of("host.capacity = 5\nnvme = { paths = [\"/x\", '/y'], capacity = \"2TiB\" }\n")});
}

TEST(Fuzz, Trace) {
  drive("trace",
        trace,
        {bytes_of(
             "{\"session_id\": 0, \"turn_id\": 0, \"ts\": 0.5, \"num_input_tokens\": 3, "
             "\"num_output_tokens\": 2, \"input_tokens\": [1, 2, 3], \"output_tokens\": [4, 5]}\n"),
         bytes_of("{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, "
                  "\"hash_ids\": [46, 47, 48, 49]}\n{\"timestamp\": 30535, \"input_length\": 600, "
                  "\"output_length\": 2, \"hash_ids\": [46, 2353]}\n")});
}

}  // namespace
}  // namespace statecached::fuzz

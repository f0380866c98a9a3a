#include "client/engine/sequence.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

namespace statecached::engine {
namespace {

using statecache::Extent;

/// Walks through memory that lies in several places.
class Cursor {
 public:
  explicit Cursor(std::span<const Extent> where) : where_(where) {}

  void put(const float* from, std::size_t floats) {
    walk(floats * sizeof(float), [from](std::byte* here, std::size_t at, std::size_t bytes) {
      std::memcpy(here, reinterpret_cast<const std::byte*>(from) + at, bytes);
    });
  }

  void get(float* to, std::size_t floats) {
    walk(floats * sizeof(float), [to](std::byte* here, std::size_t at, std::size_t bytes) {
      std::memcpy(reinterpret_cast<std::byte*>(to) + at, here, bytes);
    });
  }

 private:
  template <class F>
  void walk(std::size_t bytes, F&& f) {
    for (std::size_t done = 0; done < bytes;) {
      if (at_ == where_[extent_].bytes) {
        ++extent_;
        at_ = 0;
        continue;
      }
      const std::size_t part = std::min(bytes - done, where_[extent_].bytes - at_);
      f(where_[extent_].data + at_, done, part);
      at_ += part;
      done += part;
    }
  }

  std::span<const Extent> where_;
  std::size_t extent_ = 0, at_ = 0;
};

std::uint64_t size_of(std::span<const Extent> where) {
  std::uint64_t total = 0;
  for (const Extent& extent : where)
    total += extent.bytes;
  return total;
}

/// 256 bits of a text, enough to tell configurations apart. An engine with real weights takes their
/// SHA-256.
statecache::Digest digest_of(std::string_view text) {
  statecache::Digest out{};
  for (std::size_t lane = 0; lane < 4; ++lane) {
    std::uint64_t hash = 1469598103934665603ULL + lane;
    for (const char c : text)
      hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    std::memcpy(out.data() + lane * sizeof hash, &hash, sizeof hash);
  }
  return out;
}

/// Of one of `shards`: each recurrent layer's heads, and its last three inputs of the convolution.
std::uint64_t state_bytes(const ModelConfig& c, std::uint32_t shards) {
  const std::uint64_t heads = c.state_heads / shards;
  return c.count(Mixer::recurrent) * sizeof(float) *
         (heads * c.states * c.state_head +
          3 * (heads * c.state_head + std::uint64_t{2} * c.states));
}

}  // namespace

Groups groups_of(const ModelConfig& config) {
  Groups out;
  if (config.count(Mixer::window) != 0) {
    out.window = 1;
    out.recurrent = 2;
  }
  return out;
}

statecache::NamespaceSpec namespace_of(const ModelConfig& c,
                                       std::uint32_t shards,
                                       std::uint32_t block_tokens) {
  statecache::NamespaceSpec out;
  out.name = c.name;
  std::string text = c.layers;
  for (const std::uint64_t value : {std::uint64_t{c.width},
                                    std::uint64_t{c.hidden},
                                    std::uint64_t{c.query_heads},
                                    std::uint64_t{c.kv_heads},
                                    std::uint64_t{c.head},
                                    std::uint64_t{c.window},
                                    std::uint64_t{c.state_heads},
                                    std::uint64_t{c.state_head},
                                    std::uint64_t{c.states},
                                    c.seed}) {
    text += ',';
    text += std::to_string(value);
  }
  out.model = digest_of(text);
  out.layout = digest_of("float32, token major, layout 1, shards " +
                         std::string(1, static_cast<char>('0' + shards)));
  const std::uint64_t kv =
      std::uint64_t{c.kv_heads} / shards * c.head * 2 * sizeof(float) * block_tokens;
  statecache::Group group;
  group.block_tokens = block_tokens;
  group.shards = static_cast<std::uint16_t>(shards);
  group.name = "attention";
  group.max_bytes = kv * c.count(Mixer::attention);
  out.groups.push_back(group);
  if (c.count(Mixer::window) != 0) {
    group.name = "window";
    group.need = statecache::Need::last;
    group.window = c.window;
    group.max_bytes = kv * c.count(Mixer::window);
    out.groups.push_back(group);
  }
  group.name = "recurrent";
  group.need = statecache::Need::end;
  group.window = 0;
  group.max_bytes = state_bytes(c, shards);
  out.groups.push_back(group);
  out.cost.c1 = c.flops_per_token();
  out.cost.c2 = c.flops_per_square();
  out.cost.window_c2 = c.flops_per_window_square();
  out.cost.window = c.window;
  return out;
}

std::uint64_t payload_bytes(const Model& model, std::uint16_t group, std::uint32_t tokens) {
  const ModelConfig& c = model.config();
  const Groups groups = groups_of(c);
  if (group == groups.recurrent) return state_bytes(c, model.slice().shards);
  const std::size_t layers = c.count(group == groups.attention ? Mixer::attention : Mixer::window);
  return std::uint64_t{tokens} * layers * 2 * model.kv_width() * sizeof(float);
}

bool store(const Model& model,
           const Sequence& sequence,
           std::uint16_t group,
           std::uint32_t first,
           std::uint32_t end,
           std::span<const Extent> to) {
  if (size_of(to) < payload_bytes(model, group, end - first)) return false;
  Cursor cursor(to);
  const Groups groups = groups_of(model.config());
  if (group == groups.recurrent) {
    if (sequence.length != end) return false;  // it has moved on
    for (const Sequence::Recurrent& state : sequence.recurrent) {
      cursor.put(state.recent.data(), state.recent.size());
      cursor.put(state.h.data(), state.h.size());
    }
    return true;
  }
  const std::size_t width = model.kv_width();
  const auto& layers = group == groups.attention ? sequence.attention : sequence.window;
  for (std::size_t token = first; token < end; ++token) {
    for (const Sequence::Kv& kv : layers) {
      cursor.put(kv.k.data() + token * width, width);
      cursor.put(kv.v.data() + token * width, width);
    }
  }
  return true;
}

bool load(const Model& model,
          Sequence& sequence,
          std::uint16_t group,
          std::uint32_t first,
          std::uint32_t end,
          std::span<const Extent> from) {
  if (size_of(from) < payload_bytes(model, group, end - first)) return false;
  Cursor cursor(from);
  const Groups groups = groups_of(model.config());
  if (group == groups.recurrent) {
    for (Sequence::Recurrent& state : sequence.recurrent) {
      cursor.get(state.recent.data(), state.recent.size());
      cursor.get(state.h.data(), state.h.size());
    }
    return true;
  }
  const std::size_t width = model.kv_width();
  auto& layers = group == groups.attention ? sequence.attention : sequence.window;
  for (Sequence::Kv& kv : layers) {
    kv.k.resize(std::max(kv.k.size(), end * width));
    kv.v.resize(std::max(kv.v.size(), end * width));
  }
  for (std::size_t token = first; token < end; ++token) {
    for (Sequence::Kv& kv : layers) {
      cursor.get(kv.k.data() + token * width, width);
      cursor.get(kv.v.data() + token * width, width);
    }
  }
  return true;
}

}  // namespace statecached::engine

#pragma once
// The layouts of real engines, in small, as the planner gets them; and copying by the definition,
// one element at a time, for comparison.

#include "base/prng.hpp"
#include "kernels/layout.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace statecached::test {

struct Engine {
  std::string name;
  std::vector<TensorDesc> tensors;
  std::vector<std::uint64_t> region_bytes;
  std::uint64_t blocks = 0;
  std::uint32_t page_tokens = 0;  ///< 0: checkpoints
};

struct Sizes {
  std::uint64_t layers, blocks, tokens, heads, content;
  std::uint32_t element;
};

/// Rows of bytes from the innermost axis out, `order` outermost first; `pad` may widen some
/// strides.
class TensorMaker {
 public:
  TensorMaker(const Sizes& sizes, Prng& prng, bool pad) : sizes_(sizes), prng_(prng), pad_(pad) {}

  /// Axes by letter: L layer, B block, K kv, N token, H head, C content.
  TensorDesc make(const std::string& order, std::uint64_t& bytes) {
    TensorDesc tensor;
    tensor.element_bytes = sizes_.element;
    std::uint64_t stride = sizes_.element;
    for (auto letter = order.rbegin(); letter != order.rend(); ++letter) {
      const Dim dim{.role = role(*letter),
                    .extent = extent(*letter),
                    .stride_bytes = static_cast<std::int64_t>(stride)};
      stride *= dim.extent;
      if (pad_ && prng_.chance(0.2)) stride += sizes_.element * prng_.below(3);
      tensor.dims.push_back(dim);
    }
    for (std::size_t i = tensor.dims.size(); i > 1; --i) {  // the planner must not need an order
      std::swap(tensor.dims[i - 1], tensor.dims[prng_.below(i)]);
    }
    bytes = stride;
    return tensor;
  }

 private:
  static Axis role(char letter) {
    constexpr std::array kRoles{
        Axis::layer, Axis::block, Axis::kv, Axis::token, Axis::head, Axis::content};
    return kRoles.at(std::string("LBKNHC").find(letter));
  }

  std::uint64_t extent(char letter) const {
    switch (letter) {
      case 'L':
        return sizes_.layers;
      case 'B':
        return sizes_.blocks;
      case 'K':
        return 2;
      case 'N':
        return sizes_.tokens;
      case 'H':
        return sizes_.heads;
      default:
        return sizes_.content;
    }
  }

  Sizes sizes_;
  Prng& prng_;
  bool pad_;
};

inline void add(Engine& engine, TensorDesc tensor, std::uint64_t bytes, Prng& prng, bool pad) {
  tensor.region = static_cast<std::uint32_t>(engine.region_bytes.size());
  tensor.offset = pad ? prng.below(5) * tensor.element_bytes : 0;
  engine.region_bytes.push_back(bytes + tensor.offset + (pad ? prng.below(64) : 0));
  engine.tensors.push_back(std::move(tensor));
}

/// One tensor for everything, or one for each layer.
inline Engine engine_of(const std::string& name,
                        const std::string& order,
                        const Sizes& sizes,
                        Prng& prng,
                        bool pad,
                        std::uint64_t tensors = 1) {
  Engine engine{.name = name,
                .tensors = {},
                .region_bytes = {},
                .blocks = sizes.blocks,
                .page_tokens = order.find('N') == std::string::npos
                                   ? 0
                                   : static_cast<std::uint32_t>(sizes.tokens)};
  for (std::uint64_t i = 0; i < tensors; ++i) {
    std::uint64_t bytes = 0;
    TensorDesc tensor = TensorMaker(sizes, prng, pad).make(order, bytes);
    add(engine, std::move(tensor), bytes, prng, pad);
  }
  return engine;
}

/// conv and recurrent state of each layer in one raw page of a block, padding at its end.
inline Engine mamba_pages(const Sizes& sizes, Prng& prng) {
  Engine engine{.name = "vllm mamba pages",
                .tensors = {},
                .region_bytes = {},
                .blocks = sizes.blocks,
                .page_tokens = 0};
  const std::uint64_t conv = 3 * sizes.content * 2;
  const std::uint64_t state = sizes.heads * sizes.content * 4;
  const std::uint64_t page = conv + state + prng.below(32);
  for (std::uint64_t layer = 0; layer < sizes.layers; ++layer) {
    const auto region = static_cast<std::uint32_t>(layer);
    const Dim block{.role = Axis::block,
                    .extent = sizes.blocks,
                    .stride_bytes = static_cast<std::int64_t>(page)};
    engine.tensors.push_back(
        {.region = region,
         .offset = 0,
         .element_bytes = 2,
         .dims = {block, {.role = Axis::content, .extent = 3 * sizes.content, .stride_bytes = 2}}});
    engine.tensors.push_back(
        {.region = region,
         .offset = conv,
         .element_bytes = 4,
         .dims = {block,
                  {.role = Axis::head,
                   .extent = sizes.heads,
                   .stride_bytes = static_cast<std::int64_t>(sizes.content) * 4},
                  {.role = Axis::content, .extent = sizes.content, .stride_bytes = 4}}});
    engine.region_bytes.push_back(page * sizes.blocks);
  }
  return engine;
}

inline std::vector<Engine> all_engines(const Sizes& sizes, Prng& prng, bool pad) {
  std::vector<Engine> engines;
  for (const char* order : {"LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC"}) {
    engines.push_back(engine_of(std::string("vllm ") + order, order, sizes, prng, pad));
  }
  engines.push_back(engine_of("vllm (2,NB,B,H,D)", "KBNHC", sizes, prng, pad, sizes.layers));
  engines.push_back(engine_of("vllm (2,NB,H,B,D)", "KBHNC", sizes, prng, pad, sizes.layers));
  engines.push_back(engine_of("vllm (NB,2,B,H,D)", "BKNHC", sizes, prng, pad, sizes.layers));
  engines.push_back(engine_of("vllm mla", "BNC", sizes, prng, pad, sizes.layers));
  engines.push_back(engine_of("sglang k and v", "BNHC", sizes, prng, pad, 2 * sizes.layers));
  engines.push_back(engine_of("sglang page first", "BNLHC", sizes, prng, pad, 2));
  engines.push_back(engine_of("trt-llm", "BLKHNC", sizes, prng, pad));
  engines.push_back(engine_of("llama.cpp transposed v", "HCBN", sizes, prng, pad, sizes.layers));
  engines.push_back(engine_of("sglang mamba", "LBHC", sizes, prng, pad, 2));
  engines.push_back(mamba_pages(sizes, prng));
  return engines;
}

/// Calls visit(page address, object offset, bytes) for each element, by the definition.
template <class Visit>
void each_element(const Engine& engine,
                  const GroupLayout& layout,
                  const std::vector<PageSlice>& slices,
                  const std::vector<std::uint64_t>& regions,
                  Visit&& visit) {
  for (std::size_t t = 0; t < engine.tensors.size(); ++t) {
    const TensorDesc& tensor = engine.tensors[t];
    for (const PageSlice& slice : slices) {
      std::array<std::uint64_t, kAxes> extent{};
      std::array<std::uint64_t, kAxes> stride{};
      extent.fill(1);
      for (const Dim& dim : tensor.dims) {
        extent.at(static_cast<std::size_t>(dim.role)) = dim.extent;
        stride.at(static_cast<std::size_t>(dim.role)) =
            static_cast<std::uint64_t>(dim.stride_bytes);
      }
      const auto token = static_cast<std::size_t>(Axis::token);
      const auto block = static_cast<std::size_t>(Axis::block);
      const bool has_tokens = engine.page_tokens > 0;
      extent.at(token) = has_tokens ? slice.tokens : 1;
      extent.at(block) = 1;
      std::uint64_t total = 1;
      for (const std::uint64_t one : extent)
        total *= one;
      for (std::uint64_t index = 0; index < total; ++index) {
        std::array<std::uint64_t, kAxes> at{};
        std::uint64_t rest = index;
        for (std::size_t axis = 0; axis < kAxes; ++axis) {
          at.at(axis) = rest % extent.at(axis);
          rest /= extent.at(axis);
        }
        std::array<std::uint64_t, kAxes> in_page = at;
        in_page.at(block) = slice.block;
        in_page.at(token) += has_tokens ? slice.token : 0;
        std::uint64_t page = regions.at(tensor.region) + tensor.offset;
        for (std::size_t axis = 0; axis < kAxes; ++axis)
          page += in_page.at(axis) * stride.at(axis);
        at.at(token) += has_tokens ? slice.object_token : 0;
        visit(page, layout.object_offset(t, at), tensor.element_bytes);
      }
    }
  }
}

/// Tokens [0, valid) of an object of `object_tokens`, which starts somewhere in a page when pages
/// are larger, over distinct pages in no order.
inline std::vector<PageSlice> random_slices(const Engine& engine,
                                            std::uint32_t object_tokens,
                                            std::uint32_t valid,
                                            Prng& prng) {
  std::vector<std::uint64_t> blocks(engine.blocks);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    blocks[i] = i;
  if (prng.chance(0.7)) {
    for (std::size_t i = blocks.size(); i > 1; --i)
      std::swap(blocks[i - 1], blocks[prng.below(i)]);
  }
  if (engine.page_tokens == 0) {
    return {{.block = blocks.front(), .token = 0, .tokens = 0, .object_token = 0}};
  }
  std::vector<PageSlice> slices;
  std::uint32_t start = 0;
  if (object_tokens < engine.page_tokens) {
    start =
        static_cast<std::uint32_t>(prng.below(engine.page_tokens / object_tokens)) * object_tokens;
  }
  for (std::uint32_t done = 0; done < valid;) {
    const std::uint32_t tokens = std::min(valid - done, engine.page_tokens - start);
    slices.push_back({.block = blocks.at(slices.size()),
                      .token = start,
                      .tokens = tokens,
                      .object_token = done});
    done += tokens;
    start = 0;
  }
  return slices;
}

}  // namespace statecached::test

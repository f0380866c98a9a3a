#pragma once
// A small hybrid language model on the CPU: attention (grouped queries, rotary positions),
// attention over a sliding window, and Mamba-2 layers, each followed by a gated MLP. Tokens are
// bytes. The weights are a function of a seed, so it writes nonsense; but every logit depends on
// every byte before it, as in a trained one, which is what a cache of its state has to get right.
//
// Bits: the logits of a position are a function of the tokens up to it alone: see math.hpp.
// Threads: a Model never changes after construction; a Sequence and a Runner belong to one thread
// at a time.

#include "client/engine/math.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace statecached::engine {

using Token = std::uint32_t;
inline constexpr std::uint32_t kVocabulary = 256;

enum class Mixer : char { recurrent = 'M', attention = 'A', window = 'W' };

struct ModelConfig {
  std::string name;
  std::string layers;  ///< one Mixer a layer: "MMAMWMMAMM"
  std::uint32_t width = 0;
  std::uint32_t hidden = 0;  ///< of the MLP
  std::uint32_t query_heads = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t head = 0;    ///< 16, 32 or 64
  std::uint32_t window = 0;  ///< tokens before one that it sees in a window layer
  std::uint32_t state_heads = 0;
  std::uint32_t state_head = 0;  ///< 16, 32 or 64
  std::uint32_t states = 0;      ///< of each channel
  std::uint32_t tokens_max = 0;
  std::uint64_t seed = 1;

  /// Ten layers, 4.4 million multiplications a token, for conversations of up to 8,192 tokens.
  [[nodiscard]] static ModelConfig small();
  /// "MAWM": four layers, 64 thousand multiplications a token, for tests with thousands of
  /// conversations.
  [[nodiscard]] static ModelConfig tiny();

  /// FLOPs: c1 a token, c2 (b^2 - a^2) for attention over tokens a..b, window_c2 the same within
  /// the window.
  [[nodiscard]] double flops_per_token() const;
  [[nodiscard]] double flops_per_square() const;
  [[nodiscard]] double flops_per_window_square() const;
  [[nodiscard]] std::size_t count(Mixer mixer) const;
};

/// Which of `shards` equal parts of all heads this process has. Everything else it has whole.
struct Slice {
  std::uint32_t shard = 0;
  std::uint32_t shards = 1;
};

/// What a model remembers of the tokens so far: what the cache keeps. Copying it forks the
/// sequence.
struct Sequence {
  /// K and V of one attention layer, own heads, [token][kv head][head].
  struct Kv {
    std::vector<float> k, v;
  };

  /// One Mamba-2 layer, own heads: the last three inputs of the convolution, and
  /// [head][state][channel].
  struct Recurrent {
    std::vector<float> recent, h;
  };

  std::uint32_t length = 0;   ///< tokens
  std::uint64_t adapter = 0;  ///< 0: none
  std::vector<Kv> attention, window;
  std::vector<Recurrent> recurrent;
};

class Model {
 public:
  explicit Model(ModelConfig config, Slice slice = {}, const Math& math = engine::math());
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const ModelConfig& config() const noexcept { return config_; }

  [[nodiscard]] const Slice& slice() const noexcept { return slice_; }

  /// Floats of K (or V) of one token in one layer.
  [[nodiscard]] std::uint32_t kv_width() const noexcept {
    return config_.kv_heads / slice_.shards * config_.head;
  }

  /// No tokens yet. `adapter` stands for a LoRA: another one, other logits.
  [[nodiscard]] Sequence start(std::uint64_t adapter = 0) const;

 private:
  friend class Runner;
  struct Layer;
  struct Matrix;
  ModelConfig config_;
  Slice slice_;
  const Math& math_;
  std::vector<Layer> layers_;
  std::vector<float> embedding_, final_gain_, angles_;
  std::unique_ptr<Matrix> head_;
};

/// Given the own columns of each row, fills in those of the other shards. rows: [tokens][stride],
/// of which shard s has columns [s own, (s + 1) own).
using Gather =
    std::function<void(float* rows, std::size_t stride, std::size_t own, std::size_t tokens)>;

/// Computes: a model with the working memory for it.
class Runner {
 public:
  explicit Runner(const Model& model, Gather gather = {});
  /// The sequence goes on with these tokens. logits: kVocabulary floats for the last token, or for
  /// each token when it has room for that.
  void run(Sequence& sequence, std::span<const Token> tokens, std::span<float> logits);

 private:
  void chunk(Sequence& sequence, std::span<const Token> tokens, float* logits, bool every);
  void attention(const Model::Layer& layer,
                 Sequence::Kv& kv,
                 std::uint32_t at,
                 std::size_t tokens,
                 std::uint32_t window);
  void recurrent(const Model::Layer& layer, Sequence::Recurrent& state, std::size_t tokens);
  const Model& model_;
  Gather gather_;
  std::vector<float> x_, normed_, mixed_, gate_, up_, out_, qkv_, rows_, conv_, scores_;
};

}  // namespace statecached::engine

#include "client/engine/model.hpp"

#include "base/prng.hpp"
#include "base/units.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace statecached::engine {
namespace {

// tokens computed at a time: their rows fit the second-level cache
constexpr std::size_t kChunk = 64;

/// In (-1, 1), from a seed and a place.
float random_at(std::uint64_t seed, std::uint64_t place) {
  const auto bits = static_cast<std::int32_t>(mix64(seed ^ mix64(place)) >> 40U);
  return (static_cast<float>(bits) - 8388607.5F) / 8388608.0F;
}

std::vector<float> random_row(std::uint64_t seed,
                              std::size_t from,
                              std::size_t count,
                              float around,
                              float spread) {
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = around + spread * random_at(seed, from + i);
  return out;
}

float softplus(float x) {
  return std::max(x, 0.0F) + std::log1p(std::exp(-std::fabs(x)));
}

}  // namespace

/// Columns [from, from + count) of a matrix, in panels; the last one filled up with zeros.
struct Model::Matrix {
  std::size_t in = 0, panels = 0;
  std::vector<float> data;

  Matrix() = default;

  Matrix(std::uint64_t seed,
         std::size_t rows,
         std::size_t from,
         std::size_t count,
         float gain = 1.0F)
      : in(rows),
        panels(round_up(count, kPanel) / kPanel),
        data(panels * kPanel * rows) {
    const float scale = gain * std::sqrt(3.0F / static_cast<float>(rows));
    for (std::size_t j = 0; j < count; ++j) {
      float* column = data.data() + j / kPanel * kPanel * rows + j % kPanel;
      for (std::size_t i = 0; i < rows; ++i)
        column[i * kPanel] = scale * random_at(seed, (from + j) * rows + i);
    }
  }

  [[nodiscard]] std::size_t stride() const { return panels * kPanel; }
};

struct Model::Layer {
  Mixer mixer = Mixer::recurrent;
  std::vector<float> gain, mlp_gain;
  Matrix out, mlp_gate, mlp_up, mlp_down;
  Matrix q, k, v;       // attention
  Matrix z, x, bc, dt;  // recurrent
  std::vector<float> taps, bias, dt_bias, decay, skip, head_gain;
};

ModelConfig ModelConfig::small() {
  ModelConfig out;
  out.name = "engine-small";
  out.layers = "MMAMWMMAMM";
  out.width = 192;
  out.hidden = 384;
  out.query_heads = 6;
  out.kv_heads = 2;
  out.head = 32;
  out.window = 256;
  out.state_heads = 12;
  out.state_head = 32;
  out.states = 32;
  out.tokens_max = 8192;
  return out;
}

ModelConfig ModelConfig::tiny() {
  ModelConfig out;
  out.name = "engine-tiny";
  out.layers = "MAWM";
  out.width = 32;
  out.hidden = 64;
  out.query_heads = 4;
  out.kv_heads = 2;
  out.head = 16;
  out.window = 40;
  out.state_heads = 4;
  out.state_head = 16;
  out.states = 16;
  out.tokens_max = 2048;
  return out;
}

std::size_t ModelConfig::count(Mixer mixer) const {
  return static_cast<std::size_t>(
      std::count(layers.begin(), layers.end(), static_cast<char>(mixer)));
}

double ModelConfig::flops_per_token() const {
  const double d = width;
  const double inner = double{1} * state_heads * state_head;
  const double m = d * (2 * inner + 2 * states + state_heads) + inner * d + 2 * inner * states;
  const double a = d * head * (2 * query_heads + 2 * kv_heads);
  const double kinds = static_cast<double>(count(Mixer::attention) + count(Mixer::window));
  const double all = static_cast<double>(layers.size());
  return 2 * (m * static_cast<double>(count(Mixer::recurrent)) + a * kinds + 3 * d * hidden * all +
              d * kVocabulary);
}

double ModelConfig::flops_per_square() const {
  return 2.0 * head * query_heads * static_cast<double>(count(Mixer::attention));
}

double ModelConfig::flops_per_window_square() const {
  return 2.0 * head * query_heads * static_cast<double>(count(Mixer::window));
}

Model::Model(ModelConfig config, Slice slice, const Math& math)
    : config_(std::move(config)),
      slice_(slice),
      math_(math) {
  const ModelConfig& c = config_;
  if (c.kv_heads % slice.shards != 0 || c.state_heads % slice.shards != 0) std::abort();
  const std::size_t group = c.query_heads / c.kv_heads;
  const std::size_t kv = kv_width();
  const std::size_t queries = kv * group;
  const std::size_t inner = std::size_t{c.state_heads} / slice.shards * c.state_head;
  const std::size_t heads = c.state_heads / slice.shards;
  const std::size_t s = slice.shard;
  const std::size_t all_inner = std::size_t{c.state_heads} * c.state_head;
  embedding_ = random_row(mix64(c.seed), 0, std::size_t{kVocabulary} * c.width, 0, 1);
  for (std::size_t l = 0; l < c.layers.size(); ++l) {
    Layer& layer = layers_.emplace_back();
    std::uint64_t number = mix64(c.seed + 1000 * (l + 1));
    const auto seed = [&number] { return ++number; };
    layer.mixer = static_cast<Mixer>(c.layers[l]);
    layer.gain = random_row(seed(), 0, c.width, 1, 0.1F);
    layer.mlp_gain = random_row(seed(), 0, c.width, 1, 0.1F);
    layer.mlp_gate = Matrix(seed(), c.width, 0, c.hidden);
    layer.mlp_up = Matrix(seed(), c.width, 0, c.hidden);
    layer.mlp_down = Matrix(seed(), c.hidden, 0, c.width, 0.5F);
    if (layer.mixer != Mixer::recurrent) {
      layer.q = Matrix(seed(), c.width, s * queries, queries, 2.0F);
      layer.k = Matrix(seed(), c.width, s * kv, kv, 2.0F);
      layer.v = Matrix(seed(), c.width, s * kv, kv);
      layer.out = Matrix(seed(), std::size_t{c.query_heads} * c.head, 0, c.width, 0.5F);
      continue;
    }
    layer.z = Matrix(seed(), c.width, s * inner, inner);
    layer.x = Matrix(seed(), c.width, s * inner, inner);
    layer.bc = Matrix(seed(), c.width, 0, std::size_t{2} * c.states);
    layer.dt = Matrix(seed(), c.width, s * heads, heads);
    layer.out = Matrix(seed(), all_inner, 0, c.width, 0.5F);
    // The convolution's channels: own x, then B and C, which all heads share.
    const std::uint64_t tap = seed();
    const std::uint64_t bias = seed();
    const auto channels = [&](std::uint64_t from, std::uint64_t base, float spread) {
      std::vector<float> row = random_row(from, base + s * inner, inner, 0, spread);
      const std::vector<float> shared =
          random_row(from, base + all_inner, std::size_t{2} * c.states, 0, spread);
      row.insert(row.end(), shared.begin(), shared.end());
      return row;
    };
    for (std::uint64_t k = 0; k < 4; ++k) {
      const std::vector<float> row = channels(tap, k << 32U, 0.7F);
      layer.taps.insert(layer.taps.end(), row.begin(), row.end());
    }
    layer.bias = channels(bias, 0, 0.1F);
    layer.dt_bias = random_row(seed(), s * heads, heads, -2, 1.5F);
    layer.decay = random_row(seed(), s * heads, heads, 0.6F, 0.5F);
    layer.skip = random_row(seed(), s * heads, heads, 1, 0.5F);
    layer.head_gain = random_row(seed(), s * inner, inner, 1, 0.1F);
  }
  final_gain_ = random_row(mix64(c.seed) + 7, 0, c.width, 1, 0.1F);
  head_ = std::make_unique<Matrix>(mix64(c.seed) + 8, c.width, 0, kVocabulary);
  // Rotary angles: [token][pair] as cosine and sine.
  const std::size_t pairs = c.head / 2;
  angles_.resize(std::size_t{c.tokens_max} * pairs * 2);
  for (std::size_t t = 0; t < c.tokens_max; ++t) {
    for (std::size_t i = 0; i < pairs; ++i) {
      const double angle = static_cast<double>(t) *
                           std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(pairs));
      angles_[(t * pairs + i) * 2] = static_cast<float>(std::cos(angle));
      angles_[(t * pairs + i) * 2 + 1] = static_cast<float>(std::sin(angle));
    }
  }
}

Model::~Model() = default;

Sequence Model::start(std::uint64_t adapter) const {
  Sequence out;
  out.adapter = adapter;
  out.attention.resize(config_.count(Mixer::attention));
  out.window.resize(config_.count(Mixer::window));
  out.recurrent.resize(config_.count(Mixer::recurrent));
  const std::size_t heads = config_.state_heads / slice_.shards;
  for (Sequence::Recurrent& state : out.recurrent) {
    state.recent.assign(3 * (heads * config_.state_head + std::size_t{2} * config_.states), 0.0F);
    state.h.assign(heads * config_.states * config_.state_head, 0.0F);
  }
  return out;
}

Runner::Runner(const Model& model, Gather gather) : model_(model), gather_(std::move(gather)) {}

void Runner::run(Sequence& sequence, std::span<const Token> tokens, std::span<float> logits) {
  if (sequence.length + tokens.size() > model_.config().tokens_max) std::abort();
  const bool every = logits.size() >= tokens.size() * kVocabulary;
  for (std::size_t at = 0; at < tokens.size(); at += kChunk) {
    const auto part = tokens.subspan(at, std::min(kChunk, tokens.size() - at));
    const bool last = at + part.size() == tokens.size();
    float* out = every                     ? logits.data() + at * kVocabulary
                 : last && !logits.empty() ? logits.data()
                                           : nullptr;
    chunk(sequence, part, out, every);
  }
}

void Runner::attention(const Model::Layer& layer,
                       Sequence::Kv& kv,
                       std::uint32_t at,
                       std::size_t tokens,
                       std::uint32_t window) {
  const ModelConfig& c = model_.config_;
  const Math& m = model_.math_;
  const std::size_t width = model_.kv_width();
  const std::size_t group = c.query_heads / c.kv_heads;
  const std::size_t own = width * group;
  const std::size_t pairs = c.head / 2;
  qkv_.resize(tokens * (layer.q.stride() + 2 * layer.k.stride()));
  float* q = qkv_.data();
  float* k = q + tokens * layer.q.stride();
  float* v = k + tokens * layer.k.stride();
  m.matmul(normed_.data(),
           c.width,
           layer.q.data.data(),
           c.width,
           layer.q.panels,
           q,
           layer.q.stride(),
           tokens);
  m.matmul(normed_.data(),
           c.width,
           layer.k.data.data(),
           c.width,
           layer.k.panels,
           k,
           layer.k.stride(),
           tokens);
  m.matmul(normed_.data(),
           c.width,
           layer.v.data.data(),
           c.width,
           layer.v.panels,
           v,
           layer.v.stride(),
           tokens);
  const auto rotate = [&](float* heads, std::size_t count, std::size_t position) {
    const float* angles = model_.angles_.data() + position * pairs * 2;
    for (std::size_t h = 0; h < count; ++h, heads += c.head) {
      for (std::size_t i = 0; i < pairs; ++i) {
        const float a = heads[i];
        const float b = heads[i + pairs];
        heads[i] = a * angles[2 * i] - b * angles[2 * i + 1];
        heads[i + pairs] = a * angles[2 * i + 1] + b * angles[2 * i];
      }
    }
  };
  kv.k.resize((at + tokens) * width);
  kv.v.resize((at + tokens) * width);
  for (std::size_t t = 0; t < tokens; ++t) {
    rotate(q + t * layer.q.stride(), own / c.head, at + t);
    rotate(k + t * layer.k.stride(), width / c.head, at + t);
    std::memcpy(kv.k.data() + (at + t) * width, k + t * layer.k.stride(), width * sizeof(float));
    std::memcpy(kv.v.data() + (at + t) * width, v + t * layer.v.stride(), width * sizeof(float));
  }
  const std::size_t mixed = std::size_t{c.query_heads} * c.head;
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::size_t here = at + t;
    const std::size_t from = window != 0 && here > window ? here - window : 0;
    const std::size_t count = here + 1 - from;
    scores_.resize(group * round_up(count, 8));
    for (std::size_t h = 0; h < width / c.head; ++h) {
      const std::size_t place = from * width + h * c.head;
      m.attend(q + t * layer.q.stride() + h * group * c.head,
               group,
               c.head,
               kv.k.data() + place,
               kv.v.data() + place,
               width,
               count,
               scores_.data(),
               mixed_.data() + t * mixed + model_.slice_.shard * own + h * group * c.head);
    }
  }
  if (gather_) gather_(mixed_.data(), mixed, own, tokens);
}

void Runner::recurrent(const Model::Layer& layer, Sequence::Recurrent& state, std::size_t tokens) {
  const ModelConfig& c = model_.config_;
  const Math& m = model_.math_;
  const std::size_t heads = c.state_heads / model_.slice_.shards;
  const std::size_t inner = heads * c.state_head;
  const std::size_t channels = inner + std::size_t{2} * c.states;
  const std::size_t mixed = std::size_t{c.state_heads} * c.state_head;
  qkv_.resize(tokens *
              (layer.z.stride() + layer.x.stride() + layer.bc.stride() + layer.dt.stride()));
  float* z = qkv_.data();
  float* x = z + tokens * layer.z.stride();
  float* bc = x + tokens * layer.x.stride();
  float* dt = bc + tokens * layer.bc.stride();
  m.matmul(normed_.data(),
           c.width,
           layer.z.data.data(),
           c.width,
           layer.z.panels,
           z,
           layer.z.stride(),
           tokens);
  m.matmul(normed_.data(),
           c.width,
           layer.x.data.data(),
           c.width,
           layer.x.panels,
           x,
           layer.x.stride(),
           tokens);
  m.matmul(normed_.data(),
           c.width,
           layer.bc.data.data(),
           c.width,
           layer.bc.panels,
           bc,
           layer.bc.stride(),
           tokens);
  m.matmul(normed_.data(),
           c.width,
           layer.dt.data.data(),
           c.width,
           layer.dt.panels,
           dt,
           layer.dt.stride(),
           tokens);
  // The convolution's inputs, the three before this chunk in front.
  rows_.resize((tokens + 3) * channels);
  std::memcpy(rows_.data(), state.recent.data(), 3 * channels * sizeof(float));
  for (std::size_t t = 0; t < tokens; ++t) {
    float* row = rows_.data() + (t + 3) * channels;
    std::memcpy(row, x + t * layer.x.stride(), inner * sizeof(float));
    std::memcpy(row + inner, bc + t * layer.bc.stride(), std::size_t{2} * c.states * sizeof(float));
  }
  std::memcpy(state.recent.data(), rows_.data() + tokens * channels, 3 * channels * sizeof(float));
  conv_.resize(channels);
  std::vector<float> y(c.state_head);
  for (std::size_t t = 0; t < tokens; ++t) {
    m.conv4(
        rows_.data() + t * channels, layer.taps.data(), layer.bias.data(), channels, conv_.data());
    const float* b = conv_.data() + inner;
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t at = h * c.state_head;
      const float step = softplus(dt[t * layer.dt.stride() + h] + layer.dt_bias[h]);
      m.scan(state.h.data() + h * c.states * c.state_head,
             conv_.data() + at,
             b,
             b + c.states,
             c.states,
             c.state_head,
             std::exp(-layer.decay[h] * step),
             step,
             layer.skip[h],
             y.data());
      m.gate(z + t * layer.z.stride() + at, y.data(), c.state_head, y.data());
      m.norm(y.data(),
             layer.head_gain.data() + at,
             c.state_head,
             mixed_.data() + t * mixed + model_.slice_.shard * inner + at);
    }
  }
  if (gather_) gather_(mixed_.data(), mixed, inner, tokens);
}

void Runner::chunk(Sequence& sequence, std::span<const Token> tokens, float* logits, bool every) {
  const ModelConfig& c = model_.config_;
  const Math& m = model_.math_;
  const std::size_t count = tokens.size();
  const std::size_t d = c.width;
  const std::size_t widest =
      std::max(std::size_t{c.query_heads} * c.head, std::size_t{c.state_heads} * c.state_head);
  x_.resize(count * d);
  normed_.resize(count * d);
  out_.resize(count * round_up(d, kPanel));
  mixed_.resize(count * widest);
  for (std::size_t t = 0; t < count; ++t) {
    const float* row = model_.embedding_.data() + std::size_t{tokens[t] % kVocabulary} * d;
    for (std::size_t i = 0; i < d; ++i)
      x_[t * d + i] =
          row[i] + (sequence.adapter == 0 ? 0.0F : 0.5F * random_at(sequence.adapter, i));
  }
  const auto norm_all = [&](const std::vector<float>& gain) {
    for (std::size_t t = 0; t < count; ++t)
      m.norm(x_.data() + t * d, gain.data(), d, normed_.data() + t * d);
  };
  const auto add_out = [&](const Model::Matrix& matrix, const float* in) {
    m.matmul(in,
             matrix.in,
             matrix.data.data(),
             matrix.in,
             matrix.panels,
             out_.data(),
             matrix.stride(),
             count);
    for (std::size_t t = 0; t < count; ++t)
      for (std::size_t i = 0; i < d; ++i)
        x_[t * d + i] += out_[t * matrix.stride() + i];
  };
  std::size_t attention_at = 0;
  std::size_t window_at = 0;
  std::size_t recurrent_at = 0;
  for (const Model::Layer& layer : model_.layers_) {
    norm_all(layer.gain);
    if (layer.mixer == Mixer::attention)
      attention(layer, sequence.attention[attention_at++], sequence.length, count, 0);
    if (layer.mixer == Mixer::window)
      attention(layer, sequence.window[window_at++], sequence.length, count, c.window);
    if (layer.mixer == Mixer::recurrent)
      recurrent(layer, sequence.recurrent[recurrent_at++], count);
    add_out(layer.out, mixed_.data());
    norm_all(layer.mlp_gain);
    gate_.resize(count * layer.mlp_gate.stride());
    up_.resize(count * layer.mlp_up.stride());
    m.matmul(normed_.data(),
             d,
             layer.mlp_gate.data.data(),
             d,
             layer.mlp_gate.panels,
             gate_.data(),
             layer.mlp_gate.stride(),
             count);
    m.matmul(normed_.data(),
             d,
             layer.mlp_up.data.data(),
             d,
             layer.mlp_up.panels,
             up_.data(),
             layer.mlp_up.stride(),
             count);
    m.gate(gate_.data(), up_.data(), count * layer.mlp_up.stride(), gate_.data());
    add_out(layer.mlp_down, gate_.data());
  }
  sequence.length += static_cast<std::uint32_t>(count);
  if (logits == nullptr) return;
  norm_all(model_.final_gain_);
  const std::size_t from = every ? 0 : count - 1;
  m.matmul(normed_.data() + from * d,
           d,
           model_.head_->data.data(),
           d,
           model_.head_->panels,
           logits,
           kVocabulary,
           count - from);
}

}  // namespace statecached::engine

#include "base/model.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

namespace statecached {
namespace {

constexpr double kDeltaChunk = 64;       // chunk of the GDN and KDA kernels
constexpr double kLightningBlock = 256;  // block of the lightning attention kernel
constexpr std::uint64_t kKvElement = 2;
constexpr std::uint64_t kConvElement = 2;

constexpr std::uint64_t wide(std::uint32_t value) noexcept {
  return value;
}

constexpr double real(std::uint32_t value) noexcept {
  return static_cast<double>(value);
}

/// What one recurrent layer is made of.
struct Mixer {
  std::uint64_t parameters = 0;
  double flops_per_token = 0;        // beyond 2 * parameters
  std::uint64_t conv_elements = 0;   // of the state
  std::uint64_t state_elements = 0;  // of the state, in the wider type
};

Mixer mamba1(const RecurrentGeometry& r, std::uint64_t d) {
  const std::uint64_t inner = r.inner;
  const std::uint64_t n = r.state;
  const std::uint64_t rank = r.dt_rank;
  Mixer m;
  m.parameters = d * 2 * inner + inner * (rank + 2 * n) + rank * inner + inner * n + inner * d +
                 r.conv * inner + 3 * inner + rank +
                 2 * n;  // bias of the convolution, of dt, D; norms of dt, B, C
  m.flops_per_token = 9.0 * real(r.inner) * real(r.state) + 2.0 * real(r.conv) * real(r.inner);
  m.conv_elements = wide(r.conv - 1) * inner;
  m.state_elements = inner * n;
  return m;
}

Mixer mamba2(const RecurrentGeometry& r, std::uint64_t d) {
  const std::uint64_t inner = wide(r.heads) * r.head_dim;
  const std::uint64_t convolved = inner + 2 * wide(r.groups) * r.state;
  const double q = r.chunk == 0 ? 256.0 : real(r.chunk);
  const double h = real(r.heads);
  const double p = real(r.head_dim);
  const double n = real(r.state);
  Mixer m;
  m.parameters = d * (inner + convolved + r.heads) + r.conv * convolved + inner * d + convolved +
                 inner + 3 * wide(r.heads);  // bias of the convolution, norm; A, D, bias of dt
  m.flops_per_token = 2 * q * real(r.groups) * n + 2 * q * h * p + 4 * n * h * p +
                      2 * n * h * p / q + 2.0 * real(r.conv) * static_cast<double>(convolved);
  m.conv_elements = wide(r.conv - 1) * convolved;
  m.state_elements = inner * r.state;
  return m;
}

Mixer gdn(const RecurrentGeometry& r, std::uint64_t d) {
  const std::uint64_t keys = wide(r.key_heads) * r.key_dim;
  const std::uint64_t values = wide(r.value_heads) * r.value_dim;
  const double dk = real(r.key_dim);
  const double dv = real(r.value_dim);
  const double c = kDeltaChunk;
  Mixer m;
  m.parameters = d * (2 * keys + 2 * values + 2 * wide(r.value_heads)) +
                 r.conv * (2 * keys + values) + values * d + 2 * wide(r.value_heads) +
                 r.value_dim;  // A, bias of dt; norm
  m.flops_per_token = real(r.value_heads) * (6 * dk * dv + c * (6 * dk + 4 * dv) + c * c / 3) +
                      2.0 * real(r.conv) * static_cast<double>(2 * keys + values);
  m.conv_elements = wide(r.conv - 1) * (2 * keys + values);
  m.state_elements = values * r.key_dim;
  return m;
}

Mixer kda(const RecurrentGeometry& r, std::uint64_t d) {
  const std::uint64_t dim = r.head_dim;
  const std::uint64_t inner = wide(r.heads) * dim;
  const double hd = real(r.head_dim);
  const double c = kDeltaChunk;
  Mixer m;
  m.parameters = 4 * d * inner + 3 * r.conv * inner +         // q, k, v, output; convolutions
                 2 * (d * dim + dim * inner) + d * r.heads +  // low-rank decay and gate; beta
                 inner + dim + r.heads;                       // bias of the decay; norm; A
  m.flops_per_token = real(r.heads) * (6 * hd * hd + 10 * c * hd + c * c / 3) +
                      2.0 * real(r.conv) * 3.0 * static_cast<double>(inner);
  m.conv_elements = wide(r.conv - 1) * 3 * inner;
  m.state_elements = inner * dim;
  return m;
}

Mixer lightning(const RecurrentGeometry& r, std::uint64_t d) {
  const std::uint64_t inner = wide(r.heads) * r.head_dim;
  const double dim = real(r.head_dim);
  Mixer m;
  m.parameters = 5 * d * inner + inner;  // q, k, v, gate, output; norm
  m.flops_per_token = real(r.heads) * (4 * dim * dim + 4 * kLightningBlock * dim);
  m.state_elements = inner * r.head_dim;
  return m;
}

Mixer shortconv(const RecurrentGeometry& r, std::uint64_t d) {
  Mixer m;
  m.parameters = 4 * d * d + r.conv * d;
  m.flops_per_token = 2.0 * real(r.conv) * static_cast<double>(d);
  m.conv_elements = wide(r.conv - 1) * d;
  return m;
}

Mixer mixer(const RecurrentGeometry& r, std::uint64_t d) {
  // Without a convolution there is no convolution state; the formulas below subtract one from its
  // width.
  if (r.conv == 0 && r.kind != RecurrentKind::lightning) return {};
  switch (r.kind) {
    case RecurrentKind::none:
      return {};
    case RecurrentKind::mamba1:
      return mamba1(r, d);
    case RecurrentKind::mamba2:
      return mamba2(r, d);
    case RecurrentKind::gdn:
      return gdn(r, d);
    case RecurrentKind::kda:
      return kda(r, d);
    case RecurrentKind::lightning:
      return lightning(r, d);
    case RecurrentKind::shortconv:
      return shortconv(r, d);
  }
  return {};
}

struct AttentionLayer {
  std::uint64_t parameters = 0;
  double flops_per_pair = 0;
  std::uint64_t kv_elements = 0;  // a token
};

AttentionLayer attention_layer(const AttentionGeometry& a, std::uint64_t d) {
  const std::uint64_t heads = a.query_heads;
  AttentionLayer out;
  if (a.kv_rank != 0) {
    const std::uint64_t rank = a.kv_rank;
    out.parameters = d * heads * (a.nope_dim + a.rope_dim) + d * (rank + a.rope_dim) +
                     rank * heads * (a.nope_dim + a.v_dim) + heads * a.v_dim * d +
                     rank;  // last: norm
    out.flops_per_pair =
        2.0 * real(a.query_heads) * (real(a.nope_dim) + real(a.rope_dim) + real(a.v_dim));
    out.kv_elements = rank + a.rope_dim;
    return out;
  }
  const std::uint64_t width = a.input_width != 0 ? a.input_width : d;
  const std::uint64_t query = heads * a.head_dim;
  const std::uint64_t kv = wide(a.kv_heads) * a.head_dim;
  out.parameters = width * query * (a.gated_query ? 2 : 1) + 2 * width * kv + query * d;
  out.flops_per_pair = 4.0 * static_cast<double>(query);
  out.kv_elements = 2 * kv;
  return out;
}

std::uint64_t ffn_parameters(const FfnGeometry& f, std::uint64_t d) {
  const std::uint64_t matrices = f.gated ? 3 : 2;
  if (f.experts == 0) return matrices * d * (wide(f.d_ff) + f.shared_d_ff);
  return d * f.experts + f.top_k * matrices * d * f.d_ff + matrices * d * f.shared_d_ff +
         (f.shared_gate ? d : 0);
}

/// The model that published reference simulations of prefix-cache admission use: 4 attention, 24
/// recurrent and 28 feed-forward layers of width 4096, all in 2 bytes, attention counted without
/// the causal half (the fact sheet on Marconi, section 3.5).
ModelCost marconi_7b() {
  constexpr std::uint64_t kWidth = 4096;
  constexpr std::uint64_t kState = 128;
  constexpr std::uint64_t kAttention = 8 * kWidth * kWidth;
  constexpr std::uint64_t kFfn = 16 * kWidth * kWidth;
  constexpr std::uint64_t kRecurrent = 12 * kWidth * kWidth + 16 * kWidth * kState + 10 * kWidth;
  constexpr std::uint64_t kLinear = 4 * kAttention + 28 * kFfn + 24 * kRecurrent;
  static_assert(kLinear == 13'087'211'520);
  ModelCost out;
  out.name = "marconi-7b";
  out.cost.c1 = static_cast<double>(kLinear);
  out.cost.c2 = static_cast<double>(4 * 4 * kWidth);
  out.linear_parameters = kLinear / 2;
  out.kv_bytes_per_token = 4 * 2 * kWidth * 2;
  out.checkpoint_bytes = 24 * (kWidth * kState * 2 + (2 * kWidth + 2 * kState) * 4 * 2);
  out.checkpoint_bytes_2byte = out.checkpoint_bytes;
  return out;
}

using Kind = RecurrentKind;

RecurrentGeometry ssd(std::uint32_t layers,
                      std::uint32_t heads,
                      std::uint32_t head_dim,
                      std::uint32_t state,
                      std::uint32_t groups,
                      std::uint32_t chunk) {
  return {.kind = Kind::mamba2,
          .layers = layers,
          .state = state,
          .conv = 4,
          .heads = heads,
          .head_dim = head_dim,
          .groups = groups,
          .chunk = chunk};
}

/// Hybrids of attention with Mamba layers.
std::vector<ModelGeometry> mamba_models() {
  std::vector<ModelGeometry> out;
  out.push_back({.name = "jamba-1.5-mini",
                 .d_model = 4096,
                 .attention = {{.layers = 4, .query_heads = 32, .kv_heads = 8, .head_dim = 128}},
                 .recurrent = {.kind = Kind::mamba1,
                               .layers = 28,
                               .inner = 8192,
                               .state = 16,
                               .dt_rank = 256,
                               .conv = 4},
                 .ffn = {{.layers = 16, .d_ff = 14336},
                         {.layers = 16, .d_ff = 14336, .experts = 16, .top_k = 2}}});
  out.push_back({.name = "nemotron-h-8b",
                 .d_model = 4096,
                 .attention = {{.layers = 4, .query_heads = 32, .kv_heads = 8, .head_dim = 128}},
                 .recurrent = ssd(24, 128, 64, 128, 8, 128),
                 .ffn = {{.gated = false, .layers = 24, .d_ff = 21504}}});
  out.push_back({.name = "nemotron-h-56b",
                 .d_model = 8192,
                 .attention = {{.layers = 10, .query_heads = 64, .kv_heads = 8, .head_dim = 128}},
                 .recurrent = ssd(54, 256, 64, 256, 8, 128),
                 .ffn = {{.gated = false, .layers = 54, .d_ff = 32768}}});
  // Two shared blocks run 13 times on the concatenation of the stream and the embedding. Each run
  // adds a projection of its own (d x d) and an adapter of rank 128 on the feed-forward's input
  // matrix.
  constexpr std::uint64_t kZambaRun = 3584ULL * 3584 + 128ULL * (3584 + 2 * 14336);
  out.push_back({.name = "zamba2-7b",
                 .d_model = 3584,
                 .attention = {{.layers = 13,
                                .query_heads = 32,
                                .kv_heads = 32,
                                .head_dim = 224,
                                .input_width = 7168}},
                 .recurrent = ssd(81, 112, 64, 64, 2, 256),
                 .ffn = {{.layers = 13, .d_ff = 14336}},
                 .extra_linear_parameters = 13 * kZambaRun});
  out.push_back({.name = "falcon-h1-7b",
                 .d_model = 3072,
                 .attention = {{.layers = 44, .query_heads = 12, .kv_heads = 2, .head_dim = 128}},
                 .recurrent = ssd(44, 24, 128, 256, 1, 256),
                 .ffn = {{.layers = 44, .d_ff = 12288}}});
  out.push_back({.name = "falcon-h1-34b",
                 .d_model = 5120,
                 .attention = {{.layers = 72, .query_heads = 20, .kv_heads = 4, .head_dim = 128}},
                 .recurrent = ssd(72, 32, 128, 256, 2, 256),
                 .ffn = {{.layers = 72, .d_ff = 21504}}});
  out.push_back(
      {.name = "granite-4.0-h-small",
       .d_model = 4096,
       .attention = {{.layers = 4, .query_heads = 32, .kv_heads = 8, .head_dim = 128}},
       .recurrent = ssd(36, 128, 64, 128, 1, 256),
       .ffn = {{.layers = 40, .d_ff = 768, .experts = 72, .top_k = 10, .shared_d_ff = 1536}}});
  out.push_back({.name = "bamba-9b",
                 .d_model = 4096,
                 .attention = {{.layers = 3, .query_heads = 32, .kv_heads = 8, .head_dim = 128}},
                 .recurrent = ssd(29, 128, 64, 128, 1, 256),
                 .ffn = {{.layers = 32, .d_ff = 14336}}});
  return out;
}

/// Hybrids of attention with linear attention or convolutions, and one without recurrence.
std::vector<ModelGeometry> other_models() {
  std::vector<ModelGeometry> out;
  out.push_back(
      {.name = "qwen3-next-80b-a3b",
       .d_model = 2048,
       .attention =
           {{.layers = 12, .query_heads = 16, .kv_heads = 2, .head_dim = 256, .gated_query = true}},
       .recurrent = {.kind = Kind::gdn,
                     .layers = 36,
                     .conv = 4,
                     .key_heads = 16,
                     .key_dim = 128,
                     .value_heads = 32,
                     .value_dim = 128},
       .ffn = {{.layers = 48,
                .d_ff = 512,
                .experts = 512,
                .top_k = 10,
                .shared_d_ff = 512,
                .shared_gate = true}}});
  out.push_back(
      {.name = "kimi-linear-48b-a3b",
       .d_model = 2304,
       .attention = {{.layers = 7,
                      .query_heads = 32,
                      .kv_heads = 32,
                      .head_dim = 128,
                      .kv_rank = 512,
                      .rope_dim = 64,
                      .nope_dim = 128,
                      .v_dim = 128}},
       .recurrent = {.kind = Kind::kda, .layers = 20, .conv = 4, .heads = 32, .head_dim = 128},
       .ffn = {{.layers = 1, .d_ff = 9216},
               {.layers = 26, .d_ff = 1024, .experts = 256, .top_k = 8, .shared_d_ff = 1024}}});
  out.push_back({.name = "minimax-text-01",
                 .d_model = 6144,
                 .attention = {{.layers = 10, .query_heads = 64, .kv_heads = 8, .head_dim = 128}},
                 .recurrent = {.kind = Kind::lightning, .layers = 70, .heads = 64, .head_dim = 128},
                 .ffn = {{.layers = 80, .d_ff = 9216, .experts = 32, .top_k = 2}}});
  out.push_back({.name = "lfm2-1.2b",
                 .d_model = 2048,
                 .attention = {{.layers = 6, .query_heads = 32, .kv_heads = 8, .head_dim = 64}},
                 .recurrent = {.kind = Kind::shortconv, .layers = 10, .conv = 3},
                 .ffn = {{.layers = 16, .d_ff = 8192}}});
  out.push_back({.name = "lfm2-8b-a1b",
                 .d_model = 2048,
                 .attention = {{.layers = 6, .query_heads = 32, .kv_heads = 8, .head_dim = 64}},
                 .recurrent = {.kind = Kind::shortconv, .layers = 18, .conv = 3},
                 .ffn = {{.layers = 2, .d_ff = 7168},
                         {.layers = 22, .d_ff = 1792, .experts = 32, .top_k = 4}}});
  out.push_back({.name = "llama-3.1-8b",
                 .d_model = 4096,
                 .attention = {{.layers = 32, .query_heads = 32, .kv_heads = 8, .head_dim = 128}},
                 .ffn = {{.layers = 32, .d_ff = 14336}}});
  return out;
}

const std::vector<ModelCost>& table() {
  static const std::vector<ModelCost> kTable = [] {
    std::vector<ModelCost> out;
    for (const ModelGeometry& geometry : mamba_models())
      out.push_back(model_cost(geometry));
    for (const ModelGeometry& geometry : other_models())
      out.push_back(model_cost(geometry));
    out.push_back(marconi_7b());
    return out;
  }();
  return kTable;
}

}  // namespace

RecurrentKind parse_recurrent_kind(std::string_view text) noexcept {
  constexpr std::array<std::pair<std::string_view, Kind>, 6> kKinds{
      {{"mamba1", Kind::mamba1},
       {"mamba2", Kind::mamba2},
       {"gdn", Kind::gdn},
       {"kda", Kind::kda},
       {"lightning", Kind::lightning},
       {"shortconv", Kind::shortconv}}};
  for (const auto& [name, kind] : kKinds) {
    if (name == text) return kind;
  }
  return Kind::none;
}

ModelCost model_cost(const ModelGeometry& geometry) {
  const std::uint64_t d = geometry.d_model;
  ModelCost out;
  out.name = geometry.name;
  out.linear_parameters = geometry.extra_linear_parameters;
  for (const AttentionGeometry& a : geometry.attention) {
    const AttentionLayer layer = attention_layer(a, d);
    out.linear_parameters += a.layers * layer.parameters;
    // Pairs of queries and keys of (a, b] are (b²-a²)/2 + (b-a)/2; Cost counts the capped ones
    // itself.
    const double half = real(a.layers) * layer.flops_per_pair / 2;
    const std::uint64_t kv_bytes = a.layers * layer.kv_elements * kKvElement;
    if (a.window != 0) {
      out.cost.window_c2 += half;
      out.cost.window = std::max(out.cost.window, a.window);
      out.window_kv_bytes_per_token += kv_bytes;
    } else {
      out.cost.c1 += half;
      out.cost.c2 += half;
      out.kv_bytes_per_token += kv_bytes;
    }
  }
  const RecurrentGeometry& r = geometry.recurrent;
  const Mixer layer = mixer(r, d);
  out.linear_parameters += r.layers * layer.parameters;
  out.cost.c1 += real(r.layers) * layer.flops_per_token;
  out.checkpoint_bytes = r.layers * (layer.conv_elements * kConvElement + layer.state_elements * 4);
  out.checkpoint_bytes_2byte = r.layers * (layer.conv_elements + layer.state_elements) * 2;
  for (const FfnGeometry& f : geometry.ffn)
    out.linear_parameters += f.layers * ffn_parameters(f, d);
  if (geometry.linear_parameters != 0) out.linear_parameters = geometry.linear_parameters;
  out.cost.c1 += 2.0 * static_cast<double>(out.linear_parameters);
  return out;
}

Result<ModelCost> find_model(std::string_view name) {
  for (const ModelCost& model : table()) {
    if (model.name == name) return model;
  }
  return fail(
      Errc::not_found,
      fmt::format(
          "there is no model '{}'; the table has {}", name, fmt::join(model_names(), ", ")));
}

std::vector<std::string> model_names() {
  std::vector<std::string> out;
  for (const ModelCost& model : table())
    out.push_back(model.name);
  return out;
}

}  // namespace statecached

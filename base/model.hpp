#pragma once
// The geometry of model families and what follows from it: FLOPs of a prefill, bytes of KV a token,
// bytes of a recurrent checkpoint. Formulas: the project's CUDA study, section 6.1 (multiply-add =
// 2 FLOPs, one process, KV in 2 bytes an element). Pure functions and constants; any thread.

#include "base/result.hpp"
#include "base/spec.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace statecached {

/// Layers of attention of one shape. With kv_rank != 0 it is MLA (not absorbed in prefill), and
/// kv_heads and head_dim are not used.
struct AttentionGeometry {
  std::uint32_t layers = 0;
  std::uint32_t query_heads = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t head_dim = 0;
  std::uint32_t input_width = 0;  ///< 0: d_model
  std::uint32_t window = 0;       ///< tokens a query sees; 0: all
  bool gated_query = false;       ///< the query projection is twice as wide
  std::uint32_t kv_rank = 0;      ///< MLA: kv_lora_rank
  std::uint32_t rope_dim = 0;     ///< MLA
  std::uint32_t nope_dim = 0;     ///< MLA
  std::uint32_t v_dim = 0;        ///< MLA
};

enum class RecurrentKind : std::uint8_t { none, mamba1, mamba2, gdn, kda, lightning, shortconv };
/// "mamba1" ... as models.json writes them; none for anything else.
[[nodiscard]] RecurrentKind parse_recurrent_kind(std::string_view text) noexcept;

/// Recurrent layers. In brackets the key of models.json; each kind uses those that its formula
/// names.
struct RecurrentGeometry {
  RecurrentKind kind = RecurrentKind::none;
  std::uint32_t layers = 0;
  std::uint32_t inner = 0;        ///< mamba1 [di]
  std::uint32_t state = 0;        ///< mamba1, mamba2 [N]
  std::uint32_t dt_rank = 0;      ///< mamba1 [R]
  std::uint32_t conv = 0;         ///< width of the convolution, all but lightning [K]
  std::uint32_t heads = 0;        ///< mamba2, kda, lightning [H]
  std::uint32_t head_dim = 0;     ///< mamba2 [P], kda and lightning [D]
  std::uint32_t groups = 0;       ///< mamba2 [G]
  std::uint32_t chunk = 0;        ///< mamba2 [Q]; 0: 256
  std::uint32_t key_heads = 0;    ///< gdn [Hk]
  std::uint32_t key_dim = 0;      ///< gdn [Dk]
  std::uint32_t value_heads = 0;  ///< gdn [Hv]
  std::uint32_t value_dim = 0;    ///< gdn [Dv]
};

/// Feed-forward layers of one shape; experts == 0: dense.
struct FfnGeometry {
  bool gated = true;  ///< SwiGLU (three matrices) rather than ReLU² (two)
  std::uint32_t layers = 0;
  std::uint32_t d_ff = 0;
  std::uint32_t experts = 0;
  std::uint32_t top_k = 0;
  std::uint32_t shared_d_ff = 0;
  bool shared_gate = false;  ///< the shared expert has a gate of d_model weights
};

struct ModelGeometry {
  std::string name;
  std::uint32_t d_model = 0;
  std::vector<AttentionGeometry> attention = {};
  RecurrentGeometry recurrent = {};
  std::vector<FfnGeometry> ffn = {};
  /// Weights executed for each token that no field above describes.
  std::uint64_t extra_linear_parameters = 0;
  /// Weights executed for each token, all of them; 0: computed from the fields above.
  std::uint64_t linear_parameters = 0;
};

struct ModelCost {
  std::string name;
  Cost cost;
  std::uint64_t linear_parameters = 0;   ///< executed for each token
  std::uint64_t kv_bytes_per_token = 0;  ///< of layers that see everything
  std::uint64_t window_kv_bytes_per_token =
      0;                               ///< of sliding-window layers, the last cost.window tokens
  std::uint64_t checkpoint_bytes = 0;  ///< convolutions in bf16, recurrent state in fp32
  std::uint64_t checkpoint_bytes_2byte = 0;  ///< everything in 2 bytes
};

/// Sliding-window layers of several widths count at the widest.
[[nodiscard]] ModelCost model_cost(const ModelGeometry& geometry);

/// A model of the built-in table. not_found names all there are.
[[nodiscard]] Result<ModelCost> find_model(std::string_view name);
[[nodiscard]] std::vector<std::string> model_names();

}  // namespace statecached

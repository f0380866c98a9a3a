#pragma once
// `--model NAME|FILE` as the programs that have no model of their own understand it: what a
// namespace of that model looks like and what its prefill costs.

#include "base/model.hpp"
#include "base/spec.hpp"

#include <cstdint>
#include <string>

namespace statecached {

struct ModelOptions {
  double bytes_scale = 1;  ///< of KV and checkpoints: a small machine plays a large one
  std::uint32_t block_tokens = 64;
  std::string state_dtype;  ///< "", "bf16conv_fp32ssm" (what "" means) or "2byte"
};

/// A name of the built-in table or a JSON file: one object of the form that models are written in
/// (`name`, `d_model`, `attention`, `recurrent`, `ffn`), or `{"models": [one of them]}`. Byte
/// counts that the file states (`kv_bytes_per_token_bf16`, `checkpoint_bytes_...`) stand above what
/// its geometry gives. Errors: not_found, invalid_argument (names what is missing).
[[nodiscard]] Result<ModelCost> load_model(const std::string& name_or_file);

/// Groups `attention` (every), `sliding` (last; where the model has such layers) and `recurrent`
/// (end; where it has a state). Errors: invalid_argument for an unknown dtype.
[[nodiscard]] Result<NamespaceSpec> namespace_spec(const ModelCost& model,
                                                   const ModelOptions& options);

/// Prefill seconds of tokens a..b with [0, a) resident.
[[nodiscard]] double prefill_seconds(const Cost& cost,
                                     std::uint64_t a,
                                     std::uint64_t b,
                                     double flops_per_second);

}  // namespace statecached

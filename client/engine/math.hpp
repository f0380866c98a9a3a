#pragma once
// The loops that take the engine's time, in float32, once for any processor and once for AVX2.
//
// Bits: every output of a token is computed by the same operations in the same order, whatever else
// is in the batch, and multiply and add are never fused. So results depend neither on how a prompt
// is cut into chunks, nor on how heads are divided among processes, nor on which of the two builds
// runs. Threads: pure functions. Sizes are in floats; `width`s and head sizes are multiples of 8.

#include <cstddef>

namespace statecached::engine {

inline constexpr std::size_t kPanel = 16;  ///< columns of a weight panel

struct Math {
  /// y[t][j] = sum over i of x[t][i] w[i][j]. `panels`: panels of 16 columns, each [in][16].
  void (*matmul)(const float* x,
                 std::size_t x_stride,
                 const float* panels,
                 std::size_t in,
                 std::size_t panel_count,
                 float* y,
                 std::size_t y_stride,
                 std::size_t tokens);
  /// Softmax attention of `queries` heads of one token over `count` keys of the KV head they share.
  /// q, out: [queries][head]; k, v: first key's head, `stride` floats from token to token; scratch:
  /// queries x (count rounded up to 8). `head`: 16, 32 or 64.
  void (*attend)(const float* q,
                 std::size_t queries,
                 std::size_t head,
                 const float* k,
                 const float* v,
                 std::size_t stride,
                 std::size_t count,
                 float* scratch,
                 float* out);
  /// One step of one head: h[n][p] = decay h[n][p] + (dt b[n]) x[p]; y[p] = skip x[p] + sum of c[n]
  /// h[n][p]. `head` as above.
  void (*scan)(float* h,
               const float* x,
               const float* b,
               const float* c,
               std::size_t states,
               std::size_t head,
               float decay,
               float dt,
               float skip,
               float* y);
  /// out = silu(bias + sum over k of taps[k] rows[k]); rows: 4 consecutive inputs, `width` apart.
  void (*conv4)(const float* rows,
                const float* taps,
                const float* bias,
                std::size_t width,
                float* out);
  /// out = x / rms(x) * gain.
  void (*norm)(const float* x, const float* gain, std::size_t width, float* out);
  /// out = silu(gate) * x.
  void (*gate)(const float* gate, const float* x, std::size_t width, float* out);
};

/// The best of this processor.
[[nodiscard]] const Math& math();
/// The one for any processor: for tests.
[[nodiscard]] const Math& portable_math();

}  // namespace statecached::engine

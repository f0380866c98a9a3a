#pragma once
// The kernels' source, compiled once for each instruction set: see math_portable.cpp and
// math_avx2.cpp, which define STATECACHED_ENGINE_ISA. Eight lanes are written out with the
// compiler's vector types; without AVX it makes two halves of each.

#include "client/engine/math.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace statecached::engine::STATECACHED_ENGINE_ISA {
namespace {

using V = float __attribute__((vector_size(32)));
using Vi = std::int32_t __attribute__((vector_size(32)));

inline V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

inline V all(float x) {
  return V{x, x, x, x, x, x, x, x};
}

inline float sum(V v) {
  return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

/// e^x to about two units in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, Taylor to the
/// seventh degree.
inline V exponential(V x) {
  x = x < all(-87.0F) ? all(-87.0F) : x;
  x = x > all(87.0F) ? all(87.0F) : x;
  const V n = (x * all(1.44269504F) + all(12582912.0F)) - all(12582912.0F);
  const V r = (x - n * all(0.693359375F)) - n * all(-2.12194440e-4F);
  V p = all(1.0F / 5040.0F);
  p = p * r + all(1.0F / 720.0F);
  p = p * r + all(1.0F / 120.0F);
  p = p * r + all(1.0F / 24.0F);
  p = p * r + all(1.0F / 6.0F);
  p = p * r + all(0.5F);
  p = p * r + all(1.0F);
  p = p * r + all(1.0F);
  const Vi power = (__builtin_convertvector(n, Vi) + 127) << 23;
  V scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

inline V silu(V x) {
  return x / (all(1.0F) + exponential(-x));
}

template <std::size_t T>
void tile(const float* x,
          std::size_t x_stride,
          const float* panel,
          std::size_t in,
          float* y,
          std::size_t y_stride) {
  V left[T];
  V right[T];
  for (std::size_t t = 0; t < T; ++t)
    left[t] = right[t] = all(0.0F);
  for (std::size_t i = 0; i < in; ++i) {
    const V a = load(panel + i * kPanel);
    const V b = load(panel + i * kPanel + 8);
    for (std::size_t t = 0; t < T; ++t) {
      const V value = all(x[t * x_stride + i]);
      left[t] += value * a;
      right[t] += value * b;
    }
  }
  for (std::size_t t = 0; t < T; ++t) {
    store(y + t * y_stride, left[t]);
    store(y + t * y_stride + 8, right[t]);
  }
}

void matmul(const float* x,
            std::size_t x_stride,
            const float* panels,
            std::size_t in,
            std::size_t panel_count,
            float* y,
            std::size_t y_stride,
            std::size_t tokens) {
  for (std::size_t p = 0; p < panel_count; ++p) {
    const float* panel = panels + p * in * kPanel;
    float* out = y + p * kPanel;
    std::size_t t = 0;
    for (; t + 4 <= tokens; t += 4)
      tile<4>(x + t * x_stride, x_stride, panel, in, out + t * y_stride, y_stride);
    for (; t < tokens; ++t)
      tile<1>(x + t * x_stride, x_stride, panel, in, out + t * y_stride, y_stride);
  }
}

/// Turns scores into weights (not yet divided by their sum, which it returns). Entries up to a
/// multiple of 8 are set.
float soften(float* scores, std::size_t count) {
  const std::size_t padded = (count + 7) / 8 * 8;
  for (std::size_t j = count; j < padded; ++j)
    scores[j] = scores[0];
  V top = load(scores);
  for (std::size_t j = 8; j < padded; j += 8) {
    const V s = load(scores + j);
    top = top < s ? s : top;
  }
  float most = top[0];
  for (std::size_t lane = 1; lane < 8; ++lane)
    most = most < top[lane] ? top[lane] : most;
  for (std::size_t j = 0; j < padded; j += 8)
    store(scores + j, exponential(load(scores + j) - all(most)));
  for (std::size_t j = count; j < padded; ++j)
    scores[j] = 0.0F;
  V total = all(0.0F);
  for (std::size_t j = 0; j < padded; j += 8)
    total += load(scores + j);
  return sum(total);
}

template <std::size_t H>  // eighths of a head
void attend_head(const float* q,
                 std::size_t queries,
                 const float* k,
                 const float* v,
                 std::size_t stride,
                 std::size_t count,
                 float* scratch,
                 float* out) {
  const std::size_t padded = (count + 7) / 8 * 8;
  const float scale = 1.0F / std::sqrt(static_cast<float>(8 * H));
  for (std::size_t g = 0; g < queries; ++g) {
    V query[H];
    for (std::size_t d = 0; d < H; ++d)
      query[d] = load(q + (g * H + d) * 8) * all(scale);
    float* scores = scratch + g * padded;
    for (std::size_t j = 0; j < count; ++j) {
      const float* key = k + j * stride;
      V dot = query[0] * load(key);
      for (std::size_t d = 1; d < H; ++d)
        dot += query[d] * load(key + d * 8);
      scores[j] = sum(dot);
    }
  }
  for (std::size_t g = 0; g < queries; ++g) {
    float* weights = scratch + g * padded;
    const float total = soften(weights, count);
    V mixed[H];
    for (std::size_t d = 0; d < H; ++d)
      mixed[d] = all(0.0F);
    for (std::size_t j = 0; j < count; ++j) {
      const V weight = all(weights[j]);
      for (std::size_t d = 0; d < H; ++d)
        mixed[d] += weight * load(v + j * stride + d * 8);
    }
    for (std::size_t d = 0; d < H; ++d)
      store(out + (g * H + d) * 8, mixed[d] / all(total));
  }
}

void attend(const float* q,
            std::size_t queries,
            std::size_t head,
            const float* k,
            const float* v,
            std::size_t stride,
            std::size_t count,
            float* scratch,
            float* out) {
  if (head == 16) attend_head<2>(q, queries, k, v, stride, count, scratch, out);
  if (head == 32) attend_head<4>(q, queries, k, v, stride, count, scratch, out);
  if (head == 64) attend_head<8>(q, queries, k, v, stride, count, scratch, out);
}

template <std::size_t H>
void scan_head(float* h,
               const float* x,
               const float* b,
               const float* c,
               std::size_t states,
               float decay,
               float dt,
               float skip,
               float* y) {
  V in[H];
  V out[H];
  for (std::size_t d = 0; d < H; ++d) {
    in[d] = load(x + d * 8);
    out[d] = all(skip) * in[d];
  }
  for (std::size_t n = 0; n < states; ++n) {
    const V gain = all(dt * b[n]);
    const V read = all(c[n]);
    for (std::size_t d = 0; d < H; ++d) {
      float* cell = h + (n * H + d) * 8;
      const V now = all(decay) * load(cell) + gain * in[d];
      store(cell, now);
      out[d] += read * now;
    }
  }
  for (std::size_t d = 0; d < H; ++d)
    store(y + d * 8, out[d]);
}

void scan(float* h,
          const float* x,
          const float* b,
          const float* c,
          std::size_t states,
          std::size_t head,
          float decay,
          float dt,
          float skip,
          float* y) {
  if (head == 16) scan_head<2>(h, x, b, c, states, decay, dt, skip, y);
  if (head == 32) scan_head<4>(h, x, b, c, states, decay, dt, skip, y);
  if (head == 64) scan_head<8>(h, x, b, c, states, decay, dt, skip, y);
}

void conv4(const float* rows, const float* taps, const float* bias, std::size_t width, float* out) {
  for (std::size_t i = 0; i < width; i += 8) {
    V value = load(bias + i);
    for (std::size_t k = 0; k < 4; ++k)
      value += load(taps + k * width + i) * load(rows + k * width + i);
    store(out + i, silu(value));
  }
}

void norm(const float* x, const float* gain, std::size_t width, float* out) {
  V squares = all(0.0F);
  for (std::size_t i = 0; i < width; i += 8)
    squares += load(x + i) * load(x + i);
  const float scale = 1.0F / std::sqrt(sum(squares) / static_cast<float>(width) + 1e-5F);
  for (std::size_t i = 0; i < width; i += 8)
    store(out + i, load(x + i) * all(scale) * load(gain + i));
}

void gate(const float* g, const float* x, std::size_t width, float* out) {
  for (std::size_t i = 0; i < width; i += 8)
    store(out + i, silu(load(g + i)) * load(x + i));
}

}  // namespace

extern const Math kMath;
const Math kMath{matmul, attend, scan, conv4, norm, gate};

}  // namespace statecached::engine::STATECACHED_ENGINE_ISA

#pragma once
// How an engine lays a group's state out in its pages, as strides with roles, never by name; and
// the planner that turns "these pages, this object" into few pieces to copy. Pure: addresses are
// numbers.
//
// The object is contiguous. Its bytes follow the engine's own order of axes, with two rules:
// tensors stand one after the other, and in a token-major group the token is the outermost axis of
// all, so that the first n tokens are the first n * bytes_per_token() bytes.

#include "base/result.hpp"
#include "kernels/piece.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace statecached {

/// What an axis counts. `content` is whatever of a head or a state is left: its elements.
enum class Axis : std::uint8_t { layer, block, kv, token, head, content };
inline constexpr std::size_t kAxes = 6;

struct Dim {
  Axis role = Axis::content;
  std::uint64_t extent = 1;
  std::int64_t stride_bytes = 0;  ///< > 0; anything when extent is 1
};

/// One tensor of the engine, or a view of it: each role at most once, `block` exactly once.
struct TensorDesc {
  std::uint32_t region = 0;  ///< index into the table of base addresses
  std::uint64_t offset = 0;  ///< bytes from the base to the element at 0, 0, ...
  std::uint32_t element_bytes = 1;
  std::vector<Dim> dims;  ///< any order
};

/// Tokens [token, token + tokens) of the engine's page `block` are tokens from `object_token` of
/// the object. A checkpoint is one slice of its block; the token fields are ignored then.
struct PageSlice {
  std::uint64_t block = 0;
  std::uint32_t token = 0;
  std::uint32_t tokens = 0;
  std::uint32_t object_token = 0;
};

enum class Direction : std::uint8_t {
  gather,   ///< pages to object: saving
  scatter,  ///< object to pages: loading
};

/// A checked group of tensors and the object they make.
class GroupLayout {
 public:
  /// `region_bytes[r]` bounds what tensors of region r may address. `object_tokens` is the group's
  /// block size B, ignored without a token axis. Errors (invalid_argument) name the tensor: a role
  /// missing or twice, strides under which two elements share bytes, addresses outside the region,
  /// extents of blocks or tokens that differ between tensors, a token axis in only some.
  [[nodiscard]] static Result<GroupLayout> make(std::vector<TensorDesc> tensors,
                                                std::span<const std::uint64_t> region_bytes,
                                                std::uint32_t object_tokens,
                                                bool token_major);

  [[nodiscard]] std::uint64_t object_bytes() const noexcept { return object_bytes_; }

  /// Of all tensors together; 0 without a token axis.
  [[nodiscard]] std::uint64_t bytes_per_token() const noexcept { return bytes_per_token_; }

  [[nodiscard]] std::uint64_t blocks() const noexcept { return blocks_; }

  /// Tokens of one page of the engine; 0 without a token axis.
  [[nodiscard]] std::uint32_t page_tokens() const noexcept { return page_tokens_; }

  /// Where one element lies in the object; `at` is indexed by Axis, block ignored, token counted in
  /// the object. The definition that tests hold the planner to.
  [[nodiscard]] std::uint64_t object_offset(std::size_t tensor,
                                            std::span<const std::uint64_t, kAxes> at) const;

  /// Pieces for these slices, merged where runs touch on both sides, ordered by object address.
  /// Errors (invalid_argument): a block or a token outside the page or the object; a missing
  /// region.
  [[nodiscard]] Result<std::vector<Piece>> plan(
      std::span<const PageSlice> slices,
      Direction direction,
      std::uint64_t object_address,
      std::span<const std::uint64_t> region_address) const;

 private:
  struct Step {  ///< one axis of a tensor on both sides
    Axis role = Axis::content;
    std::uint64_t extent = 1;
    std::uint64_t page_stride = 0;
    std::uint64_t object_stride = 0;
  };

  struct Tensor {
    TensorDesc desc;
    std::uint64_t block_stride = 0;
    std::uint64_t object_base = 0;
    std::vector<Step> steps;  ///< outermost first in the object; no block axis
  };

  void place(bool token_major);
  [[nodiscard]] Result<> check_slice(const PageSlice& slice) const;
  static void expand(const Tensor& tensor,
                     const PageSlice& slice,
                     Direction direction,
                     std::uint64_t object_address,
                     std::uint64_t region_address,
                     std::vector<Piece>& out);

  std::vector<Tensor> tensors_;
  std::uint64_t object_bytes_ = 0;
  std::uint64_t bytes_per_token_ = 0;
  std::uint64_t blocks_ = 0;
  std::uint32_t page_tokens_ = 0;
  std::uint32_t object_tokens_ = 0;
};

/// Cuts pieces so that none moves more than `bytes_max`: even work for the blocks of a kernel.
/// `bytes_max` is a multiple of 16, so that no cut costs a row its alignment.
[[nodiscard]] std::vector<Piece> split(std::span<const Piece> pieces, std::uint32_t bytes_max);

/// Bytes that these pieces move.
[[nodiscard]] std::uint64_t bytes_of(std::span<const Piece> pieces) noexcept;

}  // namespace statecached

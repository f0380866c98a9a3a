#include "kernels/layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

namespace statecached {
namespace {

constexpr std::uint64_t kWord = std::numeric_limits<std::uint32_t>::max();
// Merged runs stay below this, a multiple of 16, so that Piece::bytes holds them.
constexpr std::uint64_t kRunMax = kWord - 15;
constexpr std::size_t kTensorsMax = 4096;  // bounds the sum of their sizes, and a planner's work

Result<> check_roles(const TensorDesc& tensor, std::size_t number) {
  std::array<int, kAxes> seen{};
  for (const Dim& dim : tensor.dims) {
    const auto role = static_cast<std::size_t>(dim.role);
    if (role >= kAxes || ++seen.at(role) > 1) {
      return fail(Errc::invalid_argument,
                  fmt::format("tensor {}: axis role {} is unknown or given twice", number, role));
    }
    if (dim.extent == 0 || (dim.extent > 1 && dim.stride_bytes <= 0)) {
      return fail(
          Errc::invalid_argument,
          fmt::format("tensor {}: axis {} has extent {} and stride {}; both must be positive",
                      number,
                      role,
                      dim.extent,
                      dim.stride_bytes));
    }
  }
  if (seen.at(static_cast<std::size_t>(Axis::block)) != 1) {
    return fail(Errc::invalid_argument, fmt::format("tensor {}: no block axis", number));
  }
  return {};
}

/// From the smallest stride up, each must step over all that is inside it: then no two elements
/// share a byte. Bounds follow from the same sum.
Result<> check_strides(const TensorDesc& tensor, std::size_t number, std::uint64_t region_bytes) {
  if (tensor.element_bytes == 0) {
    return fail(Errc::invalid_argument, fmt::format("tensor {}: elements of no bytes", number));
  }
  std::vector<Dim> dims = tensor.dims;
  std::erase_if(dims, [](const Dim& dim) { return dim.extent == 1; });
  std::ranges::sort(dims, {}, &Dim::stride_bytes);
  std::uint64_t span = tensor.element_bytes;
  for (const Dim& dim : dims) {
    const auto stride = static_cast<std::uint64_t>(dim.stride_bytes);
    if (stride < span) {
      return fail(Errc::invalid_argument,
                  fmt::format("tensor {}: stride {} of axis {} makes elements overlap",
                              number,
                              stride,
                              static_cast<int>(dim.role)));
    }
    std::uint64_t reach = 0;
    if (__builtin_mul_overflow(dim.extent - 1, stride, &reach) ||
        __builtin_add_overflow(span, reach, &span)) {
      return fail(Errc::invalid_argument, fmt::format("tensor {}: too large to address", number));
    }
  }
  if (span > region_bytes || tensor.offset > region_bytes - span) {
    return fail(Errc::invalid_argument,
                fmt::format("tensor {}: bytes {} to {} of a region of {}",
                            number,
                            tensor.offset,
                            tensor.offset + span,
                            region_bytes));
  }
  return {};
}

const Dim* find(const TensorDesc& tensor, Axis role) {
  const auto dim = std::ranges::find(tensor.dims, role, &Dim::role);
  return dim == tensor.dims.end() ? nullptr : &*dim;
}

/// One level of a strided box on both sides.
struct Level {
  std::uint64_t extent = 1;
  std::uint64_t page_stride = 0;
  std::uint64_t object_stride = 0;
};

/// Appends a level inside `levels` (outermost first), joined to the one around it where together
/// they are one longer level.
void push_level(std::vector<Level>& levels, const Level& level) {
  if (level.extent == 1) return;
  if (!levels.empty()) {
    Level& outer = levels.back();
    if (outer.page_stride == level.page_stride * level.extent &&
        outer.object_stride == level.object_stride * level.extent) {
      outer = {.extent = outer.extent * level.extent,
               .page_stride = level.page_stride,
               .object_stride = level.object_stride};
      return;
    }
  }
  levels.push_back(level);
}

struct Emitter {
  Direction direction;
  std::vector<Piece>& out;

  /// Rows too long or too far apart for a Piece's 32 bits become several.
  void rows(std::uint64_t page, std::uint64_t object, std::uint64_t bytes, Level level) const {
    const bool fits = bytes <= kRunMax && level.page_stride <= kWord &&
                      level.object_stride <= kWord && level.extent <= kWord;
    if (fits) return put(page, object, bytes, level);
    for (std::uint64_t row = 0; row < level.extent; ++row) {
      for (std::uint64_t at = 0; at < bytes; at += kRunMax) {
        put(page + row * level.page_stride + at,
            object + row * level.object_stride + at,
            std::min(kRunMax, bytes - at),
            {});
      }
    }
  }

  void put(std::uint64_t page,
           std::uint64_t object,
           std::uint64_t bytes,
           const Level& level) const {
    const bool gather = direction == Direction::gather;
    const auto page_stride = static_cast<std::uint32_t>(level.page_stride);
    const auto object_stride = static_cast<std::uint32_t>(level.object_stride);
    out.push_back({.dst = gather ? object : page,
                   .src = gather ? page : object,
                   .bytes = static_cast<std::uint32_t>(bytes),
                   .dst_stride = gather ? object_stride : page_stride,
                   .src_stride = gather ? page_stride : object_stride,
                   .count = static_cast<std::uint32_t>(level.extent)});
  }
};

/// Appends `next` to `piece` when its rows go on where those of `piece` end, on both sides.
bool merge(Piece& piece, const Piece& next) {
  const bool touches = next.dst == piece.dst + piece.bytes && next.src == piece.src + piece.bytes;
  const bool alike = next.count == piece.count && next.dst_stride == piece.dst_stride &&
                     next.src_stride == piece.src_stride;
  const std::uint64_t bytes = std::uint64_t{piece.bytes} + next.bytes;
  if (!touches || !alike || bytes > kRunMax) return false;
  piece.bytes = static_cast<std::uint32_t>(bytes);
  const bool dense = piece.count > 1 && piece.dst_stride == bytes && piece.src_stride == bytes;
  if (dense && bytes * piece.count <= kRunMax) {
    piece.bytes *= piece.count;
    piece.count = 1;
    piece.dst_stride = 0;
    piece.src_stride = 0;
  }
  return true;
}

void merge_all(std::vector<Piece>& pieces, Direction direction) {
  if (direction == Direction::gather) {
    std::ranges::sort(pieces, {}, &Piece::dst);
  } else {
    std::ranges::sort(pieces, {}, &Piece::src);
  }
  std::size_t kept = 0;
  for (const Piece& piece : pieces) {
    if (kept > 0 && merge(pieces[kept - 1], piece)) {
      // It may have become dense, and touch the one before it.
      while (kept > 1 && merge(pieces[kept - 2], pieces[kept - 1]))
        --kept;
      continue;
    }
    pieces[kept++] = piece;
  }
  pieces.resize(kept);
}

}  // namespace

Result<GroupLayout> GroupLayout::make(std::vector<TensorDesc> tensors,
                                      std::span<const std::uint64_t> region_bytes,
                                      std::uint32_t object_tokens,
                                      bool token_major) {
  if (tensors.empty() || tensors.size() > kTensorsMax) {
    return fail(Errc::invalid_argument,
                fmt::format("a group of {} tensors; 1 to {} can be", tensors.size(), kTensorsMax));
  }
  GroupLayout layout;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorDesc& tensor = tensors[i];
    if (tensor.region >= region_bytes.size()) {
      return fail(Errc::invalid_argument, fmt::format("tensor {}: no region {}", i, tensor.region));
    }
    SC_TRY(check_roles(tensor, i));
    SC_TRY(check_strides(tensor, i, region_bytes[tensor.region]));
    const Dim* const token = find(tensor, Axis::token);
    const std::uint64_t page_tokens = token == nullptr ? 0 : token->extent;
    const std::uint64_t blocks = find(tensor, Axis::block)->extent;
    if (page_tokens > kWord || (page_tokens > 0 && object_tokens == 0)) {
      return fail(
          Errc::invalid_argument,
          fmt::format("tensor {}: {} tokens a page, {} an object", i, page_tokens, object_tokens));
    }
    if (i > 0 && (blocks != layout.blocks_ || page_tokens != layout.page_tokens_)) {
      return fail(Errc::invalid_argument,
                  fmt::format("tensor {}: {} blocks of {} tokens, but tensor 0 has {} of {}",
                              i,
                              blocks,
                              page_tokens,
                              layout.blocks_,
                              layout.page_tokens_));
    }
    layout.blocks_ = blocks;
    layout.page_tokens_ = static_cast<std::uint32_t>(page_tokens);
    // The region bounds a page, not an object of many pages: this bounds every product in place().
    std::uint64_t elements = tensor.element_bytes;
    for (const Dim& dim : tensor.dims) {
      const bool counts = dim.role != Axis::block && dim.role != Axis::token;
      if (counts && __builtin_mul_overflow(elements, dim.extent, &elements)) {
        return fail(Errc::invalid_argument, fmt::format("tensor {}: too large to address", i));
      }
    }
    const std::uint64_t tokens = page_tokens > 0 ? object_tokens : 1;
    if (elements > (std::uint64_t{1} << 48U) / tokens) {
      return fail(Errc::invalid_argument,
                  fmt::format("tensor {}: an object of more than 256 TiB", i));
    }
  }
  layout.object_tokens_ = layout.page_tokens_ > 0 ? object_tokens : 0;
  for (TensorDesc& tensor : tensors)
    layout.tensors_.emplace_back().desc = std::move(tensor);
  layout.place(token_major && layout.page_tokens_ > 0);
  return layout;
}

void GroupLayout::place(bool token_major) {
  for (Tensor& tensor : tensors_) {
    for (const Dim& dim : tensor.desc.dims) {
      const auto stride = static_cast<std::uint64_t>(dim.extent > 1 ? dim.stride_bytes : 0);
      if (dim.role == Axis::block) {
        tensor.block_stride = stride;
      } else {
        tensor.steps.push_back({.role = dim.role,
                                .extent = dim.role == Axis::token ? object_tokens_ : dim.extent,
                                .page_stride = stride,
                                .object_stride = 0});
      }
    }
    // Outermost first as in the page; axes of one element have no place there and go by role.
    std::ranges::stable_sort(tensor.steps, [token_major](const Step& a, const Step& b) {
      if (token_major && (a.role == Axis::token) != (b.role == Axis::token))
        return a.role == Axis::token;
      return a.page_stride > b.page_stride;
    });
    std::uint64_t stride = tensor.desc.element_bytes;
    for (auto step = tensor.steps.rbegin(); step != tensor.steps.rend(); ++step) {
      step->object_stride = stride;
      stride *= step->extent;
    }
    tensor.object_base = object_bytes_;
    object_bytes_ += stride;
  }
  if (object_tokens_ > 0) bytes_per_token_ = object_bytes_ / object_tokens_;
  if (!token_major) return;
  std::uint64_t base = 0;
  for (Tensor& tensor : tensors_) {
    tensor.object_base = base;
    base += tensor.steps.front().object_stride;  // the token's: all of this tensor for one token
    tensor.steps.front().object_stride = bytes_per_token_;
  }
}

std::uint64_t GroupLayout::object_offset(std::size_t tensor,
                                         std::span<const std::uint64_t, kAxes> at) const {
  const Tensor& chosen = tensors_.at(tensor);
  std::uint64_t offset = chosen.object_base;
  for (const Step& step : chosen.steps) {
    offset += at[static_cast<std::size_t>(step.role)] * step.object_stride;
  }
  return offset;
}

Result<> GroupLayout::check_slice(const PageSlice& slice) const {
  if (slice.block >= blocks_) {
    return fail(Errc::invalid_argument, fmt::format("block {} of {}", slice.block, blocks_));
  }
  if (page_tokens_ == 0) return {};
  const std::uint64_t page_end = std::uint64_t{slice.token} + slice.tokens;
  const std::uint64_t object_end = std::uint64_t{slice.object_token} + slice.tokens;
  if (slice.tokens == 0 || page_end > page_tokens_ || object_end > object_tokens_) {
    return fail(Errc::invalid_argument,
                fmt::format("tokens {}+{} of a page of {}, at {} of an object of {}",
                            slice.token,
                            slice.tokens,
                            page_tokens_,
                            slice.object_token,
                            object_tokens_));
  }
  return {};
}

void GroupLayout::expand(const Tensor& tensor,
                         const PageSlice& slice,
                         Direction direction,
                         std::uint64_t object_address,
                         std::uint64_t region_address,
                         std::vector<Piece>& out) {
  std::uint64_t page = region_address + tensor.desc.offset + slice.block * tensor.block_stride;
  std::uint64_t object = object_address + tensor.object_base;
  std::vector<Level> levels;
  for (const Step& step : tensor.steps) {
    Level level{.extent = step.extent,
                .page_stride = step.page_stride,
                .object_stride = step.object_stride};
    if (step.role == Axis::token) {
      level.extent = slice.tokens;
      page += slice.token * step.page_stride;
      object += slice.object_token * step.object_stride;
    }
    push_level(levels, level);
  }
  std::uint64_t bytes = tensor.desc.element_bytes;
  if (!levels.empty() && levels.back().page_stride == bytes &&
      levels.back().object_stride == bytes) {
    bytes *= levels.back().extent;
    levels.pop_back();
  }
  Level rows;
  if (!levels.empty()) {
    rows = levels.back();
    levels.pop_back();
  }
  const Emitter emit{.direction = direction, .out = out};
  std::vector<std::uint64_t> index(levels.size(), 0);
  while (true) {
    emit.rows(page, object, bytes, rows);
    std::size_t level = levels.size();
    while (level > 0) {  // count up, the innermost level first
      const Level& at = levels[--level];
      if (++index[level] < at.extent) {
        page += at.page_stride;
        object += at.object_stride;
        break;
      }
      index[level] = 0;
      page -= (at.extent - 1) * at.page_stride;
      object -= (at.extent - 1) * at.object_stride;
      if (level == 0) return;
    }
    if (levels.empty()) return;
  }
}

Result<std::vector<Piece>> GroupLayout::plan(std::span<const PageSlice> slices,
                                             Direction direction,
                                             std::uint64_t object_address,
                                             std::span<const std::uint64_t> region_address) const {
  std::vector<Piece> pieces;
  for (const PageSlice& slice : slices)
    SC_TRY(check_slice(slice));
  for (const Tensor& tensor : tensors_) {
    if (tensor.desc.region >= region_address.size()) {
      return fail(Errc::invalid_argument,
                  fmt::format("no address for region {}", tensor.desc.region));
    }
    for (const PageSlice& slice : slices) {
      expand(tensor, slice, direction, object_address, region_address[tensor.desc.region], pieces);
    }
  }
  merge_all(pieces, direction);
  return pieces;
}

std::vector<Piece> split(std::span<const Piece> pieces, std::uint32_t bytes_max) {
  SC_ASSERT(bytes_max > 0 && bytes_max % 16 == 0);
  std::vector<Piece> out;
  for (const Piece& piece : pieces) {
    if (piece.bytes == 0) continue;
    const std::uint32_t rows_max = std::max(1U, bytes_max / piece.bytes);
    for (std::uint32_t row = 0; row < piece.count;) {
      const std::uint32_t rows = std::min(rows_max, piece.count - row);
      for (std::uint64_t at = 0; at < piece.bytes; at += bytes_max) {
        Piece part = piece;
        part.dst += std::uint64_t{row} * piece.dst_stride + at;
        part.src += std::uint64_t{row} * piece.src_stride + at;
        if (piece.bytes > bytes_max) {
          part.bytes =
              static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes_max, piece.bytes - at));
        }
        part.count = rows;
        if (rows == 1) part.dst_stride = part.src_stride = 0;
        out.push_back(part);
      }
      row += rows;
    }
  }
  return out;
}

std::uint64_t bytes_of(std::span<const Piece> pieces) noexcept {
  std::uint64_t bytes = 0;
  for (const Piece& piece : pieces)
    bytes += std::uint64_t{piece.bytes} * piece.count;
  return bytes;
}

}  // namespace statecached

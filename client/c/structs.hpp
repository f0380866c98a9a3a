#pragma once
// Structs of the C API with another size than ours: in and out.

#include "statecache/client.hpp"
#include "statecache/statecache.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

/// Returns what is not STATECACHE_OK.
#define SC_C_TRY(expression)                                                      \
  do {                                                                            \
    if (const statecache_code sc_code = (expression); sc_code != STATECACHE_OK) { \
      return sc_code;                                                             \
    }                                                                             \
  } while (false)

struct statecache_session {
  statecache::Session session;
};

namespace statecache::c {

/// Remembers the text for statecache_last_error() and returns the code.
statecache_code failed(statecache_code code, const char* text) noexcept;
statecache_code failed(const Status& status) noexcept;

inline statecache_code bad_argument(const char* text) noexcept {
  return failed(STATECACHE_INVALID_ARGUMENT, text);
}

inline statecache_code null_pointer() noexcept {
  return bad_argument("a null pointer");
}

/// Runs `call` (which returns a statecache_code); no exception leaves.
template <class Call>
statecache_code guarded(Call call) noexcept {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return failed(STATECACHE_NO_MEMORY, "out of memory");
  } catch (...) {
    return failed(STATECACHE_INTERNAL, "an exception inside the library");
  }
}

/// The size that the struct had when it was first released: nothing smaller is taken. Give the
/// number here when a struct grows.
template <class T>
inline constexpr std::uint32_t kFirstSize = sizeof(T);

/// Copies a caller's struct of its own size over ours, which holds the defaults.
template <class T>
statecache_code take(const void* from, std::uint32_t size, T& out) noexcept {
  if (size < kFirstSize<T> || size > 65536) {
    return bad_argument("a struct_size that is too small: use the _INIT macros");
  }
  const auto* bytes = static_cast<const unsigned char*>(from);
  const bool unknown = std::any_of(bytes + std::min<std::size_t>(size, sizeof(T)),
                                   bytes + size,
                                   [](unsigned char b) { return b != 0; });
  if (unknown)
    return failed(STATECACHE_UNSUPPORTED, "a struct with fields that this library does not know");
  std::memcpy(&out, from, std::min<std::size_t>(size, sizeof(T)));
  return STATECACHE_OK;
}

template <class T>
statecache_code take(const T* from, T& out) noexcept {
  if (from == nullptr) return null_pointer();
  return take<T>(from, from->struct_size, out);
}

/// An array of them: all have the size of the first.
template <class T>
statecache_code take_all(const T* from, std::size_t count, std::vector<T>& out) {
  out.clear();
  if (count == 0) return STATECACHE_OK;
  if (from == nullptr) return bad_argument("a null array");
  const std::uint32_t stride = from->struct_size;
  out.resize(count);
  const auto* at = reinterpret_cast<const unsigned char*>(from);
  for (T& item : out) {
    SC_C_TRY(take<T>(at, stride, item));
    if (item.struct_size != stride) {
      return bad_argument("elements of an array with different struct_size");
    }
    at += stride;
  }
  return STATECACHE_OK;
}

/// The head of a caller's output struct, so that what it knows can be written back.
template <class T>
statecache_code open_output(T* to, T& ours) noexcept {
  return take<T>(to, ours);
}

template <class T>
void write_output(const T& ours, T* to) noexcept {
  const std::uint32_t size = to->struct_size;
  std::memcpy(to, &ours, std::min<std::size_t>(size, sizeof(T)));
  to->struct_size = size;
}

/// Elements at the caller's stride.
template <class T>
class Rows {
 public:
  Rows(std::uint32_t stride, std::size_t count) : stride_(stride), bytes_(stride * count) {}

  void put(std::size_t i, T row) noexcept {
    row.struct_size = stride_;
    std::memcpy(bytes_.data() + i * stride_, &row, std::min<std::size_t>(stride_, sizeof(T)));
  }

  [[nodiscard]] const T* data() const noexcept {
    return bytes_.empty() ? nullptr : reinterpret_cast<const T*>(bytes_.data());
  }

  [[nodiscard]] static bool fits(std::uint32_t stride) noexcept {
    return stride >= kFirstSize<T> && stride <= 65536 && stride % alignof(T) == 0;
  }

 private:
  std::uint32_t stride_;
  std::vector<unsigned char> bytes_;
};

inline Digest to_digest(const statecache_digest& from) noexcept {
  Digest out;
  std::memcpy(out.data(), from.bytes, out.size());
  return out;
}

inline Micros to_micros(std::int64_t us) noexcept {
  return Micros(std::max<std::int64_t>(us, 0));
}

}  // namespace statecache::c

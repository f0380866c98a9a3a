#pragma once
// Errors as values. A function that can fail for reasons outside the program returns Result<T>;
// ordinary outcomes (miss, full, busy) are part of its value, never an Error; a broken assumption
// of our own is SC_ASSERT, which stays on in release builds.

#include <tl/expected.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace statecached {

/// What kind of failure it is. Numbers are stable: they travel on the wire and are the C API's
/// codes.
enum class Errc : std::uint16_t {
  ok = 0,
  invalid_argument = 1,  ///< the caller passed something that can never work
  not_found = 2,         ///< a named thing does not exist
  already_exists = 3,    ///< a named thing exists and must not
  no_space = 4,          ///< out of capacity, quota or descriptors
  permission = 5,        ///< the caller may not do this
  unsupported = 6,       ///< this machine, kernel or build cannot do it
  io = 7,                ///< a system call failed
  corrupt = 8,           ///< bytes do not have the form or the checksum they must have
  version = 9,           ///< the other side, or a file, speaks another version
  closed = 10,           ///< the other side has gone
  timeout = 11,          ///< the deadline passed
  busy = 12,             ///< somebody else holds it
  internal = 13,
};

/// A short stable name, for logs and JSON.
[[nodiscard]] std::string_view to_string(Errc code) noexcept;

/// What failed, in words that say what to do. `os` is an errno or 0.
struct Error {
  Errc code = Errc::internal;
  int os = 0;
  std::string text;

  /// "text: strerror (code)".
  [[nodiscard]] std::string message() const;
};

template <class T = void>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

[[nodiscard]] inline tl::unexpected<Error> fail(Errc code, std::string text, int os = 0) {
  return tl::unexpected<Error>(Error{code, os, std::move(text)});
}

/// An Errc::io error (or the nearest code for this errno) from the current errno.
[[nodiscard]] tl::unexpected<Error> fail_errno(std::string text);
[[nodiscard]] tl::unexpected<Error> fail_errno(std::string text, int os);

[[noreturn]] inline void assertion_failed(const char* what, const char* file, int line) noexcept {
  std::fprintf(stderr, "statecached: assertion failed: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace statecached

#define SC_ASSERT(condition)                           \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::statecached::assertion_failed(#condition, __FILE__, __LINE__))

#define SC_CONCAT_(a, b) a##b
#define SC_CONCAT(a, b) SC_CONCAT_(a, b)
/// Returns the error of a Result from the enclosing function.
#define SC_TRY(expression)                                                       \
  do {                                                                           \
    if (auto sc_result = (expression); !sc_result) {                             \
      return tl::unexpected<::statecached::Error>(std::move(sc_result.error())); \
    }                                                                            \
  } while (false)
/// SC_ASSIGN(auto x, expression): declares or assigns the value, or returns the error.
#define SC_ASSIGN(target, expression) \
  SC_ASSIGN_IMPL_(SC_CONCAT(sc_result_, __LINE__), target, expression)
#define SC_ASSIGN_IMPL_(name, target, expression)                                  \
  auto name = (expression);                                                        \
  if (!name) return tl::unexpected<::statecached::Error>(std::move(name.error())); \
  target = std::move(*name)

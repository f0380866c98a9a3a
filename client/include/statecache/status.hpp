#pragma once
// Errors as values. Nothing in this library throws on its own account; out of memory ends the
// process.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace statecache {

/// Numbers are stable: they are the wire's and the C API's codes.
enum class Errc : std::uint16_t {
  ok = 0,
  invalid_argument = 1,  ///< can never work
  not_found = 2,         ///< no such ticket or name
  already_exists = 3,
  no_space = 4,  ///< out of capacity, quota or descriptors
  permission = 5,
  unsupported = 6,  ///< this build, machine or daemon cannot do it
  io = 7,           ///< a system call failed
  corrupt = 8,      ///< the daemon sent what it must not send
  version = 9,      ///< the daemon speaks another version
  closed = 10,      ///< the daemon has gone, or the handle crossed a fork: compute it
  timeout = 11,
  busy = 12,  ///< the ring is full, or the answer is not there yet: compute it, or ask again
  internal = 13,
};

struct [[nodiscard]] Status {
  Errc code = Errc::ok;
  std::string text;  ///< empty when ok

  [[nodiscard]] bool ok() const noexcept { return code == Errc::ok; }

  explicit operator bool() const noexcept { return ok(); }
};

/// A value or the Status that says why there is none. Taking the value of a failure aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<1>, std::move(value)) {}

  Result(Status error) : state_(std::in_place_index<0>, std::move(error)) {}

  [[nodiscard]] bool ok() const noexcept { return state_.index() == 1; }

  explicit operator bool() const noexcept { return ok(); }

  [[nodiscard]] T& value() & noexcept { return *checked(std::get_if<1>(&state_)); }

  [[nodiscard]] const T& value() const& noexcept { return *checked(std::get_if<1>(&state_)); }

  [[nodiscard]] T&& value() && noexcept { return std::move(*checked(std::get_if<1>(&state_))); }

  [[nodiscard]] T& operator*() & noexcept { return value(); }

  [[nodiscard]] const T& operator*() const& noexcept { return value(); }

  [[nodiscard]] T&& operator*() && noexcept { return std::move(*this).value(); }

  [[nodiscard]] T* operator->() noexcept { return &value(); }

  [[nodiscard]] const T* operator->() const noexcept { return &value(); }

  /// Ok when there is a value.
  [[nodiscard]] Status status() const {
    const Status* error = std::get_if<0>(&state_);
    return error == nullptr ? Status{} : *error;
  }

 private:
  template <class P>
  static P* checked(P* p) noexcept {
    if (p == nullptr) std::abort();
    return p;
  }

  std::variant<Status, T> state_;
};

}  // namespace statecache

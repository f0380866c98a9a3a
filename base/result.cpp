#include "base/result.hpp"

#include <cerrno>
#include <cstring>

namespace statecached {

std::string_view to_string(Errc code) noexcept {
  switch (code) {
    case Errc::ok:
      return "ok";
    case Errc::invalid_argument:
      return "invalid_argument";
    case Errc::not_found:
      return "not_found";
    case Errc::already_exists:
      return "already_exists";
    case Errc::no_space:
      return "no_space";
    case Errc::permission:
      return "permission";
    case Errc::unsupported:
      return "unsupported";
    case Errc::io:
      return "io";
    case Errc::corrupt:
      return "corrupt";
    case Errc::version:
      return "version";
    case Errc::closed:
      return "closed";
    case Errc::timeout:
      return "timeout";
    case Errc::busy:
      return "busy";
    case Errc::internal:
      return "internal";
  }
  return "unknown";
}

std::string Error::message() const {
  std::string out = text;
  if (os != 0) {
    out += ": ";
    out += std::strerror(os);
  }
  out += " (";
  out += to_string(code);
  out += ")";
  return out;
}

tl::unexpected<Error> fail_errno(std::string text) {
  return fail_errno(std::move(text), errno);
}

tl::unexpected<Error> fail_errno(std::string text, int os) {
  Errc code = Errc::io;
  if (os == ENOENT) code = Errc::not_found;
  if (os == EEXIST) code = Errc::already_exists;
  if (os == ENOSPC || os == ENOMEM || os == EMFILE || os == ENFILE || os == EDQUOT)
    code = Errc::no_space;
  if (os == EACCES || os == EPERM) code = Errc::permission;
  if (os == EOPNOTSUPP || os == ENOSYS) code = Errc::unsupported;
  return fail(code, std::move(text), os);
}

}  // namespace statecached

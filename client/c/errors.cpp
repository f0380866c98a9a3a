#include "client/c/structs.hpp"

#include <cstdio>

namespace statecache::c {
namespace {

// Fixed room: saying what is wrong needs no memory.
thread_local char last_error[512] = "";

}  // namespace

statecache_code failed(statecache_code code, const char* text) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", text);
  return code;
}

statecache_code failed(const Status& status) noexcept {
  if (status.ok()) return STATECACHE_OK;
  return failed(static_cast<statecache_code>(status.code), status.text.c_str());
}

}  // namespace statecache::c

extern "C" const char* statecache_last_error(void) noexcept {
  return statecache::c::last_error;
}

extern "C" const char* statecache_version(void) noexcept {
  return STATECACHED_VERSION;
}

extern "C" const char* statecache_strerror(statecache_code code) noexcept {
  switch (code) {
    case STATECACHE_OK:
      return "ok";
    case STATECACHE_INVALID_ARGUMENT:
      return "invalid argument";
    case STATECACHE_NOT_FOUND:
      return "not found";
    case STATECACHE_ALREADY_EXISTS:
      return "already exists";
    case STATECACHE_NO_SPACE:
      return "no space";
    case STATECACHE_PERMISSION:
      return "permission denied";
    case STATECACHE_UNSUPPORTED:
      return "not supported";
    case STATECACHE_IO:
      return "input/output error";
    case STATECACHE_CORRUPT:
      return "the daemon sent what it must not send";
    case STATECACHE_VERSION:
      return "another protocol version";
    case STATECACHE_CLOSED:
      return "the daemon has gone";
    case STATECACHE_TIMEOUT:
      return "timed out";
    case STATECACHE_BUSY:
      return "busy";
    case STATECACHE_INTERNAL:
      return "internal error";
    case STATECACHE_NO_MEMORY:
      return "out of memory";
  }
  return "unknown code";
}

#include "base/log.hpp"

#include <atomic>
#include <cstdio>

namespace statecached::log {
namespace {

void to_stderr(Level level, std::string_view text) {
  if (level < Level::warn) return;
  // One call, so that lines of different threads do not mix.
  std::fprintf(stderr,
               "statecached: %s: %.*s\n",
               level == Level::warn ? "warning" : "error",
               static_cast<int>(text.size()),
               text.data());
}

std::atomic<Sink> g_sink{&to_stderr};

}  // namespace

void set_sink(Sink sink) noexcept {
  g_sink.store(sink != nullptr ? sink : &to_stderr, std::memory_order_release);
}

void write(Level level, std::string_view text) {
  g_sink.load(std::memory_order_acquire)(level, text);
}

}  // namespace statecached::log

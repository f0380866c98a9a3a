#include "daemon/log_sink.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <string>

namespace statecached {
namespace {

spdlog::level::level_enum level_of(log::Level level) {
  switch (level) {
    case log::Level::debug:
      return spdlog::level::debug;
    case log::Level::info:
      return spdlog::level::info;
    case log::Level::warn:
      return spdlog::level::warn;
    case log::Level::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

void write_text(log::Level level, std::string_view text) {
  spdlog::log(level_of(level), "{}", text);
}

/// Log text may carry names that clients chose: nothing in it may end the string or the line.
std::string escaped(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 8);
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out;
}

void write_json(log::Level level, std::string_view text) {
  spdlog::log(level_of(level), "{}", escaped(text));
}

}  // namespace

void start_log(LogFormat format, log::Level level) {
  auto logger = std::make_shared<spdlog::logger>("statecached",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(level_of(level));
  logger->flush_on(spdlog::level::debug);
  logger->set_pattern(format == LogFormat::json
                          ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","text":"%v"})"
                          : "%Y-%m-%d %H:%M:%S.%e %L %v");
  spdlog::set_default_logger(std::move(logger));
  log::set_sink(format == LogFormat::json ? write_json : write_text);
}

}  // namespace statecached

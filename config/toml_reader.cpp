#include "config/toml_reader.hpp"

#include <fmt/format.h>

#include <algorithm>

#define TOML_EXCEPTIONS 0
// The library asserts on some malformed keys before it reports them: the report is what is wanted.
#define TOML_ASSERT(condition) static_cast<void>(0)
#define TOML_ENABLE_FORMATTERS 0
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#include <toml++/toml.h>
#pragma GCC diagnostic pop

namespace statecached::config {
namespace {

Value to_value(const toml::node& node) {
  Value out;
  if (const auto* text = node.as_string()) {
    out.kind = Value::Kind::string;
    out.text = text->get();
  } else if (const auto* integer = node.as_integer()) {
    out.kind = Value::Kind::integer;
    out.integer = integer->get();
  } else if (const auto* real = node.as_floating_point()) {
    out.kind = Value::Kind::real;
    out.real = real->get();
  } else if (const auto* boolean = node.as_boolean()) {
    out.kind = Value::Kind::boolean;
    out.boolean = boolean->get();
  } else if (const auto* array = node.as_array()) {
    out.kind = Value::Kind::list;
    for (const toml::node& item : *array) {
      if (const auto* item_text = item.as_string())
        out.list.push_back(item_text->get());
      else
        out.kind = Value::Kind::other;
    }
  }
  return out;
}

void flatten(const toml::table& table,
             const std::vector<std::string>& above,
             std::vector<Entry>& out) {
  for (const auto& [key, node] : table) {
    Entry entry;
    entry.path = above;
    entry.path.emplace_back(key.str());
    entry.line = key.source().begin.line;
    const toml::table* inner = node.as_table();
    if (inner != nullptr && !inner->empty()) {
      flatten(*inner, entry.path, out);
      continue;
    }
    entry.value = to_value(node);
    if (inner != nullptr) entry.value.kind = Value::Kind::table;
    out.push_back(std::move(entry));
  }
}

}  // namespace

Result<std::vector<Entry>> read_toml(std::string_view text, const std::string& file) {
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return fail(Errc::invalid_argument,
                fmt::format("{}:{}: {}", file, error.source().begin.line, error.description()));
  }
  std::vector<Entry> out;
  flatten(parsed.table(), {}, out);
  std::stable_sort(
      out.begin(), out.end(), [](const Entry& a, const Entry& b) { return a.line < b.line; });
  return out;
}

}  // namespace statecached::config

#include "config/field.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace statecached::config {
namespace {

tl::unexpected<Error> wrong(std::string text) {
  return fail(Errc::invalid_argument, std::move(text));
}

/// A whole number, as TOML's integer or as bare text.
bool read_integer(const Value& value, std::int64_t& out) {
  if (value.kind == Value::Kind::integer) {
    out = value.integer;
    return true;
  }
  if (value.kind != Value::Kind::bare) return false;
  const char* const end = value.text.data() + value.text.size();
  const auto [p, error] = std::from_chars(value.text.data(), end, out);
  return error == std::errc{} && p == end;
}

bool read_real(const Value& value, double& out) {
  if (value.kind == Value::Kind::real)
    out = value.real;
  else if (value.kind == Value::Kind::integer)
    out = static_cast<double>(value.integer);
  else if (value.kind == Value::Kind::bare) {
    const char* const end = value.text.data() + value.text.size();
    const auto [p, error] = std::from_chars(value.text.data(), end, out);
    if (error != std::errc{} || p != end) return false;
  } else {
    return false;
  }
  return std::isfinite(out);
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    out.emplace_back(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
  }
  return out;
}

}  // namespace

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

Field text_field(std::string& member) {
  return {[&member](const Value& value) -> Result<> {
            if (!value.is_text()) return wrong("must be a string");
            if (value.text.find('\0') != std::string::npos)
              return wrong("must not contain a zero byte");
            member = value.text;
            return {};
          },
          [&member] { return quote(member); }};
}

Field list_field(std::vector<std::string>& member) {
  return {[&member](const Value& value) -> Result<> {
            std::vector<std::string> items = value.list;
            if (value.kind == Value::Kind::bare) {
              if (value.text.starts_with('['))
                return wrong("is written with commas on the command line: a,b");
              items = split(value.text);
            } else if (value.kind != Value::Kind::list) {
              return wrong("must be a list of strings");
            }
            for (const std::string& item : items) {
              if (item.empty() || item.find('\0') != std::string::npos)
                return wrong("has an empty item or a zero byte");
              if (std::count(items.begin(), items.end(), item) != 1)
                return wrong(fmt::format("names '{}' twice", item));
            }
            member = std::move(items);
            return {};
          },
          [&member] {
            std::vector<std::string> quoted;
            for (const std::string& item : member)
              quoted.push_back(quote(item));
            return fmt::format("[{}]", fmt::join(quoted, ", "));
          }};
}

Field bool_field(bool& member) {
  return {[&member](const Value& value) -> Result<> {
            if (value.kind == Value::Kind::boolean)
              member = value.boolean;
            else if (value.kind == Value::Kind::bare &&
                     (value.text == "true" || value.text == "false")) {
              member = value.text == "true";
            } else {
              return wrong("must be true or false");
            }
            return {};
          },
          [&member] { return std::string(member ? "true" : "false"); }};
}

Field number_field(std::uint32_t& member, std::uint32_t least, std::uint32_t most) {
  return {[&member, least, most](const Value& value) -> Result<> {
            std::int64_t number = 0;
            if (!read_integer(value, number) || number < least || number > most) {
              return wrong(fmt::format("must be a whole number from {} to {}", least, most));
            }
            member = static_cast<std::uint32_t>(number);
            return {};
          },
          [&member] { return fmt::format("{}", member); }};
}

Field mode_field(std::uint32_t& member) {
  return {[&member](const Value& value) -> Result<> {
            std::uint32_t mode = 0;
            const char* const end = value.text.data() + value.text.size();
            const auto [p, error] = std::from_chars(value.text.data(), end, mode, 8);
            if (!value.is_text() || error != std::errc{} || p != end || mode > 0777) {
              return wrong("must be a file mode in octal, such as \"0660\"");
            }
            member = mode;
            return {};
          },
          [&member] { return fmt::format("\"{:04o}\"", member); }};
}

Field node_field(std::int32_t& member) {
  return {[&member](const Value& value) -> Result<> {
            std::int64_t number = -1;
            const bool automatic = value.is_text() && value.text == "auto";
            if (!automatic && (!read_integer(value, number) || number < 0 || number > 1023)) {
              return wrong("must be \"auto\" or the number of a node");
            }
            member = static_cast<std::int32_t>(number);
            return {};
          },
          [&member] { return member < 0 ? std::string("\"auto\"") : fmt::format("{}", member); }};
}

Field duration_field(Nanos& member, Nanos least, Nanos most) {
  return {[&member, least, most](const Value& value) -> Result<> {
            if (!value.is_text()) return wrong("must be a time in quotes, such as \"30s\"");
            SC_ASSIGN(const Nanos time, parse_duration(value.text));
            if (time < least || time > most) {
              return wrong(fmt::format("must be from {} to {}, not {}",
                                       format_duration(least),
                                       format_duration(most),
                                       value.text));
            }
            member = time;
            return {};
          },
          [&member] { return fmt::format("\"{}\"", format_duration(member)); }};
}

Field positive_field(double& member) {
  return {[&member](const Value& value) -> Result<> {
            double number = 0;
            if (!read_real(value, number) || number <= 0) return wrong("must be a number above 0");
            member = number;
            return {};
          },
          [&member] { return fmt::format("{}", member); }};
}

Field optional_real_field(std::optional<double>& member) {
  return {[&member](const Value& value) -> Result<> {
            double number = 0;
            if (value.is_text() && value.text == "auto") {
              member.reset();
              return {};
            }
            if (!read_real(value, number) || number < 0)
              return wrong("must be \"auto\" or a number of at least 0");
            member = number;
            return {};
          },
          [&member] { return member ? fmt::format("{}", *member) : std::string("\"auto\""); }};
}

Field size_field(std::uint64_t& member,
                 std::uint64_t least,
                 std::uint64_t most,
                 std::string_view word,
                 std::uint64_t special) {
  return {
      [&member, least, most, word, special](const Value& value) -> Result<> {
        if (!word.empty() && value.is_text() && value.text == word) {
          member = special;
          return {};
        }
        std::uint64_t bytes = 0;
        if (value.kind == Value::Kind::integer && value.integer >= 0) {
          bytes = static_cast<std::uint64_t>(value.integer);
        } else if (value.is_text()) {
          SC_ASSIGN(bytes, parse_size(value.text));
        } else {
          return wrong("must be a size, such as \"512 MiB\"");
        }
        const bool zero_is_fine = least == 0 || (word.empty() && bytes == 0);
        if ((bytes < least && !zero_is_fine) || bytes > most) {
          return wrong(fmt::format("must be {}{} to {}, not {}",
                                   word.empty() ? "0 or " : "",
                                   format_size(least),
                                   format_size(most),
                                   format_size(bytes)));
        }
        member = bytes;
        return {};
      },
      [&member, word, special] {
        return quote(!word.empty() && member == special ? std::string(word) : format_size(member));
      }};
}

Field choice_field(std::function<std::size_t()> get,
                   std::function<void(std::size_t)> set,
                   Choices choices) {
  return {[set = std::move(set), choices](const Value& value) -> Result<> {
            // TOML writers put true and false where the words are on and off.
            std::string word = value.is_text() ? value.text : "";
            if (value.kind == Value::Kind::boolean) word = value.boolean ? "on" : "off";
            const auto found = std::find(choices.begin(), choices.end(), word);
            if (found == choices.end())
              return wrong(fmt::format("must be one of {}", fmt::join(choices, ", ")));
            set(static_cast<std::size_t>(found - choices.begin()));
            return {};
          },
          [get = std::move(get), choices] { return quote(choices[get()]); }};
}

}  // namespace statecached::config

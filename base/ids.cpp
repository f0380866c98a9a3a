#include "base/ids.hpp"

#include <string_view>

namespace statecached {
namespace {

void append_hex(std::string& out, unsigned value) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  out += kDigits[value >> 4U];
  out += kDigits[value & 15U];
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool parse_bytes(std::string_view text, std::byte* out, std::size_t bytes) noexcept {
  if (text.size() != bytes * 2) return false;
  for (std::size_t i = 0; i < bytes; ++i) {
    const int high = hex_digit(text[2 * i]);
    const int low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<std::byte>(high * 16 + low);
  }
  return true;
}

}  // namespace

std::string to_hex(const Digest& digest, std::size_t bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes && i < digest.bytes.size(); ++i) {
    append_hex(out, std::to_integer<unsigned>(digest.bytes[i]));
  }
  return out;
}

std::string to_hex(const Id128& id) {
  std::array<std::byte, 16> raw{};
  std::memcpy(raw.data(), &id, sizeof id);
  std::string out;
  for (std::byte b : raw)
    append_hex(out, std::to_integer<unsigned>(b));
  return out;
}

bool parse_hex(std::string_view text, Id128& out) noexcept {
  std::array<std::byte, 16> raw{};
  if (!parse_bytes(text, raw.data(), raw.size())) return false;
  std::memcpy(&out, raw.data(), sizeof out);
  return true;
}

bool parse_hex(std::string_view text, Digest& out) noexcept {
  return parse_bytes(text, out.bytes.data(), out.bytes.size());
}

}  // namespace statecached

#pragma once
// What is fuzzed: every parser of bytes that come from somebody else. A target returns normally for
// any bytes; it aborts (SC_ASSERT, a sanitizer, must()) on a finding.

#include <cstddef>
#include <cstdlib>
#include <span>

namespace statecached::fuzz {

/// A finding: an answer that is wrong, not only a crash.
inline void must(bool condition) {
  if (!condition) std::abort();
}

/// Control-plane messages in both directions; what decodes must encode and decode to itself.
void control(std::span<const std::byte> bytes);
/// One ring record and its payload, through every decoder of the daemon.
void records(std::span<const std::byte> bytes);
/// A channel's shared memory overwritten with the bytes, seen by both ends.
void channel(std::span<const std::byte> bytes);
/// Records, one after another, from a client to a conductor with a cache; its ledgers must add up.
void conductor(std::span<const std::byte> bytes);
/// Catalog rows: plain bytes, and bytes under a checksum that fits.
void catalog(std::span<const std::byte> bytes);
void toml(std::span<const std::byte> bytes);
/// A trace file of any form.
void trace(std::span<const std::byte> bytes);

}  // namespace statecached::fuzz

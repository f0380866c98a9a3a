#pragma once
// A daemon, and engines of the tiny model attached to it.

#include "tests/engine/conversations.hpp"
#include "tests/support/daemon_process.hpp"

#include <cstdlib>
#include <optional>

namespace statecached::test {

/// How many times as much as ./check runs: STATECACHED_ENGINE_SCALE. Sanitised builds do a part.
inline std::uint64_t scaled(std::uint64_t count) {
  const char* text = std::getenv("STATECACHED_ENGINE_SCALE");
  const std::uint64_t scale = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
#ifdef __SANITIZE_ADDRESS__
  count = count / 8 + 1;
#endif
  return count * std::max<std::uint64_t>(scale, 1);
}

inline statecache::Result<statecache::Session> attach(const std::string& socket,
                                                      std::uint64_t name,
                                                      std::uint32_t rank = 0,
                                                      std::uint32_t world = 1) {
  statecache::Member member;
  std::memcpy(member.engine.data(), &name, sizeof name);
  member.rank = static_cast<std::uint16_t>(rank);
  member.world = static_cast<std::uint16_t>(world);
  if (world > 1) member.shard.assign(3, static_cast<std::uint16_t>(rank));
  member.program = "exactness test";
  return statecache::Session::attach(
      socket,
      engine::namespace_of(engine::ModelConfig::tiny(), world, Conversations::kBlock),
      member,
      std::chrono::seconds(20));
}

/// Tiers that hold a few conversations: everything is evicted and demoted all the time.
inline std::vector<std::string> tight() {
  return {"host.capacity=2MiB", "nvme.capacity=16MiB", "policy.engine_tflops=0.01"};
}

}  // namespace statecached::test

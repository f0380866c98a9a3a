#pragma once
// The device tier's memory. This build has one backend, `emulated`: ordinary shared memory that
// stands for a GPU's, so that everything about three tiers runs and is tested without one.
//
// Threads, ownership, units: as tiers/host/arena.hpp.

#include "base/result.hpp"
#include "tiers/host/arena.hpp"

#include <cstdint>
#include <string_view>

namespace statecached {

enum class DeviceBackend : std::uint8_t { none, emulated };
[[nodiscard]] std::string_view to_string(DeviceBackend backend) noexcept;

/// What the setting `auto | cuda | emulated | none` comes to on this machine and in this build.
/// `auto` never picks the emulation: it would take host memory to no gain. Errors: unsupported
/// (cuda), invalid_argument (another word).
[[nodiscard]] Result<DeviceBackend> device_backend(std::string_view wish);

/// A region that stands for one GPU's memory.
class EmulatedDevice {
 public:
  /// Errors as Arena::create.
  [[nodiscard]] static Result<EmulatedDevice> create(std::uint64_t bytes,
                                                     HugePages huge_pages = HugePages::automatic);

  [[nodiscard]] std::byte* data() const noexcept { return memory_.data(); }

  [[nodiscard]] std::uint64_t bytes() const noexcept { return memory_.bytes(); }

  [[nodiscard]] Result<UniqueFd> read_only_fd() const { return memory_.read_only_fd(); }

  [[nodiscard]] Result<UniqueFd> writable_fd() const { return memory_.writable_fd(); }

 private:
  explicit EmulatedDevice(Arena memory) noexcept : memory_(std::move(memory)) {}

  Arena memory_;
};

}  // namespace statecached

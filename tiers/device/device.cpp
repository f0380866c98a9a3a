#include "tiers/device/device.hpp"

#include <fmt/format.h>

namespace statecached {

std::string_view to_string(DeviceBackend backend) noexcept {
  return backend == DeviceBackend::emulated ? "emulated" : "none";
}

Result<DeviceBackend> device_backend(std::string_view wish) {
  if (wish == "none" || wish == "auto") return DeviceBackend::none;
  if (wish == "emulated") return DeviceBackend::emulated;
  if (wish == "cuda") {
    return fail(
        Errc::unsupported,
        "device backend \"cuda\": this build holds no state in GPU memory; \"emulated\" runs "
        "the device tier in host memory, for tests, and \"none\" leaves it out");
  }
  return fail(Errc::invalid_argument,
              fmt::format("device backend \"{}\" is not one of auto, cuda, emulated, none", wish));
}

Result<EmulatedDevice> EmulatedDevice::create(std::uint64_t bytes, HugePages huge_pages) {
  SC_ASSIGN(
      Arena memory,
      Arena::create({.bytes = bytes, .huge_pages = huge_pages, .name = "statecached-device"}));
  return EmulatedDevice(std::move(memory));
}

}  // namespace statecached

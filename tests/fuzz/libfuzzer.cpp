// One target as a libFuzzer program: preset `fuzz`, clang. STATECACHED_FUZZ_TARGET names the
// function.

#include "tests/fuzz/targets.hpp"

#include <cstdint>

/// libcrypto keeps an error state for each thread that ever used it; the conductor's ends with its
/// target.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libcrypto";
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  statecached::fuzz::STATECACHED_FUZZ_TARGET(std::as_bytes(std::span(data, size)));
  return 0;
}

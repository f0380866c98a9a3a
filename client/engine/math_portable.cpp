// The kernels for any processor, and the choice among what was built.

#define STATECACHED_ENGINE_ISA portable
#include "client/engine/math_body.hpp"

namespace statecached::engine {

#ifdef STATECACHED_ENGINE_AVX2
namespace avx2 {
extern const Math kMath;
}
#endif

const Math& portable_math() {
  return portable::kMath;
}

const Math& math() {
#ifdef STATECACHED_ENGINE_AVX2
  static const bool kHasIt = __builtin_cpu_supports("avx2") != 0;
  if (kHasIt) return avx2::kMath;
#endif
  return portable::kMath;
}

}  // namespace statecached::engine

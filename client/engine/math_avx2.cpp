// The kernels for processors with AVX2 (compiled with -mavx2). Nothing else belongs in this file.

#define STATECACHED_ENGINE_ISA avx2
#define STATECACHED_ENGINE_ISA_NAME "avx2"
#include "client/engine/math_body.hpp"

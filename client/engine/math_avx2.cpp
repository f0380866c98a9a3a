// The kernels for processors with AVX2 (compiled with -mavx2). Nothing else belongs in this file.

#define STATECACHED_ENGINE_ISA avx2
#include "client/engine/math_body.hpp"

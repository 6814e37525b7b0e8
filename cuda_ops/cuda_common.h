// What both .cu files share: half types, dtype codes, grid sizes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "common.h"

namespace rtil {

template <> struct Wide<__half> { using type = float; };
template <> struct Wide<__nv_bfloat16> { using type = float; };
template <> RTIL_FN float widen<__half>(__half v) { return __half2float(v); }
template <> RTIL_FN float widen<__nv_bfloat16>(__nv_bfloat16 v) { return __bfloat162float(v); }
template <> RTIL_FN __half narrow<__half>(float v) { return __float2half_rn(v); }
template <> RTIL_FN __nv_bfloat16 narrow<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }

// Codes of rtil/kernels/dispatch.py.
enum Dtype { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 3 };

constexpr int THREADS = 256;

// Blocks for `work` threads' worth: every thread its own piece, up to the grid limit; the kernels
// stride over what is left.
inline unsigned blocks_for(int64_t work, int64_t per_block) {
    const int64_t blocks = (work + per_block - 1) / per_block, limit = int64_t(1) << 30;
    return unsigned(blocks < limit ? blocks : limit);
}

}  // namespace rtil

// The name ctypes finds.
#define RTIL_EXPORT extern "C" __attribute__((visibility("default")))

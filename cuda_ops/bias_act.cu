// Launchers of bias_act: a plain C interface, called through ctypes with torch's pointers.
#include "bias_act.h"
#include "cuda_common.h"

namespace rtil {

template <typename T, typename Index>
__global__ void __launch_bounds__(THREADS) bias_act_kernel(BiasAct<T> p) {
    bias_act_thread<T, Index>(p, int64_t(blockIdx.x) * THREADS + threadIdx.x,
                              int64_t(gridDim.x) * THREADS);
}

template <typename T>
cudaError_t launch(const void* x, const void* b, const void* y, void* out, int64_t n,
                   int64_t inner, int64_t count, double slope, double gain, double clamp,
                   cudaStream_t stream) {
    using S = typename Wide<T>::type;
    // The bound rounded as y is: |y| < clamp must be false for what was clamped.
    const S bound = clamp < 0 ? S(-1) : widen(narrow<T>(S(clamp)));
    const BiasAct<T> p{static_cast<const T*>(x), static_cast<const T*>(b),
                       static_cast<const T*>(y), static_cast<T*>(out), n, inner, count,
                       {S(slope), S(gain), bound}};
    const unsigned blocks = blocks_for(n, int64_t(THREADS) * Pack<T>::size);
    // 64-bit division is several times a 32-bit one; indices fit in 32 bits below 2^32 numbers.
    if (n < (int64_t(1) << 32) && inner < (int64_t(1) << 32))
        bias_act_kernel<T, uint32_t><<<blocks, THREADS, 0, stream>>>(p);
    else
        bias_act_kernel<T, uint64_t><<<blocks, THREADS, 0, stream>>>(p);
    return cudaGetLastError();
}

}  // namespace rtil

RTIL_EXPORT int rtil_bias_act(int dtype, int device, void* stream, const void* x, const void* b,
                              const void* y, void* out, int64_t n, int64_t inner, int64_t count,
                              double slope, double gain, double clamp) {
    using namespace rtil;
    if (n == 0) return cudaSuccess;
    // This library carries its own CUDA runtime, so the device is set for it too.
    if (cudaError_t error = cudaSetDevice(device)) return error;
    const auto s = static_cast<cudaStream_t>(stream);
    switch (dtype) {
        case FLOAT32: return launch<float>(x, b, y, out, n, inner, count, slope, gain, clamp, s);
        case FLOAT64: return launch<double>(x, b, y, out, n, inner, count, slope, gain, clamp, s);
        case FLOAT16: return launch<__half>(x, b, y, out, n, inner, count, slope, gain, clamp, s);
        case BFLOAT16:
            return launch<__nv_bfloat16>(x, b, y, out, n, inner, count, slope, gain, clamp, s);
    }
    return cudaErrorInvalidValue;
}

RTIL_EXPORT const char* rtil_error(int code) { return cudaGetErrorString(cudaError_t(code)); }

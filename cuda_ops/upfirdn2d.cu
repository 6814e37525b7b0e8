// Launchers of upfirdn2d: a plain C interface, called through ctypes with torch's pointers.
#include "cuda_common.h"
#include "upfirdn2d_tile.h"

namespace rtil {

template <typename T, typename Index>
__global__ void __launch_bounds__(THREADS) upfirdn_kernel(Upfirdn<T> p) {
    upfirdn_thread<T, Index>(p, int64_t(blockIdx.x) * THREADS + threadIdx.x,
                             int64_t(gridDim.x) * THREADS);
}

struct Barrier {
    __device__ void operator()() const { __syncthreads(); }
};

template <typename T, int UP, int DOWN, bool LAST>
__global__ void __launch_bounds__(THREADS) tile_kernel(Upfirdn<T> p, bool load, bool store) {
    using Here = Tile<T, UP, DOWN, LAST>;
    __shared__ Here tile;
    tile_thread(tile, p, load, store, blockIdx.x, gridDim.x, threadIdx.x, THREADS, Barrier());
}

template <typename T, int UP, int DOWN, bool LAST>
void launch_tile(const Upfirdn<T>& p, cudaStream_t stream) {
    using Here = Tile<T, UP, DOWN, LAST>;
    tile_kernel<T, UP, DOWN, LAST><<<blocks_for(Here::tiles(p), 1), THREADS, 0, stream>>>(
        p, Here::wide_load(p), Here::wide_store(p));
}

template <typename T, bool LAST> void launch_case(const Upfirdn<T>& p, cudaStream_t stream) {
    if (p.y.up == 2) launch_tile<T, 2, 1, LAST>(p, stream);
    else if (p.y.down == 2) launch_tile<T, 1, 2, LAST>(p, stream);
    else launch_tile<T, 1, 1, LAST>(p, stream);
}

// float64 is for checks: its tiles do not fit shared memory, so the general kernel serves it.
template <typename T> bool try_tile(const Upfirdn<T>& p, cudaStream_t stream) {
    if (!tiled(p)) return false;
    if (p.last) launch_case<T, true>(p, stream);
    else launch_case<T, false>(p, stream);
    return true;
}
template <> bool try_tile(const Upfirdn<double>&, cudaStream_t) { return false; }

template <typename T>
cudaError_t launch(const void* x, const void* f, void* out, const int64_t* s, double gain,
                   int general, cudaStream_t stream) {
    const Upfirdn<T> p = unpack<T>(x, f, out, s, gain);
    const int64_t n = s[0] * s[1] * p.y.out * p.x_axis.out;
    if (n == 0) return cudaSuccess;
    if (general || !try_tile(p, stream)) {
        const unsigned blocks = blocks_for(n, THREADS);
        if (n < (int64_t(1) << 32)) upfirdn_kernel<T, uint32_t><<<blocks, THREADS, 0, stream>>>(p);
        else upfirdn_kernel<T, uint64_t><<<blocks, THREADS, 0, stream>>>(p);
    }
    return cudaGetLastError();
}

}  // namespace rtil

RTIL_EXPORT int rtil_upfirdn2d(int dtype, int device, void* stream, const void* x, const void* f,
                               void* out, const int64_t* sizes, double gain, int general) {
    using namespace rtil;
    if (cudaError_t error = cudaSetDevice(device)) return error;
    const auto s = static_cast<cudaStream_t>(stream);
    switch (dtype) {
        case FLOAT32: return launch<float>(x, f, out, sizes, gain, general, s);
        case FLOAT64: return launch<double>(x, f, out, sizes, gain, general, s);
        case FLOAT16: return launch<__half>(x, f, out, sizes, gain, general, s);
        case BFLOAT16: return launch<__nv_bfloat16>(x, f, out, sizes, gain, general, s);
    }
    return cudaErrorInvalidValue;
}

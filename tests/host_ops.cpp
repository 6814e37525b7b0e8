// The kernels' code built for the host: runs every block and thread of a launch in turn, phase by
// phase, so that what is tested is what the GPU executes, barriers replaced by order.
#include <cstdint>
#include <cstring>
#include <memory>

// 16-byte accesses, and those of them that a GPU would refuse.
static int64_t accesses, misaligned;
#define RTIL_ACCESS(address) \
    (++accesses, misaligned += reinterpret_cast<uintptr_t>(address) % 16 != 0)

#include "bias_act.h"
#include "upfirdn2d_tile.h"

// A 16-bit float (bfloat16) that stands for the two half types: 8 to an access.
struct Brain {
    uint16_t bits;
};

namespace rtil {
template <> struct Wide<Brain> { using type = float; };
template <> inline float widen<Brain>(Brain v) {
    const uint32_t bits = uint32_t(v.bits) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}
template <> inline Brain narrow<Brain>(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

template <typename T, int UP, int DOWN, bool LAST> void run_tiles(const Upfirdn<T>& p) {
    using Here = Tile<T, UP, DOWN, LAST>;
    constexpr int threads = 256;
    const bool load = Here::wide_load(p), store = Here::wide_store(p);
    for (int64_t i = 0; i < Here::tiles(p); ++i) {
        auto tile = std::make_unique<Here>();
        std::memset(tile.get(), 0xff, sizeof(Here));  // NaN: what is read must have been written
        const auto at = Here::at(p, i);
        for (int t = 0; t < threads; ++t) tile->load(p, at, t, threads, load);
        for (int t = 0; t < threads; ++t) tile->vertical(p, at, t, threads);
        for (int t = 0; t < threads; ++t) tile->horizontal(p, at, t, threads, store);
    }
}

template <typename T, bool LAST> void run_case(const Upfirdn<T>& p) {
    if (p.y.up == 2) run_tiles<T, 2, 1, LAST>(p);
    else if (p.y.down == 2) run_tiles<T, 1, 2, LAST>(p);
    else run_tiles<T, 1, 1, LAST>(p);
}

template <typename T, typename Index>
void run_bias_act(const BiasAct<T>& p, int64_t threads) {
    for (int64_t t = 0; t < threads; ++t) bias_act_thread<T, Index>(p, t, threads);
}

template <typename T>
void bias_act(const void* x, const void* b, const void* y, void* out, int64_t n, int64_t inner,
              int64_t count, double slope, double gain, double clamp, int64_t threads) {
    using S = typename Wide<T>::type;
    const S bound = clamp < 0 ? S(-1) : widen(narrow<T>(S(clamp)));
    const BiasAct<T> p{static_cast<const T*>(x), static_cast<const T*>(b),
                       static_cast<const T*>(y), static_cast<T*>(out), n, inner, count,
                       {S(slope), S(gain), bound}};
    if (threads % 2) run_bias_act<T, uint32_t>(p, threads);
    else run_bias_act<T, uint64_t>(p, threads);
}

template <typename T>
void general(const void* x, const void* f, void* out, const int64_t* s, double gain) {
    const auto p = unpack<T>(x, f, out, s, gain);
    for (int64_t t = 0; t < 7; ++t) upfirdn_thread<T, uint32_t>(p, t, 7);
}

template <typename T>
int tile(const void* x, const void* f, void* out, const int64_t* s, double gain, bool force) {
    const auto p = unpack<T>(x, f, out, s, gain);
    if (!force && !tiled(p)) return 0;
    if (p.last) run_case<T, true>(p);
    else run_case<T, false>(p);
    return 1;
}
}  // namespace rtil

// dtype: 0 float32, 1 float64, 3 bfloat16, as in the kernels.
extern "C" void host_bias_act(int dtype, const void* x, const void* b, const void* y, void* out,
                              int64_t n, int64_t inner, int64_t count, double slope, double gain,
                              double clamp, int64_t threads) {
    using namespace rtil;
    (dtype == 0   ? bias_act<float>
     : dtype == 1 ? bias_act<double>
                  : bias_act<Brain>)(x, b, y, out, n, inner, count, slope, gain, clamp, threads);
}

extern "C" void host_upfirdn2d(int dtype, const void* x, const void* f, void* out,
                               const int64_t* sizes, double gain) {
    using namespace rtil;
    (dtype == 0 ? general<float> : dtype == 1 ? general<double> : general<Brain>)(x, f, out, sizes,
                                                                                 gain);
}

// Returns 0, having done nothing, where the launcher would not choose the tiled kernel.
extern "C" int host_upfirdn2d_tile(int dtype, const void* x, const void* f, void* out,
                                   const int64_t* sizes, double gain, int force) {
    using namespace rtil;
    return (dtype == 0 ? tile<float> : tile<Brain>)(x, f, out, sizes, gain, force);
}

extern "C" int64_t host_accesses() { return accesses; }
extern "C" int64_t host_misaligned() { return misaligned; }

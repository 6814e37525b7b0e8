// What both operators share: the function qualifier, 16-byte vectors, and number conversion.
// Everything here compiles for the GPU with nvcc and for the host with any C++17 compiler.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define RTIL_FN __host__ __device__ __forceinline__
#define RTIL_UNROLL _Pragma("unroll")
#else
#define RTIL_FN inline
#define RTIL_UNROLL
#endif

namespace rtil {

// Type in which sums and products are taken; halves are widened (see the .cu files).
template <typename T> struct Wide { using type = T; };

template <typename T> RTIL_FN typename Wide<T>::type widen(T v) { return v; }
template <typename T> RTIL_FN T narrow(typename Wide<T>::type v) { return T(v); }

// One 16-byte access.
template <typename T> struct alignas(16) Pack {
    static constexpr int size = 16 / sizeof(T);
    T v[size];
};

#ifndef RTIL_ACCESS
#define RTIL_ACCESS(address)  // the host test notes every 16-byte access here
#endif

template <typename T> RTIL_FN Pack<T> load16(const T* from) {
    RTIL_ACCESS(from);
    return *reinterpret_cast<const Pack<T>*>(from);
}
template <typename T> RTIL_FN void store16(T* to, const Pack<T>& v) {
    RTIL_ACCESS(to);
    *reinterpret_cast<Pack<T>*>(to) = v;
}

RTIL_FN bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

RTIL_FN int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
RTIL_FN int ceil_div(int a, int b) { return -floor_div(-a, b); }
RTIL_FN constexpr int round_up(int a, int b) { return (a + b - 1) / b * b; }
RTIL_FN int smaller(int a, int b) { return a < b ? a : b; }
RTIL_FN int larger(int a, int b) { return a > b ? a : b; }

}  // namespace rtil

// Element arithmetic of the CPU kernels: the storage types and the exponential.
//
// Everything is branchless and on unsigned integers, so that compilers vectorise it and no
// input is undefined behaviour. Nothing depends on, or changes, the floating-point mode.

#pragma once

#include <bit>
#include <cstdint>

namespace pclc {

#if defined(__GNUC__)
#define PCLC_INLINE inline __attribute__((always_inline))
#else
#define PCLC_INLINE inline
#endif

// exp(x) for x <= 0: exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, the last factor by
// a minimax polynomial 1 + r + r^2 p(r) (relative error 3e-9). 0 where the result is not a normal
// number; NaN for NaN; of no meaning for x > 0.
PCLC_INLINE float exp_nonpositive(float x) {
  constexpr float kRound = 12583039.0f;  // 1.5 * 2^23 + 127: adding it rounds to an integer
  constexpr float kLog2e = 1.44269504088896341f;
  constexpr float kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;
  const float shifted = x * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2Hi) - n * kLn2Lo;
  float q = 1.3814540176801306e-3f;
  q = q * r + 8.3687451089425907e-3f;
  q = q * r + 4.1668390783547913e-2f;
  q = q * r + 1.6666520399042531e-1f;
  q = q * r + 4.9999993432129291e-1f;
  q = q * r + 1.0f;
  q = q * r + 1.0f;
  const uint32_t power = std::bit_cast<uint32_t>(shifted) << 23;  // of n + 127
  const float result = q * std::bit_cast<float>(power);
  return x < -87.3f ? 0.0f : result;
}

// The same in double, relative error 3e-17 before rounding.
PCLC_INLINE double exp_nonpositive(double x) {
  constexpr double kRound = 6755399441056767.0;  // 1.5 * 2^52 + 1023
  constexpr double kLog2e = 1.4426950408889634074;
  constexpr double kLn2Hi = 6.93145751953125e-1, kLn2Lo = 1.42860682030941723212e-6;
  const double shifted = x * kLog2e + kRound;
  const double n = shifted - kRound;
  const double r = (x - n * kLn2Hi) - n * kLn2Lo;
  double q = 2.5424684053140585058e-8;
  q = q * r + 2.7624551203869782112e-7;
  q = q * r + 2.7556284326812015191e-6;
  q = q * r + 0.000024801510287263525623;
  q = q * r + 0.00019841270882911332774;
  q = q * r + 0.0013888888926287986756;
  q = q * r + 0.0083333333329205520737;
  q = q * r + 0.04166666666659511368;
  q = q * r + 0.16666666666667175562;
  q = q * r + 0.50000000000000037309;
  q = q * r + 1.0;
  q = q * r + 1.0;
  const uint64_t power = std::bit_cast<uint64_t>(shifted) << 52;  // of n + 1023
  const double result = q * std::bit_cast<double>(power);
  return x < -708.0 ? 0.0 : result;
}

// How one element is stored and what it is computed in.
struct Float32 {
  using Stored = float;
  using Compute = float;
  static PCLC_INLINE float load(float v) { return v; }
  static PCLC_INLINE float store(float v) { return v; }
};

struct Float64 {
  using Stored = double;
  using Compute = double;
  static PCLC_INLINE double load(double v) { return v; }
  static PCLC_INLINE double store(double v) { return v; }
};

// Rounds to nearest even, keeps NaN.
struct BFloat16 {
  using Stored = uint16_t;
  using Compute = float;
  static PCLC_INLINE float load(uint16_t v) {
    return std::bit_cast<float>(static_cast<uint32_t>(v) << 16);
  }
  static PCLC_INLINE uint16_t store(float v) {
    const uint32_t bits = std::bit_cast<uint32_t>(v);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
};

// IEEE half precision by its bits: 1 sign, 5 exponent (bias 15), 10 fraction. Rounds to nearest
// even, overflows to infinity, keeps subnormals and NaN.
struct Float16 {
  using Stored = uint16_t;
  using Compute = float;
  static PCLC_INLINE float load(uint16_t v) {
    constexpr uint32_t kRebias = (127u - 15u) << 23;
    const uint32_t magnitude = (v & 0x7fffu) << 13;
    const uint32_t exponent = magnitude & (0x1fu << 23);
    const uint32_t special = magnitude + kRebias + kRebias;  // infinity and NaN
    const float subnormal =                                  // 2^-14 (1 + fraction) - 2^-14
        std::bit_cast<float>(magnitude + kRebias + (1u << 23)) - 6.103515625e-5f;
    const uint32_t normal = magnitude + kRebias;
    const uint32_t bits = exponent == (0x1fu << 23) ? special
                          : exponent == 0           ? std::bit_cast<uint32_t>(subnormal)
                                                    : normal;
    return std::bit_cast<float>(bits | (static_cast<uint32_t>(v & 0x8000u) << 16));
  }
  static PCLC_INLINE uint16_t store(float v) {
    const uint32_t all = std::bit_cast<uint32_t>(v);
    const uint32_t sign = (all >> 16) & 0x8000u;
    const uint32_t bits = all & 0x7fffffffu;
    const uint32_t special = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
    // Adding 0.5 puts the unit of the half subnormals at the last place of the sum.
    const uint32_t subnormal =
        std::bit_cast<uint32_t>(std::bit_cast<float>(bits) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (bits - ((127u - 15u) << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    const uint32_t half = bits >= (143u << 23) ? special : bits < (113u << 23) ? subnormal : normal;
    return static_cast<uint16_t>(sign | half);
  }
};

}  // namespace pclc

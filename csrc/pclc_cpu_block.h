// Loops over a block of a row that compilers vectorise: loading, the maximum, and where it is.

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "pclc_cpu_math.h"
#include "pclc_row.h"

namespace pclc {

constexpr int64_t kLanes = 16;    // blocks are padded to this: one AVX-512 vector of floats
constexpr int64_t kBlock = 1024;  // elements; also between two carries of a sum into double

// The part of a row that is in the buffer.
struct Block {
  int64_t begin;
  int64_t count;   // classes
  int64_t padded;  // a multiple of kLanes
};

PCLC_INLINE Block block_at(int64_t begin, int64_t classes) {
  const int64_t count = std::min(kBlock, classes - begin);
  return {begin, count, (count + kLanes - 1) & -kLanes};
}

// An integer of the same order as the number. Compilers vectorise the maximum of integers; that of
// floating-point numbers they do not, for the sake of NaN. A NaN here is above or below all
// numbers.
PCLC_INLINE int32_t order_key(float v) {
  const int32_t bits = std::bit_cast<int32_t>(v);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
PCLC_INLINE int64_t order_key(double v) {
  const int64_t bits = std::bit_cast<int64_t>(v);
  return bits ^ ((bits >> 63) & 0x7fffffffffffffff);
}
PCLC_INLINE float from_key(int32_t key) {
  return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff));
}
PCLC_INLINE double from_key(int64_t key) {
  return std::bit_cast<double>(key ^ ((key >> 63) & 0x7fffffffffffffff));
}

// The largest of n values. A NaN among them is above or below all numbers.
template <typename T>
PCLC_INLINE T largest(const T* values, int64_t n) {
  auto key = order_key(kNegativeInfinity<T>);
#pragma omp simd reduction(max : key)
  for (int64_t i = 0; i < n; ++i) key = std::max(key, order_key(values[i]));
  return from_key(key);
}

// Loads the false logits, with -inf at y and in the padding, which then need no special case.
// Returns the largest.
template <class S, typename T>
PCLC_INLINE T load_false(const typename S::Stored* row, const Block& b, int64_t y, T* buffer) {
  const typename S::Stored* source = row + b.begin;
#pragma omp simd
  for (int64_t i = 0; i < b.count; ++i) buffer[i] = S::load(source[i]);
  for (int64_t i = b.count; i < b.padded; ++i) buffer[i] = kNegativeInfinity<T>;
  const int64_t true_index = y - b.begin;
  if (0 <= true_index && true_index < b.count) buffer[true_index] = kNegativeInfinity<T>;
  return largest(buffer, b.padded);
}

// A sum of which each lane has a share. The shares are added up in pairs: one after the other,
// every addition would wait for the one before.
template <typename T>
struct LaneSum {
  T lane[kLanes] = {};

  PCLC_INLINE T total() {
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
  }
};

// Asks for what is used after a block of a row: its next block, or the first one of the row `ahead`
// elements on. Into the second-level cache: the first cannot wait for as many lines at once as a
// block has.
template <typename Stored>
PCLC_INLINE void prefetch_next([[maybe_unused]] const Stored* row, [[maybe_unused]] int64_t begin,
                               [[maybe_unused]] int64_t classes, [[maybe_unused]] int64_t ahead) {
#if defined(__GNUC__)
  constexpr int64_t kLine = 64 / sizeof(Stored);
  const Stored* next = row + (begin + kBlock < classes ? begin + kBlock : ahead);
  for (int64_t i = 0; i < std::min(kBlock, classes); i += kLine) {
    __builtin_prefetch(next + i, 0, 2);
  }
#endif
}

// The lowest index with the value `top`, which is among the n.
template <typename T>
PCLC_INLINE int64_t first_equal(const T* values, int64_t n, T top) {
  int32_t first = static_cast<int32_t>(n);
#pragma omp simd reduction(min : first)
  for (int32_t i = 0; i < static_cast<int32_t>(n); ++i) {
    first = std::min(first, values[i] == top ? i : static_cast<int32_t>(n));
  }
  return first;
}

}  // namespace pclc

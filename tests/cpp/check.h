// What the C++ tests share: checks that count, memory whose ends are watched, and the definition of
// rounding that conversions are held to.

#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

namespace test {

using Real = long double;  // of every expected value

inline long checks = 0;
inline long failures = 0;

// Counts, and prints the first failures. Returns `ok`, so that a caller can stop a flood.
__attribute__((format(printf, 2, 3))) inline bool check(bool ok, const char* format, ...) {
  ++checks;
  if (ok || ++failures > 20) return ok;
  va_list arguments;
  va_start(arguments, format);
  std::printf("FAILED: ");
  std::vprintf(format, arguments);
  std::printf("\n");
  va_end(arguments);
  return ok;
}

// The exit status of main.
inline int report() {
  std::printf("%ld checks, %ld failures\n", checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t bits() { return engine_(); }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  bool chance(double p) { return uniform(0, 1) < p; }
  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53;
  }
  double normal() { return normal_(engine_); }
  template <typename T, size_t n>
  T pick(const T (&choices)[n]) {
    return choices[below(n)];
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

// A binary floating-point format: significant digits and the exponents of normal numbers.
struct Format {
  int digits, min_exponent, max_exponent;
};

// Rounds to nearest even by the definition: scale the unit in the last place to 1 and back.
inline Real round_to(Real x, const Format& f) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int unit = std::max(std::ilogb(x), f.min_exponent) - f.digits + 1;
  const Real rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  const bool overflows = std::fabs(rounded) >= std::ldexp(Real(1), f.max_exponent + 1);
  return overflows ? std::copysign(std::numeric_limits<Real>::infinity(), x) : rounded;
}

// Memory filled with a pattern, at the end of what may be read. AddressSanitizer watches an
// ordinary allocation. It keeps compilers from vectorising, so that without it a page that cannot
// be read follows, and the pattern that stands before must survive.
class Buffer {
 public:
  struct Copy {};
  explicit Buffer(size_t bytes) : bytes_(bytes) {
#if defined(PCLC_TEST_SANITIZED)
    data_ = static_cast<uint8_t*>(std::malloc(bytes));
#else
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (bytes + kFront + page - 1) / page * page + page;
    void* memory =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    data_ = static_cast<uint8_t*>(memory) + mapped_ - page - bytes;
    if (mprotect(data_ + bytes, page, PROT_NONE) != 0) std::abort();
#endif
    std::memset(data_ - kFront, kPattern, kFront + bytes);
  }
  Buffer(const Buffer& other, Copy) : Buffer(other.bytes_) {
    std::memcpy(data_, other.data_, bytes_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
#if defined(PCLC_TEST_SANITIZED)
    std::free(data_);
#else
    munmap(data_ + bytes_ + sysconf(_SC_PAGESIZE) - mapped_, mapped_);
#endif
  }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  size_t size() const { return bytes_; }
  bool front_intact() const { return is_pattern(data_ - kFront, data_); }
  bool untouched() const { return is_pattern(data_ - kFront, data_ + bytes_); }
  bool same_as(const Buffer& other) const {
    return bytes_ == other.bytes_ && std::memcmp(data_, other.data_, bytes_) == 0;
  }

 private:
#if defined(PCLC_TEST_SANITIZED)
  static constexpr size_t kFront = 0;
#else
  static constexpr size_t kFront = 256;
#endif
  static constexpr uint8_t kPattern = 0xa5;

  static bool is_pattern(const uint8_t* begin, const uint8_t* end) {
    return std::all_of(begin, end, [](uint8_t byte) { return byte == kPattern; });
  }

  size_t bytes_;
  size_t mapped_ = 0;
  uint8_t* data_;
};

}  // namespace test

// Rows as 16-byte vectors: storage types, loading with misaligned ends peeled, storing.

#pragma once

#include "pclc_cuda_device.cuh"
#include "pclc_row.h"

namespace pclc::device {

// How elements are stored, alone and in the words of a vector; and the largest of a vector's, in
// pairs where two share a word, which ignores a NaN.
struct Float32 {
  using Stored = float;
  using Compute = float;
  using Best = float;
  static PCLC_DEVICE float best(const Words& w) {
    return better(better(get(w, 0), get(w, 1)), better(get(w, 2), get(w, 3)));
  }
  static PCLC_DEVICE float better(float a, float b) { return max_of(a, b); }
  static PCLC_DEVICE float largest(float best) { return best; }
  static PCLC_DEVICE float element(const Words& w, int i) { return get(w, i); }
  static PCLC_DEVICE float load(float v) { return v; }
  static PCLC_DEVICE float store(float v) { return v; }
  static PCLC_DEVICE float get(const Words& w, int i) { return float_of(w.at[i]); }
  static PCLC_DEVICE void pack(const float* x, Words& w) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w.at[i] = bits_of(x[i]);
  }
};

struct Float64 {
  using Stored = double;
  using Compute = double;
  using Best = double;
  static PCLC_DEVICE double best(const Words& w) { return better(get(w, 0), get(w, 1)); }
  static PCLC_DEVICE double better(double a, double b) { return max_of(a, b); }
  static PCLC_DEVICE double largest(double best) { return best; }
  static PCLC_DEVICE double element(const Words& w, int i) { return get(w, i); }
  static PCLC_DEVICE double load(double v) { return v; }
  static PCLC_DEVICE double store(double v) { return v; }
  static PCLC_DEVICE double get(const Words& w, int i) {
    return double_of(w.at[2 * i], w.at[2 * i + 1]);
  }
  static PCLC_DEVICE void pack(const double* x, Words& w) {
#pragma unroll
    for (int i = 0; i < 2; ++i) w.at[2 * i] = low_bits(x[i]), w.at[2 * i + 1] = high_bits(x[i]);
  }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Compute = float;
  using Best = uint32_t;
  static PCLC_DEVICE uint32_t best(const Words& w) {
    return better(better(w.at[0], w.at[1]), better(w.at[2], w.at[3]));
  }
  static PCLC_DEVICE uint32_t better(uint32_t a, uint32_t b) { return max_of_bfloats(a, b); }
  static PCLC_DEVICE float largest(uint32_t best) {
    return max_of(float_of(best << 16), float_of(best & 0xffff0000u));
  }
  static PCLC_DEVICE uint16_t element(const Words& w, int i) {
    return static_cast<uint16_t>(i % 2 ? w.at[i / 2] >> 16 : w.at[i / 2]);
  }
  static PCLC_DEVICE float load(uint16_t v) { return float_of(static_cast<uint32_t>(v) << 16); }
  static PCLC_DEVICE uint16_t store(float v) { return static_cast<uint16_t>(two_bfloats(v, 0)); }
  static PCLC_DEVICE float get(const Words& w, int i) {
    return float_of(i % 2 ? w.at[i / 2] & 0xffff0000u : w.at[i / 2] << 16);
  }
  static PCLC_DEVICE void pack(const float* x, Words& w) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w.at[i] = two_bfloats(x[2 * i], x[2 * i + 1]);
  }
};

struct Float16 {
  using Stored = uint16_t;
  using Compute = float;
  using Best = uint32_t;
  static PCLC_DEVICE uint32_t best(const Words& w) {
    return better(better(w.at[0], w.at[1]), better(w.at[2], w.at[3]));
  }
  static PCLC_DEVICE uint32_t better(uint32_t a, uint32_t b) { return max_of_halves(a, b); }
  static PCLC_DEVICE float largest(uint32_t best) {
    return max_of(float_of_half(best & 0xffffu), float_of_half(best >> 16));
  }
  static PCLC_DEVICE uint16_t element(const Words& w, int i) {
    return static_cast<uint16_t>(i % 2 ? w.at[i / 2] >> 16 : w.at[i / 2]);
  }
  static PCLC_DEVICE float load(uint16_t v) { return float_of_half(v); }
  static PCLC_DEVICE uint16_t store(float v) { return static_cast<uint16_t>(two_halves(v, 0)); }
  static PCLC_DEVICE float get(const Words& w, int i) {
    return float_of_half(i % 2 ? w.at[i / 2] >> 16 : w.at[i / 2] & 0xffffu);
  }
  static PCLC_DEVICE void pack(const float* x, Words& w) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w.at[i] = two_halves(x[2 * i], x[2 * i + 1]);
  }
};

template <class S>
constexpr int kWidth = 16 / static_cast<int>(sizeof(typename S::Stored));  // elements of a vector

// How many vectors a row of any alignment can touch.
template <class S>
constexpr int64_t most_vectors(int64_t classes) {
  return (classes + 2 * (kWidth<S> - 1)) / kWidth<S>;
}

// A row cut where its gradient, which is contiguous, has 16-byte boundaries: the sums of a row are
// then added in the same order whatever the strides of the logits are. The first and the last
// vector may lie in part outside of the row.
template <class S>
struct RowView {
  using Stored = typename S::Stored;
  using T = typename S::Compute;

  const Stored* logits;
  Stored* grad;  // null: not wanted
  int32_t classes;
  int32_t label;    // the true class; -1 where the row is not to be read
  int32_t lead;     // elements of the first vector that lie before the row
  bool aligned;     // the logits have 16-byte boundaries at the same places
  bool is_skipped;  // nothing of the logits may be read

  PCLC_DEVICE RowView(const Stored* row, Stored* grad_row, int64_t offset, int32_t classes,
                      int32_t label, bool is_skipped)
      : logits(row), grad(grad_row), classes(classes), label(label), is_skipped(is_skipped) {
    lead = grad ? phase(grad) : static_cast<int32_t>(offset % kWidth<S>);
    aligned = phase(logits) == lead;
  }

  PCLC_DEVICE int32_t vectors() const { return (lead + classes + kWidth<S> - 1) / kWidth<S>; }
  PCLC_DEVICE int32_t begin(int32_t v) const { return v * kWidth<S> - lead; }

  // The logits of vector v, -inf outside of the row.
  PCLC_DEVICE Words load(int32_t v) const {
    const int32_t k = begin(v);
    if (aligned && is_inside(k)) return load_words(logits + k);
    return load_singly(k);
  }
  // And -inf at the true class, which then needs no special case.
  PCLC_DEVICE Words load_false(int32_t v) const {
    Words words = load(v);
    if (static_cast<uint32_t>(label - begin(v)) < static_cast<uint32_t>(kWidth<S>)) {
      hide_label(begin(v), words);
    }
    return words;
  }

  PCLC_DEVICE void store(int32_t v, const Words& words) const {
    const int32_t k = begin(v);
    if (is_inside(k)) return store_words(grad + k, words);
#pragma unroll
    for (int i = 0; i < kWidth<S>; ++i) {
      if (0 <= k + i && k + i < classes) grad[k + i] = S::element(words, i);
    }
  }

  // -inf everywhere.
  static PCLC_DEVICE Words nothing() { return filled(kNegativeInfinity<T>); }
  static PCLC_DEVICE Words filled(T value) {
    T values[kWidth<S>];
#pragma unroll
    for (int i = 0; i < kWidth<S>; ++i) values[i] = value;
    Words words;
    S::pack(values, words);
    return words;
  }
  PCLC_DEVICE Words load_singly(int32_t k) const {
    T values[kWidth<S>];
#pragma unroll
    for (int i = 0; i < kWidth<S>; ++i) {
      const bool is_of_row = 0 <= k + i && k + i < classes;
      values[i] = is_of_row ? S::load(logits[k + i]) : kNegativeInfinity<T>;
    }
    Words words;
    S::pack(values, words);
    return words;
  }

 private:
  static PCLC_DEVICE int32_t phase(const Stored* address) {
    const auto bytes = static_cast<int32_t>(reinterpret_cast<uintptr_t>(address) % 16);
    return bytes / static_cast<int32_t>(sizeof(Stored));
  }
  PCLC_DEVICE bool is_inside(int32_t k) const { return k >= 0 && k <= classes - kWidth<S>; }

  PCLC_DEVICE void hide_label(int32_t k, Words& words) const {
    T values[kWidth<S>];
#pragma unroll
    for (int i = 0; i < kWidth<S>; ++i) {
      values[i] = k + i == label ? kNegativeInfinity<T> : S::get(words, i);
    }
    S::pack(values, words);
  }
};

}  // namespace pclc::device

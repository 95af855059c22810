// Merging parts of a row: however it is cut, and in whatever order the parts meet, the whole is
// that of the row at once. The cuts are those of lanes, vectors, warps and clusters.

#include <algorithm>
#include <vector>

#include "../cpp/check.h"
#include "pclc_partial.h"

namespace test {
namespace {

using pclc::LcMode;

struct Exp {
  template <typename T>
  T operator()(T x) const {
    return std::exp(x);
  }
};

template <typename T>
using Part = pclc::Partial<T>;

template <LcMode kMode, typename T>
Part<T> merge(const Part<T>& a, const Part<T>& b) {
  const T top = std::max(a.top, b.top);
  return pclc::add<kMode>(pclc::relative_to<kMode>(top, a, Exp{}),
                          pclc::relative_to<kMode>(top, b, Exp{}));
}

// The part that classes [begin, end) are, by definition and in long double.
template <LcMode kMode, typename T>
Part<T> part_of(const std::vector<T>& a, int64_t begin, int64_t end, T true_logit) {
  Part<T> part;
  for (int64_t k = begin; k < end; ++k) {
    if (a[k] > part.top) part.top = a[k], part.first = static_cast<int32_t>(k);
  }
  Real exp_sum = 0, lc_sum = 0, lc_count = 0;
  for (int64_t k = begin; k < end; ++k) {
    if (a[k] == -HUGE_VAL) continue;
    const Real e = std::exp(static_cast<Real>(a[k]) - part.top), gap = true_logit - Real(a[k]);
    exp_sum += e;
    if (gap <= 0) continue;
    lc_sum += kMode == LcMode::kSoft ? e * gap : gap;
    lc_count += kMode == LcMode::kSoft ? e : 1;
  }
  part.exp_sum = static_cast<T>(exp_sum);
  if (kMode != LcMode::kHard) {
    part.lc_sum = static_cast<T>(lc_sum), part.lc_count = static_cast<T>(lc_count);
  }
  return part;
}

template <typename T>
bool same_bits(const Part<T>& a, const Part<T>& b) {
  const auto same = [](T x, T y) { return x == y || (std::isnan(x) && std::isnan(y)); };
  return same(a.top, b.top) && same(a.exp_sum, b.exp_sum) && same(a.lc_sum, b.lc_sum) &&
         same(a.lc_count, b.lc_count) && a.first == b.first;
}

// Top and index exactly, sums to within the rounding of `merges` merges.
template <typename T>
bool agree(const Part<T>& a, const Part<T>& b, int64_t merges, T spread) {
  const T eps = std::numeric_limits<T>::epsilon() * (static_cast<T>(2 * merges) + 4 + 2 * spread);
  const auto near = [&](T x, T y) { return std::abs(x - y) <= eps * std::abs(y); };
  return a.top == b.top && a.first == b.first && near(a.exp_sum, b.exp_sum) &&
         near(a.lc_sum, b.lc_sum) && near(a.lc_count, b.lc_count);
}

// Parts of `size` classes, merged one after the other and pairwise, as lanes do.
template <LcMode kMode, typename T>
void test_cut(Random& random, const std::vector<T>& a, int64_t size, T spread) {
  const int64_t classes = static_cast<int64_t>(a.size());
  const T true_logit = static_cast<T>(random.normal());
  const Part<T> whole = part_of<kMode>(a, 0, classes, true_logit);
  std::vector<Part<T>> parts;
  for (int64_t begin = 0; begin < classes; begin += size) {
    parts.push_back(part_of<kMode>(a, begin, std::min(begin + size, classes), true_logit));
  }
  const int64_t count = static_cast<int64_t>(parts.size());
  Part<T> in_turn;
  for (const Part<T>& part : parts) in_turn = merge<kMode>(in_turn, part);
  check(agree(in_turn, whole, count, spread), "%ld classes in parts of %ld, in turn", long(classes),
        long(size));
  size_t lanes = 1;
  while (lanes < parts.size()) lanes *= 2;
  parts.resize(lanes);  // the lanes beyond have nothing
  for (size_t mask = lanes / 2; mask > 0; mask /= 2) {
    std::vector<Part<T>> merged(lanes);
    for (size_t i = 0; i < lanes; ++i) merged[i] = merge<kMode>(parts[i], parts[i ^ mask]);
    parts = merged;
  }
  check(agree(parts[0], whole, count, spread), "%ld classes in parts of %ld, pairwise",
        long(classes), long(size));
  for (const Part<T>& lane : parts) check(same_bits(lane, parts[0]), "lanes disagree");
}

template <LcMode kMode, typename T>
void test_three(Random& random) {
  const T infinity = std::numeric_limits<T>::infinity(), nan = std::nan("");
  const T lc = kMode == LcMode::kHard ? 0 : nan;
  const Part<T> bad{1, nan, lc, lc, 3}, endless{infinity, nan, lc, lc, 5};
  const auto draw = [&](int64_t begin) -> Part<T> {
    if (random.chance(0.2)) return {};
    if (random.chance(0.05)) return bad;
    if (random.chance(0.05)) return endless;
    std::vector<T> a(static_cast<size_t>(begin + 4));
    for (T& logit : a) {
      logit = random.chance(0.2) ? -infinity : static_cast<T>(random.pick({-2, -1, 0, 1, 2, 30}));
    }
    return part_of<kMode>(a, begin, begin + 4, T(1));
  };
  for (int i = 0; i < 3000; ++i) {
    const Part<T> a = draw(0), b = draw(4), c = draw(8);
    check(same_bits(merge<kMode>(a, b), merge<kMode>(b, a)), "merging is not commutative");
    check(same_bits(merge<kMode>(a, Part<T>{}), a), "an empty part changes another");
    const Part<T> left = merge<kMode>(merge<kMode>(a, b), c);
    const Part<T> right = merge<kMode>(a, merge<kMode>(b, c));
    const bool undefined = std::isnan(left.exp_sum) && std::isnan(right.exp_sum);
    check(undefined ? left.top == right.top && left.first == right.first
                    : agree(left, right, 3, T(32)),
          "merging is not associative");
  }
}

template <LcMode kMode, typename T>
void test_mode(Random& random) {
  test_three<kMode, T>(random);
  for (int64_t classes : {1, 2, 7, 31, 32, 33, 1023, 1024, 1025, 4097}) {
    for (int64_t size : {1, 4, 8, 32, 128, 512, 1024}) {
      const T width = static_cast<T>(random.pick({0.5, 3.0}));
      std::vector<T> a(static_cast<size_t>(classes));
      const bool ties = random.chance(0.3);
      for (T& logit : a) {
        const T drawn = width * static_cast<T>(random.normal());
        logit = random.chance(0.1) ? -HUGE_VAL : ties ? std::round(drawn) : drawn;
      }
      test_cut<kMode>(random, a, size, 10 * width);
    }
  }
}

template <typename T>
void test_type(uint64_t seed) {
  Random random(seed);
  test_mode<LcMode::kHard, T>(random);
  test_mode<LcMode::kSoft, T>(random);
  test_mode<LcMode::kAll, T>(random);
}

// Where no false logit is finite the runner-up is the lowest false class.
void test_row_stats() {
  check(pclc::row_stats(Part<float>{}, 0).runner_up == 1, "runner-up of an empty row, y = 0");
  check(pclc::row_stats(Part<float>{}, 4).runner_up == 0, "runner-up of an empty row, y = 4");
  check(pclc::row_stats(Part<float>{2, 1, 0, 0, 7}, 0).runner_up == 7, "runner-up of a row");
}

}  // namespace
}  // namespace test

int main() {
  test::test_type<float>(1);
  test::test_type<double>(2);
  test::test_row_stats();
  return test::report();
}

// Element arithmetic (pclc_cpu_math.h) against slow exact conversions and the library's exponential
// in a wider type, and row mathematics (pclc_row.h) against the definition of the loss.

#include <bit>
#include <initializer_list>
#include <iterator>

#include "definition.h"
#include "pclc_cpu_block.h"
#include "pclc_cpu_math.h"
#include "pclc_row.h"

namespace test {
namespace {

constexpr Format kFloat{24, -126, 127}, kBFloat16{8, -126, 127}, kFloat16{11, -14, 15};
constexpr double kExpUlps = 1.5;  // how far exp_nonpositive may be from the exact value

// The value of 16 bits with `fraction_bits` of fraction, by the definition.
Real decode(uint32_t bits, int fraction_bits) {
  const int exponent_bits = 15 - fraction_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>((bits & 0x7fffu) >> fraction_bits);
  const Real fraction = static_cast<Real>(bits & ((1u << fraction_bits) - 1));
  const Real sign = bits & 0x8000u ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction == 0 ? sign * HUGE_VALL : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(1 + std::ldexp(fraction, -fraction_bits), exponent - bias);
}

template <class S>
void check_store(float v, const Format& format, const char* name) {
  const uint16_t got = S::store(v);
  const Real value = decode(got, format.digits - 1);
  if (std::isnan(v)) {
    check(std::isnan(value), "%s store(NaN) = %04x", name, got);
    return;
  }
  const Real expected = round_to(static_cast<Real>(v), format);
  check(value == expected && std::signbit(value) == std::signbit(v),
        "%s store(%a) = %04x = %La, expected %La", name, static_cast<double>(v), got, value,
        expected);
}

template <class S>
void test_conversions(const Format& format, const char* name) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const uint16_t stored = static_cast<uint16_t>(bits);
    const float loaded = S::load(stored);
    const Real value = decode(bits, format.digits - 1);
    if (std::isnan(value)) {
      check(std::isnan(loaded), "%s load(%04x) lost a NaN", name, bits);
      check_store<S>(loaded, format, name);
      continue;
    }
    check(loaded == value && std::signbit(loaded) == std::signbit(value),
          "%s load(%04x) = %a, expected %La", name, bits, static_cast<double>(loaded), value);
    check(S::store(loaded) == stored, "%s store(load(%04x)) = %04x", name, bits, S::store(loaded));
    // Halfway to the next larger number, where there is one, and beside that.
    const Real next = decode(bits + 1, format.digits - 1);
    if ((bits & 0x7fffu) == 0x7fffu || !std::isfinite(value) || !std::isfinite(next)) continue;
    const float half = static_cast<float>((value + next) / 2);
    for (float v : {half, std::nextafter(half, HUGE_VALF), std::nextafter(half, -HUGE_VALF)}) {
      check_store<S>(v, format, name);
    }
  }
  Random random(1);
  for (int i = 0; i < 500000; ++i) {
    check_store<S>(std::bit_cast<float>(static_cast<uint32_t>(random.bits())), format, name);
  }
  const float largest =
      static_cast<float>(decode(format.digits == 8 ? 0x7f7fu : 0x7bffu, format.digits - 1));
  const float half_unit = std::ldexp(1.0f, format.max_exponent - format.digits);
  for (float sign : {1.0f, -1.0f}) {  // where overflow begins
    check_store<S>(sign * std::nextafter(largest + half_unit, 0.0f), format, name);
    check_store<S>(sign * (largest + half_unit), format, name);
    check_store<S>(sign * std::numeric_limits<float>::max(), format, name);
    check_store<S>(sign * HUGE_VALF, format, name);
    check_store<S>(sign * std::numeric_limits<float>::denorm_min(), format, name);
    check_store<S>(sign * 0.0f, format, name);
  }
}

// `last` is where the result stops being a normal number; below it is 0.
template <typename T>
void test_exp(T last, const char* name) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const T infinity = std::numeric_limits<T>::infinity();
  Real worst = 0;
  const auto compare = [&](T x) {
    const T got = pclc::exp_nonpositive(x);
    const Real exact = std::exp(static_cast<Real>(x));
    const int exponent = std::ilogb(exact) - std::numeric_limits<T>::digits + 1;
    const Real ulps = std::fabs(got - exact) / std::ldexp(Real(1), exponent);
    worst = std::max(worst, ulps);
    check(ulps <= kExpUlps && got <= 1, "%s exp(%a) = %a is off by %Lg ulp", name,
          static_cast<double>(x), static_cast<double>(got), ulps);
  };
  // Dense in the bits of x, from 0 and the subnormals to the end; then evenly in x; then around
  // the halves of ln 2, where the power of two changes.
  const Bits end = std::bit_cast<Bits>(-last), step = end / 300007;
  for (Bits bits = 0; bits < end; bits += step) compare(-std::bit_cast<T>(bits));
  Random random(2);
  for (int i = 0; i < 300000; ++i) compare(static_cast<T>(random.uniform(last, 0)));
  for (T x = 0; x > last; x -= static_cast<T>(0.34657359027997264L)) {
    compare(x), compare(std::nextafter(x, T(0))), compare(std::nextafter(x, -infinity));
  }
  compare(last);
  std::printf("%s exp: worst error %.3Lf ulp\n", name, worst);

  check(pclc::exp_nonpositive(T(0)) == 1 && pclc::exp_nonpositive(-T(0)) == 1, "%s exp(0)", name);
  check(pclc::exp_nonpositive(last) >= std::numeric_limits<T>::min(), "%s flushes early", name);
  for (T x : {std::nextafter(last, -infinity), 2 * last, 100 * last, -std::numeric_limits<T>::max(),
              -infinity}) {
    check(pclc::exp_nonpositive(x) == 0, "%s exp(%g) is not 0", name, static_cast<double>(x));
  }
  for (int i = 0; i < 100000; ++i) {
    const T x = static_cast<T>(-std::exp(
        random.uniform(std::log(-static_cast<double>(last)) + 1e-6, sizeof(T) == 4 ? 88 : 709)));
    check(pclc::exp_nonpositive(x) == 0, "%s exp(%g) is not 0", name, static_cast<double>(x));
  }
  const T nan = std::numeric_limits<T>::quiet_NaN();
  check(std::isnan(pclc::exp_nonpositive(nan)) && std::isnan(pclc::exp_nonpositive(-nan)),
        "%s exp(NaN)", name);
}

// A row through pclc_row.h, with the plainest pass over the false classes that fills RowStats.
struct Evaluated {
  Real loss;
  std::vector<Real> grad;
  pclc::PcCase pc_case;
};

template <typename T>
Evaluated evaluate(const std::vector<Real>& a, int64_t y, const pclc::Problem& problem, T scale) {
  const auto terms =
      pclc::make_terms<T>(problem.coefficients, problem.lc_mode, problem.pc_mean, problem.classes);
  const int64_t classes = problem.classes;
  const T true_logit = static_cast<T>(a[y]);
  pclc::RowStats<T> stats{pclc::kNegativeInfinity<T>, 0, 0, 0, 0, 0, y == 0};
  for (int64_t k = 0; k < classes; ++k) {
    if (k != y && a[k] > stats.top) stats.top = static_cast<T>(a[k]), stats.runner_up = k;
  }
  std::vector<T> e(a.size(), 0), gap(a.size(), 0);
  for (int64_t k = 0; k < classes; ++k) {
    if (k == y || a[k] == -HUGE_VALL) continue;
    e[k] = std::exp(static_cast<T>(a[k]) - stats.top);
    gap[k] = std::max(T(0), true_logit - static_cast<T>(a[k]) - terms.lc_cap);
    stats.exp_sum += e[k];
    stats.lc_sum += problem.lc_mode == pclc::LcMode::kSoft ? e[k] * gap[k] : gap[k];
    stats.lc_count += gap[k] <= 0 ? 0 : problem.lc_mode == pclc::LcMode::kSoft ? e[k] : T(1);
  }
  const auto probs = pclc::row_probs(true_logit, stats.top, stats.exp_sum,
                                     std::exp(-std::abs(true_logit - stats.top)), terms);
  const bool mixed = probs.pc_case == pclc::PcCase::kMixed;
  const auto is_active = [&](int64_t k) { return mixed && e[k] * probs.top_prob > probs.excess; };
  for (int64_t k = 0; k < classes; ++k) {
    if (!is_active(k)) continue;
    stats.active += 1, stats.active_sum += e[k] * probs.top_prob;
  }
  Evaluated result{pclc::row_loss(probs, stats, terms), std::vector<Real>(a.size()), probs.pc_case};
  const pclc::RowGrad<T> g = pclc::row_grad(true_logit, probs, stats, terms, scale);
  for (int64_t k = 0; k < classes; ++k) {
    if (k == y || g.constant) {
      result.grad[k] = g.true_grad;
      continue;
    }
    T value = e[k] * (is_active(k) ? g.active : g.inactive);
    if (g.soft_scale != 0) {
      value += e[k] * g.soft_scale * (gap[k] - g.soft_mean - (gap[k] > 0 ? T(1) : T(0)));
    }
    if (gap[k] > 0) value += g.all_step;
    if (g.top_extra != 0 && k == stats.runner_up) value += g.top_extra;
    check(!g.zero || k == stats.runner_up || value == 0, "a row called zero has %g at %ld",
          static_cast<double>(value), static_cast<long>(k));
    result.grad[k] = value;
  }
  return result;
}

bool agrees(Real got, const Bounded& expected, Real scale) {
  if (!std::isfinite(expected.value)) {
    return got == expected.value || (std::isnan(got) && std::isnan(expected.value));
  }
  return std::fabs(got - scale * expected.value) <= scale * expected.error;
}

template <typename T>
void test_rows(uint64_t seed) {
  Random random(seed);
  long seen[3] = {};
  for (int i = 0; i < 20000; ++i) {
    const int64_t classes = random.pick({1, 2, 3, 10, 40}), y = random.below(classes);
    const auto mode = static_cast<pclc::LcMode>(i % 3);
    pclc::Problem problem{};
    problem.classes = classes, problem.lc_mode = mode, problem.pc_mean = random.chance(0.5);
    problem.coefficients = {random.pick({0.995, 0.5, 0.1, 1.0, 1.5}), random.pick({1.0, 0.0, 2.5}),
                            random.pick({0.05, 0.0, 1.0}),
                            mode == pclc::LcMode::kSoft ? 0.0 : random.pick({0.0, 1.5}),
                            random.pick({0.0, 1.0})};
    std::vector<Real> a = draw_row(random, classes, y, problem.coefficients.margin);
    for (Real& logit : a) logit = static_cast<T>(logit);
    if (random.chance(0.1))
      a[random.below(classes)] = random.pick({-HUGE_VALL, HUGE_VALL, Real(NAN)});
    const T eps = std::numeric_limits<T>::epsilon() / 2;
    const Definition expected = define(a, y, problem, 2 * eps, std::numeric_limits<T>::min());
    const Real scale = 3;
    const Evaluated got = evaluate<T>(a, y, problem, static_cast<T>(scale));
    check(agrees(got.loss, expected.loss, 1), "loss of row %d is %Lg, expected %Lg +- %Lg", i,
          got.loss, expected.loss.value, expected.loss.error);
    for (int64_t k = 0; k < classes; ++k) {
      check(agrees(got.grad[k], expected.grad[k], scale), "gradient %ld of row %d: %Lg, not %Lg",
            static_cast<long>(k), i, got.grad[k], scale * expected.grad[k].value);
    }
    if (!expected.undefined) ++seen[static_cast<int>(got.pc_case)];
  }
  for (long count : seen) check(count > 500, "a case of Eq. 6 was tested %ld times", count);
}

// f_y = 1/2 and four false classes of 1/8 each, all exact: at a margin of 3/8 every hinge is 0 and
// counts as inactive; at 1/2 the first condition, f_y < margin, is an equality.
void test_kinks() {
  const auto case_at = [](double margin) {
    const auto terms =
        pclc::make_terms<double>({margin, 1, 0, 0, 0}, pclc::LcMode::kHard, false, 5);
    return pclc::row_probs(1.0, 0.0, 4.0, 0.25, terms).pc_case;
  };
  check(case_at(0.375) == pclc::PcCase::kNone, "a hinge of 0 counts as active");
  check(case_at(0.376) == pclc::PcCase::kMixed, "a hinge above 0 counts as inactive");
  check(case_at(0.5) == pclc::PcCase::kMixed, "f_y = margin counts as f_y < margin");
  check(case_at(0.501) == pclc::PcCase::kAll, "f_y < margin does not count as such");
}

// The largest of a block and its place, wherever it is. A value that is gone, because somebody
// wrote into the logits meanwhile, still has a place in the block: the gradient is written there.
template <typename T>
void test_largest() {
  T block[3 * pclc::kLanes];
  const int64_t n = std::size(block);
  for (int64_t at = 0; at < n; ++at) {
    for (int64_t i = 0; i < n; ++i) block[i] = i % 5 == 4 ? std::nan("") : T(-2);
    block[at] = T(-1);
    check(pclc::largest(block, n) == -1, "the largest, at %ld, is missed", long(at));
    check(pclc::first_equal(block, n, T(-1)) == at, "the place %ld is missed", long(at));
  }
  check(pclc::first_equal(block, n, T(-2)) == 0, "not the first of equals");
  check(pclc::first_equal(block, n, T(7)) == n - 1, "a place outside the block");
  for (T& value : block) value = std::nan("");
  check(pclc::largest(block, n) == pclc::kNegativeInfinity<T>, "the largest of NaN");
}

}  // namespace
}  // namespace test

int main() {
  test::test_conversions<pclc::BFloat16>(test::kBFloat16, "bfloat16");
  test::test_conversions<pclc::Float16>(test::kFloat16, "float16");
  test::test_exp<float>(-87.3f, "float");
  test::test_exp<double>(-708.0, "double");
  test::test_rows<float>(3);
  test::test_rows<double>(4);
  test::test_kinks();
  test::test_largest<float>();
  test::test_largest<double>();
  return test::report();
}

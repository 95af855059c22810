// The CPU's side of the contract: rows over threads, the reduction over rows.

#include <new>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "pclc_cpu_kernels.h"
#include "pclc_cpu_row.h"

namespace pclc {
namespace {

constexpr int64_t kGrain = 12288;  // elements that are worth a thread of their own

bool in_forked_child = false;

// A child of fork() has the parent's OpenMP state but not its threads: a parallel region would wait
// for them for ever.
[[maybe_unused]] const int fork_handler = [] {
#if !defined(_WIN32)
  pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; });
#endif
  return 0;
}();

int threads_for(const Problem& p, int threads) {
  if (in_forked_child) return 1;
  const int64_t worthwhile = std::max<int64_t>(1, p.rows * p.classes / kGrain);
  return static_cast<int>(std::min(
      {static_cast<int64_t>(std::max(threads, 1)), worthwhile, std::max<int64_t>(p.rows, 1)}));
}

// Cache-line aligned memory that frees itself.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : data_(static_cast<T*>(::operator new(static_cast<size_t>(size) * sizeof(T), kAlign))) {}
  ~Scratch() { ::operator delete(data_, kAlign); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() { return data_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  T* data_;
};

// Calls work(begin, end, thread) for a share of the rows on each thread.
template <typename Work>
void share_rows(int64_t rows, [[maybe_unused]] int threads, const Work& work) {
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int64_t index = omp_get_thread_num(), count = omp_get_num_threads();
    work(rows * index / count, rows * (index + 1) / count, index);
  }
#else
  work(0, rows, 0);
#endif
}

template <typename T>
struct Denominator {
  int64_t bad_target;
  double total;  // summed class weights of the rows that are not ignored; 1 unless averaged
  T inverse;     // 0 where the total is 0: there is then no row whose gradient counts
};

template <typename T>
Denominator<T> check_targets(const Problem& p) {
  const T* weight = static_cast<const T*>(p.weight);
  double total = 0;
  for (int64_t i = 0; i < p.rows; ++i) {
    const int64_t y = p.target[i];
    if (y == p.ignore_index) continue;
    if (y < 0 || y >= p.classes) return {i, 0, 0};
    total += weight ? static_cast<double>(weight[y]) : 1.0;
  }
  if (p.reduction != Reduction::kMean) return {kNoBadTarget, 1.0, 1};
  return {kNoBadTarget, total, static_cast<T>(total == 0 ? 0.0 : 1.0 / total)};
}

// The sum in the order of the rows: the same for any number of threads.
template <typename T>
double sum_in_order(const T* values, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(values[i]);
  return sum;
}

template <typename T>
Call<T> make_call(const Problem& p, const Denominator<T>& denominator) {
  return {p, make_terms<T>(p.coefficients, p.lc_mode, p.pc_mean, p.classes), denominator.inverse};
}

template <typename T, typename Kernel>
int64_t forward(const Problem& p, const Outputs& out, int threads, Kernel kernel) {
  const Denominator<T> denominator = check_targets<T>(p);
  if (denominator.bad_target != kNoBadTarget) return denominator.bad_target;
  const Call<T> call = make_call(p, denominator);
  const bool reduced = p.reduction != Reduction::kNone;
  Scratch<T> row_loss(reduced ? p.rows : 0);
  T* losses = reduced ? row_loss.get() : static_cast<T*>(out.loss);
  threads = threads_for(p, threads);
  const int64_t size = group_size<T>(p.classes);
  Scratch<T> buffers(size * threads);
  share_rows(p.rows, threads, [&](int64_t begin, int64_t end, int64_t thread) {
    kernel(call, out, begin, end, buffers.get() + size * thread, losses);
  });
  if (reduced) {
    const double total = sum_in_order(losses, p.rows);
    *static_cast<T*>(out.loss) = static_cast<T>(total / denominator.total);
  }
  return kNoBadTarget;
}

template <typename T, typename Kernel>
int64_t backward(const Problem& p, const void* row_stats, const GradOutput& grad_output, void* grad,
                 int threads, Kernel kernel) {
  const Denominator<T> denominator = check_targets<T>(p);
  if (denominator.bad_target != kNoBadTarget) return denominator.bad_target;
  const Call<T> call = make_call(p, denominator);
  share_rows(p.rows, threads_for(p, threads), [&](int64_t begin, int64_t end, int64_t) {
    kernel(call, static_cast<const RowStats<T>*>(row_stats), grad_output, begin, end, grad);
  });
  return kNoBadTarget;
}

}  // namespace

int64_t forward_cpu(const Problem& problem, const Outputs& outputs, int threads) {
  switch (problem.dtype) {
    case DType::kFloat32: return forward<float>(problem, outputs, threads, forward_Float32);
    case DType::kBFloat16: return forward<float>(problem, outputs, threads, forward_BFloat16);
    case DType::kFloat16: return forward<float>(problem, outputs, threads, forward_Float16);
    case DType::kFloat64: return forward<double>(problem, outputs, threads, forward_Float64);
  }
  return kNoBadTarget;
}

int64_t backward_cpu(const Problem& p, const void* row_stats, const GradOutput& grad_output,
                     void* grad, int threads) {
  switch (p.dtype) {
    case DType::kFloat32:
      return backward<float>(p, row_stats, grad_output, grad, threads, backward_Float32);
    case DType::kBFloat16:
      return backward<float>(p, row_stats, grad_output, grad, threads, backward_BFloat16);
    case DType::kFloat16:
      return backward<float>(p, row_stats, grad_output, grad, threads, backward_Float16);
    case DType::kFloat64:
      return backward<double>(p, row_stats, grad_output, grad, threads, backward_Float64);
  }
  return kNoBadTarget;
}

}  // namespace pclc

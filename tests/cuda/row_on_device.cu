// pclc_row.h has to compile for the GPU as it stands: loss and gradient of a row, in both types.

#include "pclc_row.h"

namespace {

template <typename T>
__global__ void row(T true_logit, T odds, T scale, pclc::RowStats<T> stats, pclc::Terms<T> terms,
                    T* loss, pclc::RowGrad<T>* grad) {
  const auto probs = pclc::row_probs(true_logit, stats.top, stats.exp_sum, odds, terms);
  *loss = pclc::row_loss(probs, stats, terms);
  *grad = pclc::row_grad(true_logit, probs, stats, terms, scale);
}

template __global__ void row(float, float, float, pclc::RowStats<float>, pclc::Terms<float>, float*,
                             pclc::RowGrad<float>*);
template __global__ void row(double, double, double, pclc::RowStats<double>, pclc::Terms<double>,
                             double*, pclc::RowGrad<double>*);

}  // namespace

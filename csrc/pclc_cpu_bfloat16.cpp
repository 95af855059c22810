// The CPU kernels for bfloat16 logits.

#include "pclc_cpu_loops.h"

namespace pclc {
PCLC_DEFINE_CPU_KERNELS(BFloat16)
}  // namespace pclc

// The rollout products for other kernels of the same pass. Include inside #ifdef ISA_PASS, after ops/gemm.h
// and core/workers.h; it has no guard, since each pass declares its own. It calls parallelFor: call it from
// the kernel itself, not from a body.

namespace isopolicy::ISA_PASS {

void rolloutGemm(const GemmArgs& args, Workers& workers);
// Products without a batch that do not read one another's results; see cpu/shared/gemm_group.h.
void rolloutGemms(DType in, int64_t count, FunctionRef<GemmArgs(int64_t)> productAt, Workers& workers);

}  // namespace isopolicy::ISA_PASS

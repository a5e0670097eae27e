#include "ops/peak.h"

#include "ops/op.h"

namespace isopolicy {

// peak(kind, passes, memory?) -> fp32 [1]: a fixed amount of arithmetic, or of reading or copying `memory`,
// to be timed from outside.
void peakOp(OpCall& call) {
  const auto kind = PeakKind(call.integer("kind", 0, 4));
  const int64_t passes = call.integer("passes", 1);
  const auto memory = call.optionalTensor("memory");
  const bool onCpu = call.device() == Device::cpu;
  if (kind == PeakKind::bf16 && onCpu)
    call.expect(call.context.vectorLevel >= VectorLevel::avx512bf16, "vector level avx512bf16 for kind bf16",
                nameOf(call.context.vectorLevel));
  if (kind == PeakKind::amx) {
    call.expect(onCpu, "the CPU for kind amx", nameOf(call.device()));
    call.expect(call.context.vectorLevel >= VectorLevel::amx, "vector level amx for kind amx",
                nameOf(call.context.vectorLevel));
  }
  PeakArgs args{kind, passes, 0.5f, 1.0f, nullptr, 0, nullptr};
  if (kind == PeakKind::read || kind == PeakKind::copy) {
    call.expect(memory.has_value(), "memory for kinds read and copy", "none");
    call.expectDtype("memory", *memory, DType::float32);
    call.expect(memory->elements() > 0 && memory->elements() % 32 == 0,
                "memory to have a multiple of 32 elements, and some", std::to_string(memory->elements()));
    args.memory = static_cast<float*>(memory->data());
    args.count = memory->elements();
  }
  args.out = static_cast<float*>(call.output(DType::float32, Shape{1}).data());
  call.enqueue(Family::shared, args, {memory ? &*memory : nullptr});
}

}  // namespace isopolicy

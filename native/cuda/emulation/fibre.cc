#include "cuda/emulation/fibre.h"

#include <sys/mman.h>

#include <new>

#if EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace isopolicy::emulation {

// Pages are taken as they are touched; AddressSanitizer's frames are larger.
static constexpr size_t kStackBytes = EMULATION_ASAN ? 512 << 10 : 128 << 10;

#if EMULATION_OWN_SWITCH
// Keeps what the calling convention says a call keeps, on the old stack, and takes it from the new one. (The
// rounding modes are the same on all stacks.)
asm(R"(
  .text
  .p2align 4
  .type isopolicyEmulationSwitch, @function
isopolicyEmulationSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size isopolicyEmulationSwitch, . - isopolicyEmulationSwitch
)");
extern "C" void isopolicyEmulationSwitch(void** saved, void* to);
static void* schedulerStackPointer;
#else
static ucontext_t schedulerContext;
#endif

// Of the thread's own stack, for AddressSanitizer.
[[maybe_unused]] static const void* ownStackBottom;
[[maybe_unused]] static size_t ownStackBytes;
[[maybe_unused]] static void* ownFakeStack;

void restartFibre(Fibre& fibre, void (*entry)()) {
#if EMULATION_ASAN
  __asan_unpoison_memory_region(fibre.stack, kStackBytes);
  fibre.fakeStack = nullptr;
#endif
#if EMULATION_OWN_SWITCH
  // What the switch pops: six registers and the address to go to, after which the stack is as after a call: 8
  // bytes, the caller's address (none), past a multiple of 16.
  void** top = reinterpret_cast<void**>(fibre.stack + kStackBytes) - 1;
  *top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fibre.stackPointer = top;
#else
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack;
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, entry, 0);
#endif
}

Fibre* makeFibre(void (*entry)()) {
  // The lowest page stays untouchable: a kernel that needs more stack faults there instead of in other
  // memory.
  constexpr size_t kGuard = 4096;
  void* memory = mmap(nullptr, kStackBytes + kGuard, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuard, PROT_NONE);
  Fibre* fibre = new Fibre;
  fibre->stack = static_cast<unsigned char*>(memory) + kGuard;
  restartFibre(*fibre, entry);
  return fibre;
}

void enterFibre(Fibre& fibre) {
#if EMULATION_ASAN
  __sanitizer_start_switch_fiber(&ownFakeStack, fibre.stack, kStackBytes);
#endif
#if EMULATION_OWN_SWITCH
  isopolicyEmulationSwitch(&schedulerStackPointer, fibre.stackPointer);
#else
  swapcontext(&schedulerContext, &fibre.context);
#endif
#if EMULATION_ASAN
  __sanitizer_finish_switch_fiber(ownFakeStack, nullptr, nullptr);
#endif
}

void fibreStarts() {
#if EMULATION_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &ownStackBottom, &ownStackBytes);
#endif
}

void leaveFibre(Fibre& fibre) {
#if EMULATION_ASAN
  __sanitizer_start_switch_fiber(&fibre.fakeStack, ownStackBottom, ownStackBytes);
#endif
#if EMULATION_OWN_SWITCH
  isopolicyEmulationSwitch(&fibre.stackPointer, schedulerStackPointer);
#else
  swapcontext(&fibre.context, &schedulerContext);
#endif
#if EMULATION_ASAN
  __sanitizer_finish_switch_fiber(fibre.fakeStack, &ownStackBottom, &ownStackBytes);
#endif
}

}  // namespace isopolicy::emulation

// A stack of its own to run on, and the switch between stacks.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATION_ASAN 1
#else
#define EMULATION_ASAN 0
#endif

#if defined(__x86_64__) && defined(__linux__)
#define EMULATION_OWN_SWITCH 1
#else
#define EMULATION_OWN_SWITCH 0
#include <ucontext.h>
#endif

namespace isopolicy::emulation {

struct Fibre {
  unsigned char* stack = nullptr;
#if EMULATION_OWN_SWITCH
  void* stackPointer = nullptr;
#else
  ucontext_t context;
#endif
  void* fakeStack = nullptr;  // AddressSanitizer's
};

// A fibre that runs `entry`, which must not return, when it is first switched to. Fibres are never freed.
Fibre* makeFibre(void (*entry)());
// Makes a fibre that was left in the middle start anew.
void restartFibre(Fibre& fibre, void (*entry)());
// From the thread's own stack to a fibre, until that calls leaveFibre.
void enterFibre(Fibre& fibre);
void leaveFibre(Fibre& fibre);
// To be called first in `entry`.
void fibreStarts();

}  // namespace isopolicy::emulation

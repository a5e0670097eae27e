// Shuffles and reductions within a warp.
#include <algorithm>

#include "cuda/emulation/device.h"

namespace isopolicy::emulation {
namespace {

struct Combination {
  unsigned brought, got;
  Combine by;
};
struct Match {
  uint64_t brought;
  unsigned got;
};

template <class Operands, class Body>
void eachLane(void* const* operands, uint32_t mask, Body body) {
  for (unsigned lane = 0; lane < 32; lane++)
    if (mask >> lane & 1) body(lane, *static_cast<Operands*>(operands[lane]));
}

unsigned combined(unsigned a, unsigned b, Combine by) {
  switch (by) {
    case Combine::sum:
      return a + b;
    case Combine::least:
      return std::min(a, b);
    case Combine::greatest:
      return std::max(a, b);
    case Combine::leastSigned:
      return unsigned(std::min(int(a), int(b)));
    case Combine::greatestSigned:
      return unsigned(std::max(int(a), int(b)));
    case Combine::bitAnd:
      return a & b;
    case Combine::bitXor:
      return a ^ b;
    default:
      return a | b;
  }
}

void meetShuffle(void* const* operands, uint32_t mask) {
  eachLane<Exchange>(operands, mask, [&](unsigned, Exchange& mine) {
    mine.got = static_cast<const Exchange*>(operands[mine.source])->brought;
  });
}

void meetCombine(void* const* operands, uint32_t mask) {
  bool first = true;
  unsigned result = 0;
  eachLane<Combination>(operands, mask, [&](unsigned lane, Combination& mine) {
    const unsigned value = mine.by == Combine::ballot ? mine.brought << lane : mine.brought;
    result = first ? value : combined(result, value, mine.by);
    first = false;
  });
  eachLane<Combination>(operands, mask, [&](unsigned, Combination& mine) { mine.got = result; });
}

void meetMatch(void* const* operands, uint32_t mask) {
  eachLane<Match>(operands, mask, [&](unsigned, Match& mine) {
    mine.got = 0;
    eachLane<Match>(operands, mask, [&](unsigned lane, Match& other) {
      if (other.brought == mine.brought) mine.got |= 1u << lane;
    });
  });
}

}  // namespace

uint64_t shuffle(const char* what, unsigned mask, uint64_t bits, unsigned source, const Where& where) {
  if ((mask >> source & 1) == 0)
    fail(std::string(what) + ": reads lane " + std::to_string(source) + ", which is not in the mask", where);
  Exchange mine{bits, 0, source};
  meetWarp(what, mask, &mine, meetShuffle, where);
  return mine.got;
}

unsigned combine(const char* what, unsigned mask, unsigned bits, Combine by, const Where& where) {
  Combination mine{bits, 0, by};
  meetWarp(what, mask, &mine, meetCombine, where);
  return mine.got;
}

unsigned lanesWithSame(const char* what, unsigned mask, uint64_t bits, const Where& where) {
  Match mine{bits, 0};
  meetWarp(what, mask, &mine, meetMatch, where);
  return mine.got;
}

}  // namespace isopolicy::emulation

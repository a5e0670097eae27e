// The four warps of a warpgroup work without waiting for each other, each on its 16 rows of the product, as
// the hardware lets them. A product is computed when it is waited for; shared memory that has changed since
// it was begun is an error, so that operands that had not come yet, or were overwritten too early, are found.
#include "cuda/emulation/wgmma.h"

#include <memory>

#include "cuda/emulation/block.h"

namespace isopolicy::emulation {
namespace {

constexpr int kRows = 16, kDepth = 16;

struct Operand {
  uint32_t start, leading, stride, span;
  bool transposed;
};

Operand operandOf(uint64_t descriptor, bool transposed, const char* name, const Where& where) {
  static constexpr uint32_t kSpans[] = {0, 128, 64, 32};
  Operand o;
  o.start = uint32_t(descriptor & 0x3fff) << 4;
  o.leading = uint32_t(descriptor >> 16 & 0x3fff) << 4;
  o.stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
  o.span = kSpans[descriptor >> 62];
  o.transposed = transposed;
  if ((descriptor >> 49 & 7) != 0)
    fail(std::string("wgmma: the emulator knows base offset 0 only, in ") + name, where);
  return o;
}

// Where element (mn, k) lies, as the canonical layouts of the manual have it (16-bit elements, so that a
// 16-byte chunk has eight). K-major: cores of 8 rows, `stride` from one to the next; a row is a chunk where
// there is no swizzle, with `leading` to the next chunk, else of the swizzle's span. MN-major: the same with
// the roles of mn and k changed, and `leading` from one span of mn to the next; without swizzle leading and
// stride change their roles.
uint32_t addressOf(const Operand& o, uint32_t mn, uint32_t k) {
  uint32_t address = o.start;
  if (!o.transposed) {
    address += mn / 8 * o.stride;
    address += o.span == 0 ? mn % 8 * 16 + k / 8 * o.leading + k % 8 * 2 : mn % 8 * o.span + k * 2;
  } else if (o.span == 0) {
    address += mn / 8 * o.stride + mn % 8 * 2 + k / 8 * o.leading + k % 8 * 16;
  } else {
    const uint32_t perSpan = o.span / 2;
    address += mn / perSpan * o.leading + mn % perSpan * 2 + k / 8 * o.stride + k % 8 * o.span;
  }
  return o.span == 0 ? address : swizzled(address, o.span);
}

// As [mn][k]. In both layouts eight neighbours, of k or of mn, are a chunk of 16 bytes.
void gather(const Operand& o, uint32_t first, uint32_t count, const char* name, std::vector<uint16_t>& to,
            const Where& where) {
  to.resize(size_t(count) * kDepth);
  for (uint32_t mn = 0; mn < count; mn += o.transposed ? 8 : 1) {
    for (uint32_t k = 0; k < kDepth; k += o.transposed ? 1 : 8) {
      const unsigned char* const chunk = sharedAt(addressOf(o, first + mn, k), 16, name, where);
      uint16_t elements[8];
      std::memcpy(elements, chunk, 16);
      for (uint32_t i = 0; i < 8; i++)
        to[size_t(o.transposed ? mn + i : mn) * kDepth + (o.transposed ? k : k + i)] = elements[i];
    }
  }
}

}  // namespace

// A product of a warp that was begun.
struct WarpProduct {
  std::array<float*, 32> d;
  WgmmaOperands operands;
  Where where;
  std::vector<uint16_t> a, b;  // as they were then

  // A where it is in shared memory, and B.
  void read(std::vector<uint16_t>& fromA, std::vector<uint16_t>& fromB) const {
    const Operand b = operandOf(operands.descriptorB, operands.transposeB, "B", where);
    gather(b, 0, uint32_t(operands.n), "wgmma B", fromB, where);
    if (operands.a != nullptr) return;
    const Operand a = operandOf(operands.descriptorA, operands.transposeA, "A", where);
    gather(a, current->warp % 4 * kRows, kRows, "wgmma A", fromA, where);
  }

  void finish() {
    std::vector<uint16_t> nowA, nowB;
    read(nowA, nowB);
    if (nowB != b || (operands.a == nullptr && nowA != a))
      fail(std::string("wgmma: ") + (nowB != b ? "B" : "A") +
               " changed between the product and the wait for it",
           where);
    std::vector<float> wideB(b.size());  // [k][n]
    for (int n = 0; n < operands.n; n++)
      for (int k = 0; k < kDepth; k++)
        wideB[size_t(k * operands.n + n)] = wide(b[size_t(n * kDepth + k)], operands.dtype);
    std::vector<float> row(size_t(operands.n));
    for (int m = 0; m < kRows; m++) {
      // Element (m, n) is with lane 4 (m % 8) + n % 8 / 2, at 4 (n / 8) + 2 (m / 8) + n % 2.
      const auto at = [&](int n) -> float& {
        return d[size_t(m % 8 * 4 + n % 8 / 2)][n / 8 * 4 + m / 8 * 2 + n % 2];
      };
      for (int n = 0; n < operands.n; n++) row[size_t(n)] = operands.accumulate ? at(n) : 0.0f;
      for (int k = 0; k < kDepth; k++) {
        const float x = wide(a[size_t(m * kDepth + k)], operands.dtype);
        const float* const y = &wideB[size_t(k * operands.n)];
        for (int n = 0; n < operands.n; n++) row[size_t(n)] += x * y[n];
      }
      for (int n = 0; n < operands.n; n++) at(n) = row[size_t(n)];
    }
  }
};

namespace {

struct Issue {
  WgmmaOperands operands;
  Where where;
};

bool same(const WgmmaOperands& x, const WgmmaOperands& y) {
  return x.n == y.n && x.dtype == y.dtype && (x.a == nullptr) == (y.a == nullptr) &&
         x.descriptorA == y.descriptorA && x.descriptorB == y.descriptorB && x.transposeA == y.transposeA &&
         x.transposeB == y.transposeB && x.accumulate == y.accumulate;
}

void meetIssue(void* const* operands, uint32_t) {
  const Issue& first = *static_cast<const Issue*>(operands[0]);
  auto product = std::make_shared<WarpProduct>();
  product->operands = first.operands;
  product->where = first.where;
  product->a.resize(kRows * kDepth);
  for (int lane = 0; lane < 32; lane++) {
    const WgmmaOperands& mine = static_cast<const Issue*>(operands[lane])->operands;
    if (!same(mine, first.operands))
      fail("wgmma: the lanes of the warp do not all say the same", first.where);
    product->d[size_t(lane)] = mine.d;
    if (mine.a == nullptr) continue;
    for (int i = 0; i < 8; i++) {
      const int row = lane / 4 + i / 2 % 2 * 8, column = lane % 4 * 2 + i % 2 + i / 4 * 8;
      product->a[size_t(row * kDepth + column)] = uint16_t(mine.a[i / 2] >> (16 * (i % 2)));
    }
  }
  product->read(product->a, product->b);
  Warp& warp = current->block->warps[current->warp];
  if (!warp.fenced) fail("wgmma before any wgmmaFence", first.where);
  warp.products.push_back(product);
  // What all four warps have to say alike: told by a hash when they are done.
  for (const uint64_t word : {first.operands.descriptorA, first.operands.descriptorB,
                              uint64_t(first.operands.n), uint64_t(first.operands.accumulate)})
    warp.productHash = (warp.productHash ^ word) * 0x100000001b3u + 1;
}

void meetFence(void* const*, uint32_t) { current->block->warps[current->warp].fenced = true; }

void meetCommit(void* const*, uint32_t) {
  Warp& warp = current->block->warps[current->warp];
  size_t open = warp.products.size();
  for (const size_t group : warp.productGroups) open -= group;
  warp.productGroups.push_back(open);
}

void meetWait(void* const* operands, uint32_t) {
  Warp& warp = current->block->warps[current->warp];
  const size_t pending = *static_cast<const size_t*>(operands[0]);
  while (warp.productGroups.size() > pending) {
    for (size_t i = 0; i < warp.productGroups.front(); i++) {
      warp.products.front()->finish();
      warp.products.pop_front();
    }
    warp.productGroups.pop_front();
  }
}

constexpr uint32_t kAll = 0xffffffffu;

}  // namespace

void wgmma(WgmmaOperands operands, const Where& where) {
  expectHopper("wgmma", where);
  Issue mine{operands, where};
  meetWarp("wgmma", kAll, &mine, meetIssue, where);
}
void wgmmaFence(const Where& where) { meetWarp("wgmmaFence", kAll, nullptr, meetFence, where); }
void wgmmaCommit(const Where& where) { meetWarp("wgmmaCommit", kAll, nullptr, meetCommit, where); }
void wgmmaWait(size_t pendingGroups, const Where& where) {
  meetWarp("wgmmaWait", kAll, &pendingGroups, meetWait, where);
}
void setRegisters(const Where& where) {
  expectHopper("setmaxnreg", where);
  meetWarp("setmaxnreg", kAll, nullptr, nullptr, where);
}

}  // namespace isopolicy::emulation
